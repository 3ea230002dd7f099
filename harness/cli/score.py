"""The command ``score``."""

from __future__ import annotations

import json

import click
from rich.console import Console

from ..report.progress import verbosity
from ..scoring.submission import load_submission
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
    with terminal(as_json, talk):
        submission = load_submission(path)
        manifest, scores = submission.manifest, submission.score(country, **options)
        log.tell(path, "scored", answers=manifest.answers.rows, scores=len(scores))
    if as_json:
        click.echo(
            json.dumps(
                {
                    "submission": str(submission.folder),
                    "budget": manifest.budget.model_dump(),
                    "scores": scores.to_dicts(),
                },
                indent=2,
            )
        )
        return
    console = Console()
    for table in scores.tables(console.width):
        console.print(table)
