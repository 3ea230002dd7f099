"""The study of aligners on `vsm13`: tables and curves from the folder of its sweep.

culteval sweep benchmarks/aligners.yaml --workers 2
python -m benchmarks.aligners aligners --plot aligners.svg
python -m benchmarks.aligners strongest --seeds
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from culteval.harness.report.plots import drawing
from culteval.harness.report.tables import markdown_table
from culteval.harness.runs.config import aligner_settings
from culteval.harness.scoring.submission import Submission
from culteval.harness.submissions.manifest import UsedAligner
from culteval.tasks.countries import name_of
from culteval.tasks.score import Score

from .common import Command
from .stored import evaluations_allowed, submissions, value

OTHERS = ("US", "SA", "CN", "IN", "DE", "BR", "JP", "NG")  # the countries of the wrong-country comparison
COLUMNS = (
    ("fit", "loss", "expected", "fit", ",.0f"),
    ("fit argmax", "loss", "argmax", "fit", ",.0f"),
    ("heldout", "loss", "expected", "heldout", ",.0f"),
    ("heldout argmax", "loss", "argmax", "heldout", ",.0f"),
    ("reversed", "loss_reversed", "expected", "heldout", ",.0f"),
    ("skill", "skill", "expected", "heldout", ".2f"),
    ("off_options", "off_options", "expected", "heldout", ".2f"),
)
SPLITS = ("fit", "heldout")


@dataclass(frozen=True)
class Point:
    """One finished run: its configuration, its scores, its skill for other countries."""

    aligner: str
    country: str
    seed: int
    budget: int
    seconds: float
    scores: Sequence[Score]
    wrong: float

    def value(self, metric: str, scoring: str, split: str) -> float:
        """Return a score, NaN if there is none."""
        return value(self.scores, metric, scoring, split)

    @property
    def collapsed(self) -> bool:
        """Return whether the held-out answers are in effect one answer given 24 times."""
        return self.value("collapsed", "expected", "heldout") == 1


def read(folder: Path) -> list[Point]:
    """Read every finished run or added submission of a study."""
    points = []
    for submission in submissions(folder):
        manifest = submission.manifest
        own = submission.score(manifest.country)
        skills = [_skill(submission, code) for code in OTHERS if code != manifest.country]
        wrong = float(np.mean(skills))
        spent, label = manifest.budget, label_of(manifest.aligner)
        allowed = evaluations_allowed(submission)
        points.append(Point(label, manifest.country, manifest.seed, allowed, spent.seconds, own, wrong))
    return points


def _skill(submission: Submission, country: str) -> float:
    return value(submission.score(country), "skill", "expected", "heldout")


def label_of(aligner: UsedAligner) -> str:
    """Return an aligner's name, and the settings that differ from its defaults (except population)."""
    usual = aligner_settings(aligner.name, ()).model_dump(mode="json")
    changed = [f"{k}={v}" for k, v in aligner.settings.items() if k != "population" and v != usual.get(k)]
    return f"{aligner.name} ({', '.join(changed)})" if changed else aligner.name


def _name(label: str) -> str:
    """Return the aligner of a label, without its settings."""
    return label.partition(" (")[0]


def table(points: Sequence[Point], each: bool = False) -> str:
    """Build a Markdown table: one row per aligner, country and budget, or one per seed with ``each``.

    Over several seeds the means are shown, except the minimum of the seconds, which other work on the machine
    increases.
    """
    groups: dict[tuple[str, str, int, int], list[Point]] = defaultdict(list)
    for point in points:
        groups[point.country, point.aligner, point.budget, point.seed if each else 0].append(point)
    scores = [name for name, *_ in COLUMNS]
    names = ["country", "aligner", "budget", *scores, "wrong country", "collapsed", "sec", "seed" if each else "seeds"]
    rows = []
    for (country, aligner, budget, seed), group in sorted(groups.items()):
        cells = [name_of(country), aligner, str(budget)]
        cells += [f"{np.mean([p.value(*wanted) for p in group]):{form}}" for _, *wanted, form in COLUMNS]
        cells += [f"{np.mean([p.wrong for p in group]):.2f}", str(sum(p.collapsed for p in group))]
        rows.append([*cells, f"{min(p.seconds for p in group):.0f}", str(seed if each else len(group))])
    return markdown_table(names, rows, words=range(2))


def plot(points: Sequence[Point], path: Path) -> None:
    """Plot loss against budget, fitted and held out, one panel per country; seeds as points, their mean as a line.

    Settings that differ from an aligner's defaults have its colour and other markers.
    """
    countries = sorted({point.country for point in points})
    searched = sorted({point.aligner for point in points if point.budget})
    with drawing(path, 5 * len(countries), 7, (len(SPLITS), len(countries))) as axes:
        panels = np.reshape(axes, (len(SPLITS), len(countries)))
        for column, country in enumerate(countries):
            for row, split in enumerate(SPLITS):
                _panel(panels[row, column], [p for p in points if p.country == country], searched, split)
                panels[row, column].set_title(f"{name_of(country)}, {split}", loc="left")
        legend = panels[0, 0].get_legend_handles_labels()
        panels[0, 0].figure.legend(*legend, loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def _panel(axes, points: Sequence[Point], searched: Sequence[str], split: str) -> None:
    colours = {name: f"C{number}" for number, name in enumerate(dict.fromkeys(map(_name, searched)))}
    for aligner in searched:
        shown = [p for p in points if p.aligner == aligner]
        losses = [p.value("loss", "expected", split) for p in shown]
        forms = [name for name in searched if _name(name) == _name(aligner)]  # the defaults first
        look = {"color": colours[_name(aligner)], "marker": "ox+1"[forms.index(aligner) % 4]}
        axes.scatter([p.budget for p in shown], losses, s=16, label=aligner, **look)
        budgets = sorted({p.budget for p in shown})
        means = [np.mean([loss for p, loss in zip(shown, losses, strict=True) if p.budget == b]) for b in budgets]
        axes.plot(budgets, means, color=look["color"])
    bare = [p.value("loss", "expected", split) for p in points if p.aligner == "naive"]
    if bare:
        axes.axhline(np.mean(bare), color="#888888", linestyle=":", label="naive")
    axes.set_yscale("log")
    for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis(lambda value, _: f"{value:,.0f}" if f"{value:.0e}"[0] in "1235" else "")
    axes.set_xlabel("survey evaluations")
    axes.set_ylabel("loss")
    axes.spines[["top", "right"]].set_visible(False)


@click.command(cls=Command)
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--seeds", is_flag=True, help="A row a seed instead of means.")
@click.option("--plot", "picture", type=click.Path(dir_okay=False), help="Curves, .svg.")
def main(folder: str, seeds: bool, picture: str | None) -> None:
    """Print the table; draw the curves."""
    points = read(Path(folder))
    click.echo(table(points, seeds), nl=False)
    if picture:
        plot(points, Path(picture))


if __name__ == "__main__":
    main()
