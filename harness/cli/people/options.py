"""Flags and formats of the commands that compare personas with people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ....errors import UsageError
from ....tasks.schema import OWN_SCORINGS

Command = Callable[..., Any]


def people_options(command: Command) -> Command:
    """Add the argument SUBMISSION and the flags that both commands have."""
    for each in reversed(
        (
            click.argument("path", metavar="SUBMISSION", type=click.Path()),
            click.option("--task", help="Task to compare [default: the first with answer shares]."),
            click.option(
                "--scoring", type=click.Choice(OWN_SCORINGS), help="Answer scoring [default: the task's first]."
            ),
            click.option("--edition", help="Imported edition [default: the submission's, else the only one]."),
            click.option(
                "--plot", type=click.Path(dir_okay=False), metavar="FILE", help="Also write a figure, SVG or PNG."
            ),
        )
    ):
        command = each(command)
    return command


def checked_plot(plot: str | None) -> Path | None:
    """Return the path of a figure; UsageError for another format than SVG and PNG."""
    if plot and Path(plot).suffix not in (".svg", ".png"):
        raise UsageError(f"--plot {plot!r}: figures are SVG or PNG. Name it FILE.svg.")
    return Path(plot) if plot else None
