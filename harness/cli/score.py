"""The command ``score``."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from ...tasks.countries import name_of
from ..registry import spec_of
from ..report import tables as report
from ..report.progress import verbosity
from ..runs.folder import submission_of
from ..scoring.score import score_submission
from ..util import event_log as log
from .options import as_json, measure_options, terminal


@click.command()
@click.argument("path", metavar="SUBMISSION", type=click.Path())
@click.option("--country", help="Another country by name or code, or all.")
@measure_options
@verbosity
@as_json
def score(path: str, country: str | None, talk: str | None, as_json: bool, **options: str | None) -> None:
    """Score a submission folder again: no model is needed."""
    given = {name: value for name, value in options.items() if value is not None}
    folder = submission_of(Path(path))
    with terminal(as_json, talk):
        manifest, scores = score_submission(folder, country, given)
        log.tell(path, "scored", answers=manifest.answers.rows, scores=len(scores))
    if as_json:
        click.echo(
            json.dumps(
                {
                    "submission": str(folder),
                    "budget": manifest.budget.model_dump(),
                    "scores": [row.model_dump() for row in scores],
                },
                indent=2,
            )
        )
        return
    console = Console()
    for asked in manifest.tasks:
        spec = spec_of(asked.name)
        mine = [row for row in scores if row.task == spec.name]
        codes = dict.fromkeys(row.country for row in mine)
        rows = [report.Row(name_of(code), [s for s in mine if s.country == code], None) for code in codes]
        title = f"{spec.name}: {manifest.aligner.name}, aligned to {name_of(manifest.country)}, scored against"
        console.print(report.table(report.ranked(rows, spec), title, spec, console.width, first="country"))
