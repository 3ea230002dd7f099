"""The command ``cache``: show or clear the answer cache."""

from __future__ import annotations

import json
from typing import Any

import click

from ..models.embedded import cache_dir
from ..runs.answer_cache import MOST_BYTES, AnswerCache, answers_folder


@click.group()
def cache() -> None:
    """Show or clear the cache of answers, which later runs reuse."""


def _opened() -> AnswerCache:
    return AnswerCache(answers_folder(), lambda text: click.echo(text, err=True))


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def info(as_json: bool) -> None:
    """Show where the cache is and how much it holds."""
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
    """Delete all cached answers; models are kept."""
    click.echo(f"{_opened().clear()} sets of answers deleted from {answers_folder()}")
