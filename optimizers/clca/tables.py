"""What the commands of ``clca`` print: tables for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from ...harness.report import markdown_table

Cells = tuple[list[str], list[list[str]]]
"""Headings, and rows of as many cells; the first two columns are text."""
LEGEND = (
    "kl: country against model, smoothed; kl_clca: as the released code has it, where a perfect answer is not 0; "
    "js: distance in nats; accuracy: expected; none: no valid number; general: accuracy on questions without culture. "
    "SE: standard error over personas (general: questions); p: paired permutation test."
)
SHOWN = ("kl", "js", "accuracy", "kl_clca", "none", "general")
NARROW = ("kl", "js", "accuracy", "none", "general")  # what a terminal has room for


def report(found: dict[str, Any], stage: str) -> Table:
    """What every finished stage made, in numbers."""
    table = Table(title=f"clca, up to {stage}", title_justify="left", box=None, pad_edge=False, show_header=False)
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {number}" for key, number in value.items())
        table.add_row(name, " -> ".join(map(str, value)) if isinstance(value, list) else str(value))
    return table


def changes(rows: Sequence[dict[str, Any]]) -> Cells:
    """Metrics before and after."""
    headings = ["metric", "better", "before", "after", "difference", "SE", "p", "n"]
    better = {True: "higher", False: "lower", None: ""}
    cells = []
    for row in sorted(rows, key=lambda row: SHOWN.index(row["metric"]) if row["metric"] in SHOWN else len(SHOWN)):
        numbers = [f"{row[key]:.4f}" for key in ("before", "after")] + [f"{row['difference']:+.4f}"]
        last = [_number(row["standard_error"], ".4f"), _number(row["p"], ".3g"), str(row["n"])]
        cells.append([row["metric"], better[row["higher_is_better"]], *numbers, *last])
    return headings, cells


def arms(rows: Sequence[dict[str, Any]], shown: Sequence[str] = SHOWN) -> Cells:
    """Arms with some metrics, and their change in KL from the control, in standard errors too."""
    cells = []
    for row in rows:
        numbers = [f"{row['metrics'][name]:.3f}" for name in shown]
        found = next((each for each in row.get("from_control", ()) if each["metric"] == "kl"), None)
        last = ["", "", ""]
        if found:
            size, error = found["difference"], found["standard_error"]
            last = [f"{size:+.3f}", f"{size / error:+.1f}" if error else "-", _number(found["p"], ".2g")]
        cells.append([row["country"], row["arm"], *numbers, *last])
    return ["", "arm", *shown, "kl-control", "in SE", "p"], cells


def rich(headings: list[str], cells: list[list[str]], title: str) -> Table:
    """A table for the terminal."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    return table


def markdown(headings: list[str], cells: list[list[str]]) -> str:
    """The same in Markdown."""
    return markdown_table(headings, cells, words=range(2))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
