"""Tables of the studies of CLCA, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from ...harness.report.tables import markdown_table

Cells = tuple[list[str], list[list[str]]]
"""Headings, and rows with the same number of cells; the first two columns are text."""
JUDGED = ("kl", "kl_probs")  # the metrics of a verdict: as published, and for greedy texts that do not change
HABITS = (
    "modal_share",
    "changed_answers",
    "total_variation",
)  # statistics of answers that do not depend on the country
COLLAPSED = 0.95  # modal answer share above which a model gives one answer to nearly everything
LEGEND = (
    "kl: country against model, smoothed; kl_clca: as the released code has it, where a perfect answer is not 0; "
    "js: distance in nats; accuracy: expected; none: no valid number; general: accuracy on questions without culture. "
    "_probs: of the options' probabilities, not the paper's. modal_share: answer share, * collapsed; "
    "moved: answers that differ from the bare model's; shift: total variation of the probabilities. "
    "SE: standard error over personas (general: questions), without the noise of training and simulation; "
    "p: paired permutation test."
)
SHOWN = ("kl", "js", "accuracy", "kl_clca", "none", "kl_probs", "js_probs", "accuracy_probs", "general", *HABITS)


def changes(rows: Sequence[dict[str, Any]]) -> Cells:
    """Build a table of metrics before and after."""
    headings = ["metric", "better", "before", "after", "difference", "SE", "p", "n"]
    better = {True: "higher", False: "lower", None: ""}
    cells = []
    for row in sorted(rows, key=lambda row: SHOWN.index(row["metric"]) if row["metric"] in SHOWN else len(SHOWN)):
        name = row["metric"]
        numbers = [_cell(name, row["before"], 4), _cell(name, row["after"], 4), f"{row['difference']:+.4f}"]
        last = [_number(row["standard_error"], ".4f"), _number(row["p"], ".3g"), str(row["n"])]
        cells.append([name, better[row["higher_is_better"]], *numbers, *last])
    return headings, cells


def arms(rows: Sequence[dict[str, Any]]) -> Cells:
    """Build a table of arms: metrics, adapter size, and the change of both KL from the control by size and error."""
    cells = []
    for row in rows:
        numbers = [_cell(name, row["metrics"][name], 3) for name in SHOWN]
        numbers.append(", ".join(f"{name} {size:.1g}" for name, size in row.get("adapter size", {}).items()))
        compared = {each["metric"]: each for each in row.get("from_control", ())}
        for metric in JUDGED:
            numbers += _against(compared.get(metric))
        cells.append([row["country"], row["arm"], *numbers])
    last = [heading for metric in JUDGED for heading in (f"{metric}-control", "in SE", "p")]
    return ["", "arm", *SHOWN, "adapter size", *last], cells


def settings(own: dict[str, Any], preset: str) -> str:
    """Describe a study's settings in a line."""
    return ", ".join([f"Settings: preset {preset}", *(f"{name} {value}" for name, value in own.items())]) + "."


def _against(found: dict[str, Any] | None) -> list[str]:
    """Format a difference: its size, in standard errors, and p; empty if nothing was compared."""
    if not found:
        return ["", "", ""]
    size, error = found["difference"], found["standard_error"]
    return [f"{size:+.3f}", f"{size / error:+.1f}" if error else "-", _number(found["p"], ".2g")]


def _cell(metric: str, value: float, digits: int) -> str:
    """Format a metric's value; ``*`` marks a collapsed one."""
    if metric == "changed_answers":
        return f"{value:.0f}"
    return f"{value:.{digits}f}" + ("*" if metric == "modal_share" and value >= COLLAPSED else "")


def rich(headings: list[str], cells: list[list[str]], title: str) -> Table:
    """Build a table for the terminal."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    return table


def markdown(headings: list[str], cells: list[list[str]]) -> str:
    """Format the same in Markdown."""
    return markdown_table(headings, cells, words=range(2))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
