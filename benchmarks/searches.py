"""The study of searches: Differential Evolution in several forms, random search, CMA-ES and PSO, on argmax losses.

culteval sweep benchmarks/searches.yaml
python -m benchmarks.searches searches --csv docs/results-searches.csv

The runs may be made in pieces, on several machines: the file keeps the rows of runs that are not in the folder.

A run's log has the lowest fitted loss after every generation, so that one run of 300 evaluations says what it had found
after 50, 100 and 200, in whole generations. A search whose steps depend on the budget (``shade``) might find more with
50 alone. Held-out losses are those of the prompt returned, the best of the run.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import click
import numpy as np
from culteval.errors import InputError
from culteval.harness.report.tables import markdown_table
from culteval.harness.scoring.baselines import constant_scores
from culteval.harness.scoring.submission import Submission
from culteval.harness.submissions.manifest import UsedAligner
from culteval.harness.util.event_log import LOG
from culteval.tasks.spec import first_problem
from pydantic import TypeAdapter, ValidationError

from .aligners import label_of
from .common import Command
from .stored import UNALIGNED, evaluations_allowed, records, require_unaligned, submissions, value

BUDGETS = (50, 100, 200, 300)  # survey evaluations
CONTROL = "random"


@dataclass(frozen=True)
class Found:
    """What one run found: its lowest fitted loss after 50 to 300 evaluations, and the losses of the prompt returned.

    All losses are of argmax answers; ``after50`` to ``after300`` are of the objective, which may be another one than
    the task's. ``again`` is the fitted loss when all tasks were answered, in other batches than in the search;
    ``constant`` the loss of one answer to all items. ``settings``: of the aligner, all of them, as JSON.
    """

    aligner: str
    settings: str
    objective: str
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

    @property
    def search(self) -> str:
        """Return the aligner with the settings that are not today's defaults."""
        label = label_of(UsedAligner(name=self.aligner, settings=json.loads(self.settings), adapter_sha256=None))
        return label + (f", {self.objective}" if self.objective != "task" else "")

    @property
    def is_control(self) -> bool:
        """Return whether it is random search from the first draw to the last."""
        return self.aligner == CONTROL and not json.loads(self.settings).get("refine")

    def after(self, budget: int) -> float:
        """Return the lowest fitted loss after one of ``BUDGETS``."""
        loss: float = getattr(self, f"after{budget}")
        return loss


def read(folder: Path) -> list[Found]:
    """Read every finished run of the sweep.

    Raises:
        InputError: a submission or log cannot be read.
    """
    return [_found(each) for each in submissions(folder)]


def _found(submission: Submission) -> Found:
    manifest = submission.manifest
    rows, asked = submission.score(manifest.country), manifest.tasks[0]
    fitted = value(rows, "loss", "argmax", "fit")
    curve = [fitted] * len(BUDGETS)
    if allowed := evaluations_allowed(submission):
        curve = _curve(submission.folder.parent / LOG, manifest.budget.item_forwards_allowed / allowed)
    layout = submission.answers[asked.name].layout
    constant = constant_scores(submission.cache.spec(asked.name), layout, asked.country, asked.options)
    objective = manifest.fitted.objective if manifest.fitted else "task"
    return Found(
        manifest.aligner.name,
        json.dumps(manifest.aligner.settings),
        objective,
        manifest.country,
        manifest.seed,
        *curve,
        fitted,
        value(rows, "loss", "argmax", "heldout"),
        value(constant, "loss", "argmax", "heldout"),
        value(rows, "collapsed", "argmax", "heldout") == 1,
    )


def _curve(log: Path, per_survey: float) -> list[float]:
    """Return the lowest losses after ``BUDGETS``, of a run's log."""
    events = records(log, "the losses after each budget")
    made = [(each["spent"] / per_survey, float(each["best"])) for each in events if each["event"] == "generation"]
    return [min((best for spent, best in made if spent <= budget), default=float("nan")) for budget in BUDGETS]


def table(found: Sequence[Found]) -> str:
    """Build a Markdown table, a row for each search: means over countries and seeds, and pairs below random search.

    ``fitted`` is of the answers that were scored. ``... of naive`` is the mean over countries of a loss as a share of
    that of the model as it is.

    Raises:
        InputError: a country without a run of ``naive``.
    """
    bare = {each.country: each for each in found if each.aligner == UNALIGNED}
    require_unaligned((each.country for each in found), bare)
    control = {(each.objective, each.country, each.seed): each for each in found if each.is_control}
    names = ["search", *(f"lowest, {b}" for b in BUDGETS), "below random"]
    names += ["fitted", "fitted of naive", "held out", "held out of naive", "collapsed", "runs"]
    rows = [
        [
            label,
            *(f"{np.mean([each.after(b) for each in own]):,.0f}" for b in BUDGETS),
            _below(own, control),
            *_losses("again", own, bare),
            *_losses("heldout", own, bare),
            str(sum(each.collapsed for each in own)),
            str(len(own)),
        ]
        for label in dict.fromkeys(each.search for each in found)
        if (own := [each for each in found if each.search == label])
    ]
    constant = f"{np.mean([each.constant for each in bare.values()]):,.0f}"
    rows.append(["constant answer", *[constant] * len(BUDGETS), "", constant, "", constant, "", "", ""])
    return markdown_table(names, rows, words=range(1))


def _below(own: Sequence[Found], control: Mapping[tuple[str, str, int], Found]) -> str:
    """Return in how many pairs of country and seed a search is below random search at the largest budget."""
    if own[0].aligner == UNALIGNED or own[0].is_control:
        return ""
    pairs = [(each, other) for each in own if (other := control.get((each.objective, each.country, each.seed)))]
    below = sum(each.after(BUDGETS[-1]) < other.after(BUDGETS[-1]) for each, other in pairs)
    return f"{below}/{len(pairs)}" if pairs else ""


def _losses(name: str, own: Sequence[Found], bare: Mapping[str, Found]) -> tuple[str, str]:
    """Return the mean of a loss, and the mean over countries of its share of that of the model as it is."""
    losses: dict[str, list[float]] = defaultdict(list)
    for each in own:
        losses[each.country].append(getattr(each, name))
    shares = [np.mean(values) / getattr(bare[code], name) for code, values in losses.items()]
    return f"{np.mean([one for values in losses.values() for one in values]):,.0f}", f"{np.mean(shares):.2f}"


def save(found: Sequence[Found], path: Path) -> None:
    """Write a row for each run."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Found))
        writer.writerows(astuple(each) for each in found)


def saved(path: Path) -> list[Found]:
    """Read the rows of ``save``; none if there is no file.

    Raises:
        InputError: a column is missing, or a value is of another kind; names the line.
    """
    if not path.exists():
        return []
    kind, found = TypeAdapter(Found), []
    with path.open(encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                found.append(kind.validate_python(row))
            except ValidationError as error:
                raise InputError(f"{path}:{line}: {first_problem(error)}.") from None
    return found


def merged(before: Sequence[Found], found: Sequence[Found]) -> list[Found]:
    """Return the runs of both, those of ``found`` where a run is in both."""
    rows = {(each.search, each.country, each.seed): each for each in (*before, *found)}
    return list(rows.values())


@click.command(cls=Command)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--csv",
    "rows",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A row for each run, .csv; rows of other runs are kept.",
)
def main(folder: Path, rows: Path | None) -> None:
    """Print the table of the folder's runs, and of others in the file; write them there."""
    found = merged(saved(rows) if rows else [], read(folder))
    click.echo(table(found), nl=False)
    if rows:
        save(found, rows)


if __name__ == "__main__":
    main()
