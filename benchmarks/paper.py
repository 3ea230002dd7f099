"""The seed paper's Table 1, computed here (Masoud et al. 2025, arXiv 2503.16094, workshop version).

(a) Soft prompts trained on preference pairs of one dimension, by gradient descent and by Differential Evolution, tested
on held-out pairs of both. (b) The survey answered by the bare model, with an instruction, with a prompt learned by
gradient descent from the synthetic survey, and with one found by evolution on the survey itself.

    python -m benchmarks.paper --out paper

Table (b) with the paper's own model, constants and form of evolution is the sweep ``llama3-8b.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.checkpoint import Checkpoint
from culteval.harness.alignment.objective import Objective, TaskObjective, fit_objective
from culteval.harness.cli.options import load
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.registry import find, spec_of
from culteval.harness.report.progress import TerminalDisplay
from culteval.harness.report.tables import markdown_lines
from culteval.harness.runs.config import aligner_settings
from culteval.harness.runs.execute import execute
from culteval.harness.runs.plan import RunRequest, plan
from culteval.tasks.countries import country, name_of
from culteval.tasks.measure import MeasureOptions, measure_of
from culteval.tasks.prompts import ProtocolOptions, render
from rich.console import Console

PAIRS, DIMENSIONS, PAIR_COUNTRY, PAIR_BUDGET = "cdeval_core", ("idv", "ivr"), "US", 120
COUNTRIES, SURVEY_BUDGET = ("SA", "US", "CN", "IN"), 100
ARMS = {  # row of the survey's table -> aligner, task it is fitted to
    "baseline": ("naive", "vsm13"),
    "instruction": ("icl", "vsm13"),
    "GD on the synthetic survey": ("gd", "synthetic_survey"),
    "DE on the survey": ("de", "vsm13"),
}


def pairs_of(objective: TaskObjective, dimension: str) -> TaskObjective:
    """Build the objective over the pairs of one dimension."""
    names = [objective.spec.items.by_id[item].dimension == dimension for item in objective.prompts.layout.items]
    return objective.take(np.array(names)[objective.prompts.layout.item])


def heldout_pairs() -> tuple[Any, Any]:
    """Return held-out prompts of the pairs, and the measure that scores them."""
    spec = spec_of(PAIRS)
    return render(spec, "heldout", ProtocolOptions()), measure_of(spec, PAIR_COUNTRY, MeasureOptions())


def judged(aligned: AlignedModel, dimension: str) -> tuple[float, float]:
    """Compute the cross-entropy and pole accuracy on held-out pairs of one dimension."""
    prompts, measure = heldout_pairs()
    questions = spec_of(PAIRS).items.by_id
    own_pairs = prompts.take(
        np.array([questions[i].dimension == dimension for i in prompts.layout.items])[prompts.layout.item]
    )
    probs = aligned.answer(own_pairs).probs
    loss, missed = (measure.loss_function(own_pairs.layout, scoring)(probs)[0] for scoring in ("expected", "argmax"))
    return float(loss), 1 - float(missed)


def fitted(name: str, model: Any, objective: Objective, seed: int) -> AlignedModel:
    """Fit a prompt to pairs with one aligner within the budget."""
    items = len(np.unique(objective.prompts.layout.item))
    budget = Budget(PAIR_BUDGET * items, items)
    aligner = find("aligners", name)(aligner_settings(name, ()))
    return aligner.align(model, objective, budget, np.random.default_rng(seed), Checkpoint())


def pair_rows(model: Any, seeds: int) -> Iterator[list[str]]:
    """Compute the rows of table (a): means over the seeds."""
    bare = [judged(AlignedModel(model), dimension) for dimension in DIMENSIONS]
    yield ["none", "-", *(f"{value:.3f}" for pair in bare for value in pair)]
    whole = fit_objective(spec_of(PAIRS), country(PAIR_COUNTRY), "expected", MeasureOptions(), 0, 0)
    for name in ("gd", "de"):
        for trained in DIMENSIONS:
            objective = pairs_of(whole, trained)
            prompts = [fitted(name, model, objective, seed) for seed in range(seeds)]
            found = np.array([[judged(each, dimension) for dimension in DIMENSIONS] for each in prompts])
            yield [name, trained, *(f"{value:.3f}" for value in found.mean(0).ravel())]


def survey_rows(
    model_of: Any, place: dict[str, str], out: Path, display: TerminalDisplay, seeds: int
) -> Iterator[list[str]]:
    """Compute the rows of table (b): means over the seeds, by country; ``place`` names the model and device."""
    for code in COUNTRIES:
        for row, (aligner, fit) in ARMS.items():
            flags = {"aligner": aligner, "tasks": ("vsm13",), "fit": (fit,), "country": code, "budget": SURVEY_BUDGET}
            found = []
            for seed in range(seeds if aligner in ("gd", "de") else 1):
                config = plan(RunRequest.of(**place, **flags, seed=seed))
                scores = execute(config, out, model_of, display).scores
                found.append({(s.metric, s.scoring, s.split): s.value for s in scores})
            cells = []
            for split in ("fit", "heldout"):
                for scoring in ("expected", "argmax"):
                    cells.append(f"{np.mean([each['loss', scoring, split] for each in found]):,.0f}")
            collapsed = sum(each["collapsed", "argmax", "heldout"] for each in found)
            yield [name_of(code), row, *cells, f"{collapsed:.0f} of {len(found)}"]


def _print(headings: list[str], rows: Iterator[list[str]]) -> None:
    for line in markdown_lines(headings, rows, words=range(2)):
        click.echo(line)


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="paper", help="Where runs go.")
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True)
@click.option("--model", default="smollm2", show_default=True, help="Embedded model, folder, or hub id.")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ...")
def main(out: Path, seeds: int, **place: str) -> None:
    """Print both tables.

    Fits of the first, over preference pairs, are repeated each time. The second's runs stay in the folder, and finished
    ones are not repeated.
    """
    display = TerminalDisplay(Console(stderr=True))
    config = plan(RunRequest.of(aligner="naive", tasks="vsm13", **place))
    model_of = cache(lambda: load(config, display))
    tested = [f"{name} {what}" for name in DIMENSIONS for what in ("loss", "accuracy")]
    _print(["method", "trained on", *tested], pair_rows(model_of(), seeds))
    click.echo()
    columns = ["fit", "fit argmax", "heldout", "heldout argmax", "argmax collapsed"]
    _print(["country", "method", *columns], survey_rows(model_of, place, out, display, seeds))


if __name__ == "__main__":
    main()
