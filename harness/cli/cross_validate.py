"""The command ``cross-validate``."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from ...errors import UsageError
from ...tasks.countries import name_of
from ..registry import find
from ..runs.config import DEFAULT_MODEL, read_assignments
from ..runs.cross_validation import Fold, compare_lengths, folder_name
from ..runs.plan import RunRequest, plan
from ..util.command_help import GroupedCommand, option
from .options import load, terminal

MOST_TOKENS = 1000
_LENGTHS = "10,20,30,40,50,60,70,80,90,100"
_FIT, _FOLDS = "Alignment", "Cross-validation"  # headings of the help


@click.command("cross-validate", cls=GroupedCommand)
@option("--aligner", default="gd", show_default=True, group=_FIT, help="Aligner with the setting `tokens`.")
@option(
    "--fit", default="synthetic_survey", show_default=True, group=_FIT, metavar="TASK[:COUNTRY]", help="Task to fit."
)
@option("--country", group=_FIT, help="Country by name or code [default: the task's].")
@option("--budget", type=click.IntRange(1), default=60, show_default=True, group=_FIT, help="Survey evaluations a fit.")
@option("--set", "assignments", multiple=True, metavar="KEY=VALUE", group=_FIT, help="Setting of the aligner.")
@option("--tokens", default=_LENGTHS, show_default=True, group=_FOLDS, help="Lengths of the soft prompt to compare.")
@option(
    "--folds", type=click.IntRange(2, 100), default=5, show_default=True, group=_FOLDS, help="Folds of item groups."
)
@option("--seed", type=click.IntRange(0), default=0, show_default=True, group=_FOLDS, help="Seed of folds and fits.")
@option("--model", default=DEFAULT_MODEL, show_default=True, group="Model", help="Embedded model, folder, or hub id.")
@option("--dtype", default="auto", show_default=True, group="Model", help="auto, float32, bfloat16, float16 or int8.")
@option("--device", default="cpu", show_default=True, group="Model", help="cpu, cuda, cuda:1 ...")
@option("--threads", type=click.IntRange(1), group="Model", help="Processor threads [default: all].")
@option(
    "--out",
    type=click.Path(file_okay=False),
    default="culteval-folds",
    show_default=True,
    group="Output",
    help="Folder of the results.",
)
@option("--json", "as_json", is_flag=True, group="Output", help="Print one JSON object and nothing else.")
def command(
    aligner: str, fit: str, tokens: str, folds: int, assignments: tuple[str, ...], out: str, as_json: bool, **flags: Any
) -> None:
    """Cross-validate the length of a soft prompt: losses on fitted items and on items left out."""
    lengths = _lengths(tokens)
    if "tokens" not in find("aligners", aligner).Settings.model_fields:
        raise UsageError(f"--aligner {aligner}: it has no setting `tokens` to compare.")
    settings = read_assignments("--set", assignments)
    request = {"aligner": aligner, "fit": (fit,), "tasks": (fit.partition(":")[0],)} | flags
    for length in lengths:
        config = plan(RunRequest.of(**request, settings=settings | {"tokens": length}))
    folder = Path(out) / folder_name(config, folds)
    with terminal(as_json) as display:
        model_of = cache(lambda: load(config, display.say))
        shown = compare_lengths(config, lengths, folds, folder, model_of, display)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "folds": [fold.model_dump() for fold in shown]}, indent=2))
        return
    console = Console()
    console.print(_table(shown, f"{config.fit[0]}, {name_of(config.fit_country)}: {aligner}, {folds} folds"))
    console.print(f"figures    {folder / 'loss.svg'}, {folder / 'argmax.svg'}", highlight=False, soft_wrap=True)


def _lengths(text: str) -> list[int]:
    try:
        lengths = sorted({int(part) for part in text.split(",")})
    except ValueError:
        lengths = []
    if not lengths or not 1 <= lengths[0] <= lengths[-1] <= MOST_TOKENS:
        raise UsageError(f"--tokens {text!r}: whole numbers from 1 to {MOST_TOKENS} with commas between them.")
    return lengths


def _table(folds: list[Fold], title: str) -> Table:
    """Make a table, a row a length: means over the folds and their standard deviations."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    columns = ("train_loss", "validation_loss", "train_argmax", "validation_argmax", "seconds")
    for heading in ("tokens", *(name.replace("_", "\n") for name in columns)):
        table.add_column(heading, justify="right")
    for tokens in sorted({fold.tokens for fold in folds}):
        of_length = [fold for fold in folds if fold.tokens == tokens]
        values = {name: np.array([getattr(fold, name) for fold in of_length]) for name in columns}
        cells = [f"{values[name].mean():.3f} ± {values[name].std(ddof=1):.3f}" for name in columns[:-1]]
        table.add_row(str(tokens), *cells, f"{values['seconds'].mean():.0f}")
    return table
