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
from .options import checked_plot, estimate, people_options


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
    for heading in ("attribute", "group", "personas", "items", "accuracy", "of majority", "error", "of majority"):
        table.add_column(heading, justify="left" if heading in ("attribute", "group") else "right")
    for row in found:
        accuracy = estimate(row.accuracy, row.accuracy_low, row.accuracy_high)
        error = estimate(row.error, row.error_low, row.error_high)
        nulls = (f"{row.accuracy_majority:.3f}", f"{row.error_majority:.3f}")
        cells = (row.attribute, row.group, str(row.personas), str(row.items), accuracy, nulls[0], error, nulls[1])
        table.add_row(*map(Text, cells))
    return table


def _gaps(found: Subgroups) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("attribute", "metric", "best served", "worst served", "gap"):
        table.add_column(heading, justify="right" if heading == "gap" else "left")
    for gap in found.gaps:
        value = estimate(gap.gap, gap.low, gap.high)
        table.add_row(*map(Text, (gap.attribute, gap.metric, gap.best, gap.worst, value)))
    return table
