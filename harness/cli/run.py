"""The commands ``run`` and ``resume``."""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ...errors import InputError
from ...tasks.countries import name_of
from ...tasks.measure import measure_of
from ...tasks.prompts import layout_of
from ...tasks.score import Score
from ...tasks.spec import TaskSpec
from ..registry import find, spec_of
from ..report import tables as report
from ..report.progress import verbosity
from ..runs.answer_cache import answers_folder
from ..runs.config import DEFAULT_BUDGET
from ..runs.execute import FIGURE, execute
from ..runs.folder import RunResult, read_config, read_usage
from ..runs.plan import plan
from ..scoring.baselines import constant_scores
from ..submissions.manifest import SUBMISSION, AskedTask
from .options import api_options, chat_options, load, measure_options, no_cache, terminal

COMPANIONS = ("naive", "icl", "random")


@click.command()
@click.option("--aligner", required=True, help="Name of an aligner (culteval ls aligners).")
@click.option("--task", "tasks", multiple=True, required=True, help="Task to answer and score; may be repeated.")
@click.option(
    "--fit",
    multiple=True,
    metavar="TASK[:COUNTRY]",
    help="What to fit; may be repeated [default: the first --task and --country].",
)
@click.option("--country", help="Country by name or code [default: that of --fit, else the task's, SA for vsm13].")
@click.option(
    "--model", default="smollm2", show_default=True, help="Embedded model, folder, hub id, or openai-chat:NAME."
)
@api_options
@click.option("--revision", help="Revision of a hub model.")
@click.option(
    "--adapter",
    type=click.Path(file_okay=False),
    help="PEFT adapter, LoRA or prompt tuning, that the model carries from the start.",
)
@chat_options
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option("--threads", type=click.IntRange(1), help="Processor threads [default: all].")
@click.option("--budget", type=click.IntRange(0), default=DEFAULT_BUDGET, show_default=True, help="Survey evaluations.")
@click.option("--readout", default="expected", show_default=True, help="Read-out to optimise: expected or argmax.")
@click.option(
    "--respondents", type=click.IntRange(0, 100_000), default=0, help="Synthetic respondents who answer [default: 0]."
)
@click.option("--limit", type=click.IntRange(1), help="At most so many wordings a split, and respondents; never items.")
@click.option("--calibrate", is_flag=True, help="Also ask content-free items and score read-outs without their prior.")
@click.option("--language", help="Language of tasks that have several: ar, de, es, hi, zh [default: English].")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting of the aligner.")
@click.option("--preset", help="Sizes of an aligner that has several (clca: laptop or paper).")
@click.option("--dialogues", type=click.Path(dir_okay=False), help="Your own dialogues, for clca.")
@click.option(
    "--config", type=click.Path(dir_okay=False), help="YAML file with settings of the aligner, or a shipped name."
)
@measure_options
@click.option(
    "--out", type=click.Path(file_okay=False), default="culteval-runs", show_default=True, help="Where runs go."
)
@click.option("--fresh", is_flag=True, help="Start over even if this run is there already.")
@no_cache
@click.option("--compare/--no-compare", default=True, help="Also run naive, icl and random.", show_default=True)
@verbosity
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def run(**flags: Any) -> None:
    """Align a model to a country, answer tasks, write and score a submission."""
    started = time.perf_counter()
    config = plan(flags)
    others = [config.with_aligner(name) for name in _companions(config.aligner) if flags["compare"]]
    answers = None if flags["no_cache"] or flags["fresh"] else answers_folder()
    with terminal(flags["as_json"], flags["talk"]) as display:
        model_of = cache(lambda: load(config, display))
        results = []
        for each in (*others, config):
            result = execute(each, Path(flags["out"]), model_of, display, fresh=flags["fresh"], cache=answers)
            if result.reused:
                display.say(f"{each.aligner}: finished before in {result.folder}; --fresh starts over")
            results.append(result)
    _show(results, flags["as_json"], started)


