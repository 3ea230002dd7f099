"""The command ``cross-validate``."""

from __future__ import annotations

import hashlib
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
from ..runs.config import RunConfig, read_assignments
from ..runs.cross_validation import RESULTS, Fold, cross_validate, draw
from ..runs.load_model import load
from ..runs.plan import RunRequest, plan
from .options import terminal

MOST_TOKENS = 1000


@click.command("cross-validate")
@click.option("--aligner", default="gd", show_default=True, help="An aligner that has `tokens`.")
@click.option("--fit", default="synthetic_survey", show_default=True, metavar="TASK[:COUNTRY]", help="Labels or pairs.")
@click.option("--country", help="Country by name or code [default: the task's].")
@click.option(
    "--tokens", default="10,20,30,40,50,60,70,80,90,100", show_default=True, help="Lengths of the soft prompt."
)
@click.option("--folds", type=click.IntRange(2, 100), default=5, show_default=True, help="Folds of whole item groups.")
@click.option("--budget", type=click.IntRange(1), default=60, show_default=True, help="Survey evaluations a fit.")
@click.option("--model", default="smollm2", show_default=True, help="Embedded model, folder, or hub id.")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option("--threads", type=click.IntRange(1), help="Processor threads [default: all].")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting of the aligner.")
@click.option("--out", type=click.Path(file_okay=False), default="culteval-folds", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def command(
    aligner: str, fit: str, tokens: str, folds: int, assignments: tuple[str, ...], out: str, as_json: bool, **flags: Any
) -> None:
    """Choose the length of a soft prompt: losses on items it was fitted to and on items left out."""
    lengths = _lengths(tokens)
    if "tokens" not in find("aligners", aligner).Settings.model_fields:
        raise UsageError(f"--aligner {aligner}: it has no `tokens` to compare.")
    settings = read_assignments("--set", assignments)
    request = {"aligner": aligner, "fit": (fit,), "tasks": (fit.partition(":")[0],)} | flags
    for length in lengths:
        config = plan(RunRequest.of(**request, settings=settings | {"tokens": length}))
    folder = Path(out) / _name(config, folds)
    with terminal(as_json) as display:
        model_of = cache(lambda: load(config, display.say))
        found = cross_validate(config, lengths, folds, folder / RESULTS, model_of, display)
    shown = [each for each in found if each.tokens in (0, *lengths)]
    draw(shown, "loss", folder / "loss.svg", "loss (expected read-out)")
    draw(shown, "argmax", folder / "argmax.svg", "loss of the most probable answers")
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "folds": [each.model_dump() for each in shown]}, indent=2))
        return
    console = Console()
    console.print(_table(shown, f"{config.fit[0]}, {name_of(config.fit_country)}: {aligner}, {folds} folds"))
    console.print(f"pictures   {folder / 'loss.svg'}, {folder / 'argmax.svg'}", highlight=False, soft_wrap=True)


def _lengths(text: str) -> list[int]:
    try:
        lengths = sorted({int(part) for part in text.split(",")})
    except ValueError:
        lengths = []
    if not lengths or not 1 <= lengths[0] <= lengths[-1] <= MOST_TOKENS:
        raise UsageError(f"--tokens {text!r}: whole numbers from 1 to {MOST_TOKENS} with commas between them.")
    return lengths


def _name(config: RunConfig, folds: int) -> str:
    """Readable, and unique to everything but the lengths."""
    settings = {name: value for name, value in config.settings.items() if name != "tokens"}
    digest = hashlib.sha256(f"{folds}{config.model_copy(update={'settings': settings}).digest}".encode()).hexdigest()
    return f"{config.fit[0]}-{config.fit_country}-{config.aligner}-{digest[:10]}"


def _table(folds: list[Fold], title: str) -> Table:
    """A row a length: means over the folds, beside them their standard deviation."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    columns = ("train_loss", "validation_loss", "train_argmax", "validation_argmax", "seconds")
    for heading in ("tokens", *(name.replace("_", "\n") for name in columns)):
        table.add_column(heading, justify="right")
    for tokens in sorted({each.tokens for each in folds}):
        mine = [each for each in folds if each.tokens == tokens]
        values = {name: np.array([getattr(each, name) for each in mine]) for name in columns}
        cells = [f"{values[name].mean():.3f} ± {values[name].std(ddof=1):.3f}" for name in columns[:-1]]
        table.add_row(str(tokens), *cells, f"{values['seconds'].mean():.0f}")
    return table
