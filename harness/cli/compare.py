"""The command ``compare``: paired differences between submissions, or rank correlation over countries."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...tasks.countries import name_of
from ..analysis.compare import SeedRange, by_seed, compare, read_sides
from ..analysis.comparison import ItemChange, TaskComparison
from ..analysis.rank_correlation import RankCorrelation, correlate
from ..analysis.significance import Difference
from ..report.tables import escape, markdown_table
from .options import terminal

SHOWN = 10  # items whose answers changed most, in a table
Rows = list[list[str]]


@click.command(name="compare")
@click.argument("paths", metavar="BASELINE OTHER...", nargs=-1, required=True, type=click.Path())
@click.option("--country", help="Country to score against, by name or code [default: the baseline's].")
@click.option(
    "--rank-correlation",
    is_flag=True,
    help="Instead, correlate the indices with the published ones: ten submissions or more, one a country.",
)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every item, and nothing else.")
def compare_command(
    paths: tuple[str, ...], country: str | None, rank_correlation: bool, as_markdown: bool, as_json: bool
) -> None:
    """Compare submissions: differences, intervals, paired tests, changed answers; or rank correlation.

    Each is a submission folder, a run folder or a manifest. The first is the baseline: differences are OTHER minus
    BASELINE, held out; p is of a paired permutation test, corrected by Holm over all tests shown.

    With --rank-correlation the submissions are of one model and aligner, each aligned to another country: Kendall's
    tau and Spearman's rho of each index with the published one. Ranks do not depend on the constants.
    """
    if len(paths) < 2:
        raise click.UsageError("give two submissions or more; the first is the baseline.")
    if as_markdown and as_json:
        raise click.UsageError("give --markdown or --json, not both.")
    if rank_correlation and country:
        raise click.UsageError("--country goes without --rank-correlation, which scores each against its own country.")
    printed = _Markdown() if as_markdown else _Terminal()
    with terminal(as_json) as display:
        sides = read_sides([Path(path) for path in paths], display.say)
        if rank_correlation:
            correlations = correlate(sides)
            data = {"correlations": [dataclasses.asdict(row) for row in correlations]}
        else:
            comparisons, seeds = compare(sides, np.random.default_rng(0), country, display.say), by_seed(sides)
            data = {"comparisons": [dataclasses.asdict(comparison) for comparison in comparisons]}
            data["seeds"] = [dataclasses.asdict(seed_range) for seed_range in seeds]
    if as_json:
        click.echo(json.dumps(data, indent=2, allow_nan=False))
    elif rank_correlation:
        _show_correlations(correlations, printed)
    else:
        _show_all(comparisons, seeds, printed)


def _show_all(
    comparisons: Sequence[TaskComparison], seeds: Sequence[SeedRange], printed: _Terminal | _Markdown
) -> None:
    for comparison in comparisons:
        _show(comparison, printed)
    if seeds:
        rows = [[s.task, s.name, f"{s.metric}, {s.scoring}", s.points.shown(_form(s.points.values))] for s in seeds]
        printed.table("Runs that differ in their seed alone", ("task", "aligner", "held out", "by seed (range)"), rows)
    printed.line(
        "interval: 95 %, over the resampled units (n); p: paired permutation test, Holm-corrected; detectable: the "
        "difference that such a test finds with a power of 0.8. docs/statistics.md explains them."
    )


def _show_correlations(rows: Sequence[RankCorrelation], printed: _Terminal | _Markdown) -> None:
    heads = ("index", "answer scoring", "statistic", "value", "95 % interval", "p", "countries")
    printed.table("Indices of the model against the published ones", heads, [_correlation(row) for row in rows])
    printed.line("p: Holm-corrected over all rows. An index that is the same in every country has no ranks and no row.")


def _correlation(row: RankCorrelation) -> list[str]:
    one = row.association
    interval = "-" if one.low is None else f"{one.low:+.2f} to {one.high:+.2f}"
    return [row.metric, row.scoring, one.statistic, f"{one.value:+.2f}", interval, _p(row.adjusted), str(one.n)]


def _show(each: TaskComparison, printed: _Terminal | _Markdown) -> None:
    printed.heading(f"{each.task}, {name_of(each.country)}: {each.a} minus {each.b}")
    for caution in each.cautions:
        printed.line(f"note: {caution}")
    if not each.differences and not each.changes:
        return  # a caution says that both sides share no answer scoring
    heads = ["metric", "answer scoring", each.a, each.b, "difference", "95 % interval", "p", "detectable", "n"]
    printed.table("", heads, [_difference(row) for row in each.differences])
    for note in _notes(each.differences):
        printed.line(note)
    changed = [row for row in each.changes if row.change]
    if not changed:
        printed.line(f"no answer changed ({each.scoring})")
        return
    title = f"Answers that changed most ({each.scoring}; {min(SHOWN, len(changed))} of {len(each.changes)} items)"
    heads = ["item", "question", each.a, each.b, "change", "p"]
    rows = [_changed(row) for row in changed[:SHOWN]]
    if changed[0].p is None:
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    if changed[0].text_a is not None:
        heads += [f"{each.a}, text", f"{each.b}, text"]
        rows = [[*cells, _cut(m.text_a or ""), _cut(m.text_b or "")] for cells, m in zip(rows, changed, strict=False)]
    printed.table(title, heads, rows, left=4)


def _form(values: Iterable[float]) -> str:
    """Choose the digits by size: three decimals for shares, none for losses in the hundreds."""
    size = max((abs(value) for value in values), default=0.0)
    return ",.0f" if size >= 200 else ".1f" if size >= 2 else ".3f"


def _difference(row: Difference) -> list[str]:
    form = _form((row.a, row.b))
    interval = "-" if row.low is None else f"{row.low:+{form}} to {row.high:+{form}}"
    better = {True: " ↑", False: " ↓", None: ""}[row.higher_is_better]
    cells = [row.metric + better, row.scoring, f"{row.a:{form}}", f"{row.b:{form}}", f"{row.difference:+{form}}"]
    return [
        *cells,
        interval,
        _p(row.adjusted),
        "-" if row.detectable is None else f"{row.detectable:{form}}",
        str(row.n),
    ]


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value >= 0.001 else "<0.001"


def _notes(rows: Sequence[Difference]) -> list[str]:
    """List the reasons why rows have no interval or test, each once with its metrics."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row.note:
            reasons.setdefault(row.note, {}).setdefault(row.scoring, []).append(row.metric)
    whole = Counter(row.scoring for row in rows)
    lines = []
    for note, about in reasons.items():
        parts = [name if len(each) == whole[name] else f"{', '.join(each)} ({name})" for name, each in about.items()]
        lines.append(f"{'; '.join(parts)}: {note}")
    return lines


