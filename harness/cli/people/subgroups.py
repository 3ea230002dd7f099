"""The command ``subgroups``: personas against the people of their subgroup."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ....tasks.countries import name_of
from ...analysis.subgroups import Subgroups
from ...analysis.subgroups import subgroups as compute
from ..options import as_json
from .options import checked_plot, people_options


@click.command()
@people_options
@as_json
def subgroups(path: str, plot: str | None, as_json: bool, **flags: Any) -> None:
    """Score the personas of each subgroup against the people of that subgroup.

    Needs a submission with personas, and people imported by `culteval data import wvs`. Accuracy is the
    probability of the subgroup's modal answer, error the distance from it by the range of the scale (Tan et al. 2026).
    """
    target = checked_plot(plot)
    found = compute(path, **flags)
    if target:
        found.write(target)
    if as_json:
        gaps = [asdict(gap) for gap in found.gaps]
        click.echo(json.dumps(found.about | {"groups": found.records(), "gaps": gaps}, indent=2, allow_nan=False))
        return
    console = Console()
    console.print(_groups(found))
    console.print(_gaps(found))
    if target:
        console.print(f"figure     {plot}", highlight=False, soft_wrap=True, markup=False)


def _groups(found: Subgroups) -> Table:
    about = found.about
    title = f"{about['task']}, {name_of(about['country'])}, {about['scoring']}, held out; people: {about['edition']}"
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("group", "n", "accuracy", "majority", "error", "majority"):
        table.add_column(heading, justify="left" if heading == "group" else "right", no_wrap=True)
    for row in found:
        accuracy = _either(row.accuracy, row.accuracy_high)
        error = _either(row.error, row.error_high)
        nulls = (f"{row.accuracy_majority:.3f}", f"{row.error_majority:.3f}")
        table.add_row(
            *map(Text, (f"{row.attribute}: {row.group}", str(row.personas), accuracy, nulls[0], error, nulls[1]))
        )
    return table


def _gaps(found: Subgroups) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("attribute", "metric", "best served", "worst served", "gap"):
        table.add_column(heading, justify="right" if heading == "gap" else "left")
    for gap in found.gaps:
        value = _either(gap.gap, gap.high)
        table.add_row(*map(Text, (gap.attribute, gap.metric, gap.best, gap.worst, value)))
    return table


def _either(value: float, high: float | None) -> str:
    """Format a value, with half the width of its symmetric interval if it has one."""
    return f"{value:.3f}" + ("" if high is None else f" ± {high - value:.3f}")
