"""The command ``doctor``: checks of this machine, each with a remedy."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...errors import RunError
from ..runs.machine_checks import Check, examine

_STYLES = {"ok": "green", "note": "yellow", "bad": "red"}


@click.command()
@click.option("--network", is_flag=True, help="Also ask the model hub for its headers; otherwise no request is made.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON and nothing else.")
def doctor(network: bool, as_json: bool) -> None:
    """Check this machine: versions, processors, memory, cache, disk, model; with a remedy for each problem."""
    checks = []
    with Console(stderr=True).status("checking") as status:
        for check in examine(network):
            checks.append(check)
            status.update(f"checked {check.name}: {check.state}")
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        Console().print(_table(checks))
    if bad := [check.name for check in checks if check.state == "bad"]:
        raise RunError(f"checks failed: {', '.join(bad)}. The remedy is printed beside each.")


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