def run_defaults() -> dict[str, Any]:
    """The flags of ``culteval run`` that decide a configuration, with their defaults."""
    flags = run.make_context("run", ["--aligner", "naive", "--task", "vsm13"]).params
    rest = ("fresh", "out", "as_json", "compare", "no_cache", "talk")
    return {name: value for name, value in flags.items() if name not in rest}


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(file_okay=False))
@no_cache
@verbosity
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def resume(folder: str, no_cache: bool, talk: str | None, as_json: bool) -> None:
    """Go on with a run that was interrupted; ends with the answers of an undisturbed run."""
    started, path = time.perf_counter(), Path(folder).resolve()
    config = read_config(path)
    if config.folder_name() != path.name:
        raise InputError(
            f"{path}: tasks, configuration or the model's files changed since this run began. Run it anew."
        )
    answers = None if no_cache else answers_folder()
    with terminal(as_json, talk) as display:
        result = execute(config, path.parent, lambda: load(config, display), display, cache=answers)
    if result.reused and not as_json and talk != "quiet":
        click.echo(f"{folder}: finished before.", err=True)
    _show([result], as_json, started)


def _companions(aligner: str) -> list[str]:
    """What to show beside an aligner: everything simpler than it."""
    order = COMPANIONS if find("aligners", aligner).budgeted else COMPANIONS[:2]
    return [name for name in order if name != aligner] if aligner != "naive" else []


def _show(results: list[RunResult], as_json: bool, started: float) -> None:
    main = results[-1]
    constant = _constant_rows(main)
    if as_json:
        click.echo(json.dumps(_as_json(results, constant, time.perf_counter() - started), indent=2, allow_nan=False))
        return
    console = Console()
    country = name_of(main.manifest.country)
    for asked in main.manifest.tasks:
        spec = spec_of(asked.name)
        rows = [report.Row("constant", [s for s in constant if s.task == spec.name], None)]
        for result in results:
            scores = [s for s in result.scores if s.task == spec.name]
            rows.append(report.Row(result.manifest.aligner.name, scores, result.manifest.budget))
        title = f"{spec.name}, {country}: {_compared(spec, asked)}"
        console.print(report.table(rows, title, spec, console.width))
        from ..report.plots import bars, dimensions, pictured

        if spec.metadata.measure == "hofstede":
            mine = [s for s in main.scores if s.task == spec.name]
            if dimensions(mine, pictured(mine), "heldout"):
                console.print(bars(mine, pictured(mine), "heldout", country))
    estimates = _estimates(main)
    if estimates:
        console.print(estimates, style="yellow", highlight=False)
    for result in results:
        if usage := read_usage(result.folder):
            told = f"asked      {result.manifest.aligner.name}: {usage.told()}"
            console.print(told, highlight=False, soft_wrap=True, markup=False)
    for label, path in (
        ("run", main.folder),
        ("submission", main.folder / SUBMISSION),
        ("picture", main.folder / FIGURE),
    ):
        if not path.exists():
            continue
        console.print(f"{label:<11}{path}", highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"next       culteval score {main.folder} --country all", highlight=False, soft_wrap=True, markup=False
    )


def _compared(spec: TaskSpec, asked: AskedTask) -> str:
    """What the table's numbers are."""
    if spec.metadata.measure == "hofstede":
        return f"loss against the published scores ({asked.constants} constants)"
    return spec.metadata.title


def _constant_rows(result: RunResult) -> list[Score]:
    """The baseline ``constant`` on the prompts that were asked."""
    rows, seed = [], result.manifest.seed
    for asked in result.manifest.tasks:
        spec = spec_of(asked.name)
        rows += constant_scores(spec, layout_of(spec, asked.asking(seed)), asked.country, asked.options)
    return rows


def _estimates(result: RunResult) -> str:
    asked = result.manifest.tasks[0]
    measure = measure_of(spec_of(asked.name), asked.country, asked.options)
    return f"note: {measure.caution}" if measure.caution else ""


def _as_json(results: list[RunResult], constant: list[Score], seconds: float) -> dict[str, Any]:
    main = results[-1]
    budget = main.manifest.budget.model_dump()
    scores = [*main.scores, *(row for other in results[:-1] for row in other.scores), *constant]
    asked = {result.manifest.aligner.name: read_usage(result.folder) for result in results}
    usage = {name: used.model_dump() for name, used in asked.items() if used}
    return ({"usage": usage} if usage else {}) | {
        "run": str(main.folder),
        "submission": str(main.folder / SUBMISSION),
        "seconds": round(seconds, 3),
        "reused": main.reused,
        "cached": main.cached,
        "budget": budget,
        "scores": [row.model_dump() for row in scores],
    }
