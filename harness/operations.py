"""The commands ``doctor`` and ``cache``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from ..errors import InputError, RunError
from .answer_cache import MOST_BYTES, AnswerCache, answers_folder
from .doctor import Check, examine
from .embedded import cache_dir

_STYLES = {"ok": "green", "note": "yellow", "bad": "red"}


@click.command()
@click.option("--network", is_flag=True, help="Also try whether the model hub answers; otherwise nothing leaves here.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON and nothing else.")
def doctor(network: bool, as_json: bool) -> None:
    """Look at this machine: versions, processors, cache, disk, model, speed; each with a remedy."""
    checks = []
    with Console(stderr=True).status("looking") as status:
        for check in examine(network):
            checks.append(check)
            status.update(f"{check.name}: {check.state}; looking on")
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        Console().print(_table(checks))
    if bad := [check.name for check in checks if check.state == "bad"]:
        raise RunError(f"not as it should be: {', '.join(bad)}. What to do stands beside it.")


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("check", "", "found"):
        table.add_column(heading, no_wrap=heading != "found", overflow="fold")
    for check in checks:
        found = Text(check.found)
        if check.remedy:
            found.append(f"\n{check.remedy}", style="bold")
        table.add_row(check.name, Text(check.state, style=_STYLES[check.state]), found)
    return table


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
