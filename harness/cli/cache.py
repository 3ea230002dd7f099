"""The command ``cache``: answers kept from one run to the next."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.progress import track

from ...errors import InputError
from ..models.embedded import cache_dir
from ..runs.answer_cache import MOST_BYTES, AnswerCache, answers_folder


@click.group()
def cache() -> None:
    """Answers kept from one run to the next."""


def _opened() -> AnswerCache:
    return AnswerCache(answers_folder(), lambda text: click.echo(text, err=True))


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def info(as_json: bool) -> None:
    """Where the cache is, and how much is in it."""
    answers, models = _opened(), cache_dir() / "models"
    files = [path for path in models.rglob("*") if path.is_file()]
    facts: dict[str, Any] = {
        "answers": str(answers.folder),
        "sets": len(answers.entries()),
        "bytes": answers.size(),
        "most_bytes": MOST_BYTES,
        "models": str(models),
        "model_bytes": sum(path.stat().st_size for path in files),
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    size = f"{facts['bytes'] / 2**20:.1f} of {MOST_BYTES / 2**20:.0f} MiB"
    click.echo(f"answers    {answers.folder}: {facts['sets']} sets, {size}")
    click.echo(f"models     {models}: {facts['model_bytes'] / 2**20:.1f} MiB")


@cache.command()
def clear() -> None:
    """Drop all answers; models stay."""
    click.echo(f"{_opened().clear()} sets of answers dropped from {answers_folder()}")


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def verify(as_json: bool) -> None:
    """Read all answers and compare them with their hashes; nothing is changed."""
    answers = _opened()
    progress = track(answers.damaged(), "reading", len(answers.entries()), console=Console(stderr=True), transient=True)
    found = {str(path): bad for path, bad in progress}
    damaged = [path for path, bad in found.items() if bad]
    if as_json:
        click.echo(json.dumps({"sets": len(found), "damaged": damaged}, indent=2))
    else:
        click.echo(f"{len(found) - len(damaged)} of {len(found)} sets of answers are whole")
    if damaged:
        raise InputError(
            f"{damaged[0]}: damaged{f', and {len(damaged) - 1} more' if damaged[1:] else ''}. Never believed, and "
            "replaced by the next run that needs it; `culteval cache clear` drops all."
        )
