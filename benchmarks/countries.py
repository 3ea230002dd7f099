"""The README's table: every aligner at one budget for four countries, beside what a random prefix does.

    python -m benchmarks.countries --budget 300 --out study

Resumable: finished runs in ``--out`` are used as they are. The random-prefix control are unselected random prompts
(``random`` with a budget of one candidate, one a seed); their answers do not depend on a country, so they are made
once and scored against each.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import click
from culteval.harness import report
from culteval.harness.config import RunConfig, aligner_settings
from culteval.harness.display import TerminalDisplay
from culteval.harness.registry import find, spec_of
from culteval.harness.run import SUBMISSION, RunResult, execute
from culteval.harness.scoring import score_constant, score_submission
from culteval.harness.submission import read
from culteval.harness.trivial import random_prefix
from culteval.tasks.countries import name_of
from culteval.tasks.measure import MeasureOptions
from rich.console import Console

COUNTRIES = ("SA", "US", "CN", "IN")
ALIGNERS = ("naive", "icl", "random", "de")
CONTROLS = 24


def config(aligner: str, country: str, budget: int, seed: int) -> RunConfig:
    """One cell of the study, everything else at its default."""
    return RunConfig(
        aligner=aligner,
        settings=aligner_settings(aligner, ()).model_dump(mode="json"),
        model="smollm2",
        fit=("vsm13",),
        fit_country=country,
        tasks=("vsm13",),
        country=country,
        options=MeasureOptions(),
        readout="expected",
        budget=budget if find("aligners", aligner).budgeted else 0,
        seed=seed,
    )


def control_row(runs: list[RunResult], country: str) -> report.Row:
    """Mean and standard deviation over the unselected random prompts."""
    control = random_prefix([score_submission(run.folder / SUBMISSION, country)[1] for run in runs])
    collapsed = len(runs) * next(score.value for score in control.scores if _is_heldout_collapse(score))
    name = f"random-prefix control ({len(runs)}, {collapsed:.0f} collapsed)"
    return report.Row(name, control.scores, runs[0].manifest.budget, control.spread)


def _is_heldout_collapse(score: report.Score) -> bool:
    return (score.metric, score.readout, score.split) == ("collapsed", "expected", "heldout")


def country_lines(results: list[RunResult], controls: list[RunResult], country: str) -> list[str]:
    """Heading, rule and rows of one country in Markdown: the constant answer, the control, the aligners."""
    spec = spec_of("vsm13")
    _, answers = read(results[0].folder / SUBMISSION)
    constant = score_constant(spec, answers["vsm13"], country, MeasureOptions())
    rows = [report.Row("constant answer", constant, None), control_row(controls, country)]
    rows += [report.Row(r.manifest.aligner.name, r.scores, r.manifest.budget) for r in results]
    lines = report.markdown(rows, spec).splitlines()
    return ["| country " + lines[0], "|---" + lines[1], *(f"| {name_of(country)} {line}" for line in lines[2:])]


@click.command()
@click.option("--budget", default=300, show_default=True, help="Survey evaluations of each search.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", default="study", show_default=True, help="Folder of the runs.")
def main(budget: int, seed: int, out: str) -> None:
    """Make the table and print it as Markdown."""
    from culteval.harness.models import load_model

    with TerminalDisplay(Console(stderr=True)) as display:
        model_of = cache(lambda: load_model("smollm2", "auto", "cpu", None, None, display.say))

        def run(aligner: str, country: str, evaluations: int, start: int) -> RunResult:
            display.say(f"{aligner} {country} seed {start}")
            return execute(config(aligner, country, evaluations, start), Path(out), model_of, display)

        results = {code: [run(name, code, budget, seed) for name in ALIGNERS] for code in COUNTRIES}
        controls = [run("random", COUNTRIES[0], 2, start) for start in range(CONTROLS)]
    for number, (country, rows) in enumerate(results.items()):
        click.echo("\n".join(country_lines(rows, controls, country)[2 if number else 0 :]))
    model = results[COUNTRIES[0]][0].manifest.model
    click.echo(f"\n{model.name}, revision {model.revision}, {model.dtype}, {model.threads} threads, seed {seed}.")


if __name__ == "__main__":
    main()
