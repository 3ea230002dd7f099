"""The command ``judge``: an LLM judge of open answers."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ...tasks.countries import name_of
from ..runs.execute import SCORES
from ..runs.folder import Checksums
from ..scoring.judge import judge_answers
from ..scoring.submission import load_submission
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
    submission = load_submission(run)
    record = judge_answers(submission.folder, submission.manifest, submission.answers, model, model_args)
    scores = submission.score()
    if (run / SCORES).is_file():
        write_json(run / SCORES, scores.to_dicts())
        if (sums := Checksums(run)).kept:
            sums.add(SCORES)
    table = Table(title=f"{record.rows} open answers judged by {model}", box=None, title_justify="left", pad_edge=False)
    for heading in ("task", "country", "split", "metric", "value", "n"):
        table.add_column(heading)
    for row in scores:
        if row.metric.startswith("judged_"):
            table.add_row(row.task, name_of(row.country), row.split, row.metric, f"{row.value:.3f}", str(row.n))
    Console().print(table)