def _changed(row: ItemChange) -> list[str]:
    if row.mean_a is None:
        return [
            row.item,
            _cut(row.question),
            _cut(row.likely_a),
            _cut(row.likely_b),
            f"{row.change:.2f}",
            _p(row.adjusted),
        ]
    sides = [
        f"{mean:.2f} (modal: {likely})" for mean, likely in ((row.mean_a, row.likely_a), (row.mean_b, row.likely_b))
    ]
    return [row.item, _cut(row.question), *sides, f"{row.change:+.2f}", _p(row.adjusted)]


def _cut(text: str) -> str:
    """Cut an untrusted text to one line of 60 printable characters."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= 60 else plain[:59] + "…"


class _Terminal:
    """Printer for a terminal, which does not interpret markup in texts."""

    def __init__(self) -> None:
        self.console = Console()

    def heading(self, text: str) -> None:
        self.console.print(Text(text, style="bold"))

    def line(self, text: str) -> None:
        self.console.print(Text(text, style="dim"))

    def table(self, title: str, heads: Sequence[str], rows: Rows, left: int = 2) -> None:
        """Print a table whose first ``left`` columns are words and the others numbers."""
        table = Table(title=Text(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for place, head in enumerate(heads):
            table.add_column(Text(head), overflow="fold", justify="left" if place < left else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        self.console.print(table)


class _Markdown:
    """Printer of Markdown, which escapes texts."""

    def heading(self, text: str) -> None:
        click.echo(f"### {escape(text)}\n")

    def line(self, text: str) -> None:
        click.echo(f"{escape(text)}\n")

    def table(self, title: str, heads: Sequence[str], rows: Rows, left: int = 2) -> None:
        """Print a table whose first ``left`` columns are words and the others numbers."""
        if title:
            click.echo(f"{escape(title)}\n")
        cells = ([escape(cell) for cell in row] for row in rows)
        click.echo(markdown_table([escape(head) for head in heads], cells, words=range(left)))
