"""The command ``structure``: correlations between items over personas beside those between people."""

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
from ...analysis.structure import Structure
from ...analysis.structure import structure as compute
from ..options import as_json
from .options import checked_plot, people_options


@click.command()
@people_options
@click.option("--top", type=click.IntRange(0), default=12, show_default=True, help="Number of pairs to show.")
@as_json
def structure(path: str, plot: str | None, top: int, as_json: bool, **flags: Any) -> None:
    """Compare correlations between items over personas with those over the people of the country.

    Shares of answers can be right where personas do not combine answers as people do. Needs a submission with 20
    personas or more, and people imported by `culteval data import wvs`.
    """
    target = checked_plot(plot)
    found = compute(path, **flags)
    if target:
        found.write(target)
    if as_json:
        shown = found.about | {"agreement": asdict(found.agreement), "pairs": found.records()}
        click.echo(json.dumps(shown, indent=2, allow_nan=False))
        return
    console = Console()
    _show(console, found)
    console.print(_pairs(found, top))
    if target:
        console.print(f"figure     {plot}", highlight=False, soft_wrap=True, markup=False)


def _show(console: Console, found: Structure) -> None:
    about, one = found.about, found.agreement
    title = f"{about['task']}, {name_of(about['country'])}, {about['scoring']}, held out; people: {about['edition']}"
    alike = "none" if one.correlation is None else f"{one.correlation:.3f}"
    alike += "" if one.low is None else f" [{one.low:.3f}, {one.high:.3f}]"
    limit = "" if one.reliability is None else f"; two halves of the personas {one.reliability:.2f}"
    lines = [
        f"correlation of the two sets   {alike}{limit}",
        f"mean absolute difference      {one.difference:.3f}; of independent answers {one.zero_difference:.3f}",
        f"mean absolute correlation     personas {one.strength:.3f}, people {one.zero_difference:.3f}",
        f"{one.pairs} pairs of items, {one.personas} personas; without variation {len(about['constant_items'])} items",
    ]
    for line in (title, *lines):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _pairs(found: Structure, top: int) -> Table:
    table = Table(title="largest differences", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("items", "over personas", "over people", "people"):
        table.add_column(heading, justify="left" if heading == "items" else "right")
    for row in found[:top]:
        cells = (f"{row.first} {row.second}", f"{row.personas:+.2f}", f"{row.people:+.2f}", f"{row.count:,}")
        table.add_row(*map(Text, cells))
    return table
