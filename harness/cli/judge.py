"""The command ``judge``: an LLM judge of open answers."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ...tasks.countries import name_of
from ..registry import spec_of
from ..runs.execute import SCORES
from ..runs.folder import Checksums, submission_of
from ..scoring.judge import judge as have_judged
from ..scoring.score import score_submission
from ..submissions.reader import read_submission
from ..util.atomic_io import write_json


@click.command()
@click.argument("path", metavar="SUBMISSION", type=click.Path(file_okay=False))
@click.option("--model", required=True, help="Model type of lm-eval: hf, local-chat-completions, ...")
@click.option("--model-args", default="", help="Its arguments in lm-eval's form: pretrained=FOLDER,dtype=float32")
def judge(path: str, model: str, model_args: str) -> None:
    """Judge the open answers of a submission with a model.

    The model says towards which pole each answer leans; its verdicts are kept beside the answers.
    """
    run = Path(path)
    folder = submission_of(run)
    manifest, answers = read_submission(folder)
    specs = {task.name: spec_of(task.name) for task in manifest.tasks}
    record = have_judged(folder, manifest, specs, answers, model, model_args)
    _, scores = score_submission(folder)
    if (run / SCORES).is_file():
        write_json(run / SCORES, [row.model_dump(mode="json") for row in scores])
        if (sums := Checksums(run)).kept:
            sums.add(SCORES)
    table = Table(title=f"{record.rows} open answers judged by {model}", box=None, title_justify="left", pad_edge=False)
    for heading in ("task", "country", "split", "metric", "value", "n"):
        table.add_column(heading)
    for row in scores:
        if row.metric.startswith("judged_"):
            table.add_row(row.task, name_of(row.country), row.split, row.metric, f"{row.value:.3f}", str(row.n))
    Console().print(table)
