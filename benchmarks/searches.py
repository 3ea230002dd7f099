"""The study of searches: Differential Evolution in several forms, random search, CMA-ES and PSO, on argmax losses.

culteval sweep benchmarks/searches.yaml
python -m benchmarks.searches searches --csv docs/results-searches.csv

A run's log has the lowest fitted loss after every generation, so that one run of 300 evaluations says what 50, 100 and
200 of them found; held-out losses are those of its last prompt.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import click
import numpy as np
from culteval.harness.report.tables import markdown_table
from culteval.harness.scoring.submission import Submission
from culteval.harness.util.event_log import LOG
from culteval.tasks.score import Score, find

from .aligners import label_of
from .stored import submissions

BUDGETS = (50, 100, 200, 300)  # survey evaluations
BARE, CONTROL = "naive", "random"


@dataclass(frozen=True)
class Found:
    """What one run found: its lowest fitted loss after 50 to 300 evaluations, and the losses of its last prompt.

    All losses are of argmax answers; ``again`` is the last prompt's fitted loss when all tasks were answered, in other
    batches than in the search; ``constant`` the loss of one answer to all items.
    """

    aligner: str
    country: str
    seed: int
    after50: float
    after100: float
    after200: float
    after300: float
    again: float
    heldout: float
    constant: float
    collapsed: bool

    def after(self, budget: int) -> float:
        """Return the lowest fitted loss after one of ``BUDGETS``."""
        loss: float = getattr(self, f"after{budget}")
        return loss


def read(folder: Path) -> list[Found]:
    """Read every finished run of the sweep.

    Raises:
        InputError: a submission cannot be read.
    """
    return [_found(folder, each) for each in submissions(folder)]


def _found(folder: Path, submission: Submission) -> Found:
    manifest = submission.manifest
    rows = submission.score(manifest.country)
    fitted = _value(rows, "loss", "fit")
    asked = manifest.tasks[0]
    spec = submission.cache.spec(asked.name)
    curve = [fitted] * len(BUDGETS)
    if manifest.aligner.name != BARE:
        spent = manifest.budget
        curve = _curve(submission.folder.parent / LOG, spent.item_forwards / spent.survey_evaluations)
    measure = submission.cache.measure(spec, asked.country, asked.options)
    constant = measure.constant(submission.answers[asked.name].layout)
    return Found(
        label_of(manifest.aligner),
        manifest.country,
        manifest.seed,
        *curve,
        fitted,
        _value(rows, "loss", "heldout"),
        _value(measure.score(constant, "heldout", "argmax"), "loss", "heldout"),
        _value(rows, "collapsed", "heldout") == 1,
    )


def _value(rows: Sequence[Score], metric: str, split: str) -> float:
    found = find(rows, (metric, "argmax", split))
    return float("nan") if found is None else found.value


def _curve(log: Path, per_survey: float) -> list[float]:
    """Return the lowest losses after ``BUDGETS``, of a run's log."""
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    made = [(each["spent"] / per_survey, float(each["best"])) for each in events if each["event"] == "generation"]
    return [min((best for spent, best in made if spent <= budget), default=float("nan")) for budget in BUDGETS]


def table(found: Sequence[Found]) -> str:
    """Build a Markdown table, a row for each search: means over countries and seeds, and pairs below random search."""
    countries = list(dict.fromkeys(each.country for each in found))
    bare = {c: next(each for each in found if (each.aligner, each.country) == (BARE, c)) for c in countries}
    control = {(each.country, each.seed): each for each in found if each.aligner == CONTROL}
    names = ["search", *(f"fitted, {b}" for b in BUDGETS), "below random", "held out", "of naive", "collapsed", "runs"]
    rows = []
    for label in dict.fromkeys(each.aligner for each in found):
        own = [each for each in found if each.aligner == label]
        pairs = [(each, control[each.country, each.seed]) for each in own if (each.country, each.seed) in control]
        below = sum(each.after300 < other.after300 for each, other in pairs)
        share = np.mean([np.mean([e.heldout for e in own if e.country == c]) / bare[c].heldout for c in countries])
        rows.append(
            [
                label,
                *(f"{np.mean([each.after(b) for each in own]):,.0f}" for b in BUDGETS),
                f"{below}/{len(pairs)}" if label not in (BARE, CONTROL) else "",
                f"{np.mean([each.heldout for each in own]):,.0f}",
                f"{share:.2f}",
                str(sum(each.collapsed for each in own)),
                str(len(own)),
            ]
        )
    constant = f"{np.mean([bare[c].constant for c in countries]):,.0f}"
    rows.append(["constant answer", *[constant] * len(BUDGETS), "", constant, "", "", ""])
    return markdown_table(names, rows, words=range(1))


def save(found: Sequence[Found], path: Path) -> None:
    """Write a row for each run."""
    names = [field.name for field in fields(Found)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([getattr(each, name) for name in names] for each in found)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--csv", "rows", type=click.Path(dir_okay=False, path_type=Path), help="A row for each run, .csv.")
def main(folder: Path, rows: Path | None) -> None:
    """Print the table; write the runs."""
    found = read(folder)
    click.echo(table(found), nl=False)
    if rows:
        save(found, rows)


if __name__ == "__main__":
    main()
