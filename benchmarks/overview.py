"""A board of several tasks and countries in one table: a row an aligner, a column a task.

python -m benchmarks.overview leaderboards/results
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from culteval.harness.analysis.between_countries import ALL
from culteval.harness.report.tables import escape, markdown_table
from culteval.harness.scoring.score import Shelf
from culteval.leaderboards.boards import Board, boards
from culteval.leaderboards.country_sets import AlignedSet, aligned_sets
from culteval.leaderboards.entries import entries
from culteval.leaderboards.metric_labels import precision
from culteval.leaderboards.render.tables import columns
from culteval.leaderboards.suite import read_suite
from culteval.tasks.glossary import label
from culteval.tasks.score import place

REFERENCES = ("constant", "uniform", "world mean", "random prefix")  # of the rows that no aligner made
APART = "between-country R2"


@dataclass
class Cell:
    """A row's values of one task by country; of aligners whether each is an improvement, of controls their spreads."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    gains: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    spreads: list[float] = field(default_factory=list)

    def mean(self, countries: Collection[str]) -> float:
        """Over countries, each the mean over its seeds."""
        return float(np.mean([np.mean(each) for code, each in self.values.items() if code in countries]))

    def text(self, places: int, countries: Collection[str]) -> str:
        """The mean over these countries, with its spread or the number of gains; "-" where there is none."""
        if not self.values.keys() & set(countries):
            return "-"
        gains = [one for code, each in self.gains.items() for one in each if code in countries]
        told = f" ({sum(gains)}/{len(gains)})" if gains else ""
        spread = f" ± {np.mean(self.spreads):.{places}f}" if self.spreads else ""
        return f"{self.mean(countries):z.{places}f}{spread}{told}"


def cells(found: Iterable[Board]) -> dict[str, dict[str, Cell]]:
    """By row and task."""
    made: dict[str, dict[str, Cell]] = defaultdict(lambda: defaultdict(Cell))
    for board in found:
        column, country = columns(board)[0], board.key.country
        for standing in board.standings:
            cell = made[standing.entry.manifest.aligner.name][board.spec.name]
            if score := column.find(standing.row.scores):
                cell.values[country].append(score.value)
                cell.gains[country].append(bool(standing.row.improvement))
        for row in board.baselines:
            equal = row.note if (row.note or "").startswith("also ") else ""  # on a board, equal rows are one
            for name in (name for name in REFERENCES if row.name.startswith(name) or name in equal):
                if score := column.find(row.scores):
                    made[name][board.spec.name].values[country].append(score.value)
                    made[name][board.spec.name].spreads += [row.spread[place(score)]] if row.spread else []
    return made


def table(found: Sequence[Board], sets: Iterable[AlignedSet]) -> str:
    """The table in Markdown: aligners by the mean skill, then the rows that need none."""
    tasks = {board.spec.name: columns(board)[0].metric for board in found}
    apart: dict[str, list[float]] = defaultdict(list)
    for each in sets:
        if each.centred:
            apart[each.aligner].append(each.centred.explained_variance[ALL])
    made = cells(found)
    first = next(iter(tasks))
    everywhere = {board.key.country for board in found}
    aligners = sorted(set(made) - set(REFERENCES), key=lambda name: -made[name][first].mean(everywhere))
    rows = [(name, everywhere) for name in aligners if made[name][first].values.keys() == everywhere]
    for name in aligners:  # beside what was not run everywhere, the model as it is in the same countries
        if (name, everywhere) not in rows:
            rows += [(each, set(made[name][first].values)) for each in (name, "naive")]
    lines = []
    for name, where in [*rows, *((name, everywhere) for name in REFERENCES if name in made)]:
        told = name if where == everywhere else f"{name}, {' and '.join(sorted(where))} only"
        values = [made[name][task].text(precision(metric), where) for task, metric in tasks.items()]
        differences = f"{np.mean(apart[name]):z.2f}" if apart[name] and where == everywhere else "-"
        lines.append([escape(told), differences, *values])
    headings = [f"{task}: {label(metric).lower()}" for task, metric in tasks.items()]
    return markdown_table(["aligner", APART, *headings], lines, words=range(1))


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
def main(folder: str) -> None:
    """Print the table."""
    shelf, runs = Shelf(), list(entries(Path(folder), lambda text: click.echo(text, err=True)))
    click.echo(table(boards(runs, shelf, read_suite()), aligned_sets(runs, shelf)), nl=False)


if __name__ == "__main__":
    main()
