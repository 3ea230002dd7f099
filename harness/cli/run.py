"""The commands ``run`` and ``resume``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ...errors import InputError
from ...tasks.countries import name_of
from ...tasks.measure import measure_of
from ...tasks.score import Score
from ...tasks.spec import TaskSpec
from ..alignment.aligner import find_aligner
from ..registry import concrete, family, spec_of
from ..report import tables as report
from ..report.progress import verbosity
from ..runs.answer_cache import answers_folder
from ..runs.config import DEFAULT_BUDGET, read_assignments
from ..runs.execute import FIGURE, SUBMISSION, execute
from ..runs.folder import RunResult, read_config, read_usage
from ..runs.plan import RunRequest, plan
from ..scoring.score import options_of, score_constant
from ..submissions.manifest import AskedTask
from ..submissions.reader import read_submission
from .options import as_json, chat_of, endpoint_of, endpoint_options, load, measure_options, no_cache, terminal

COMPANIONS = ("naive", "icl", "random")


@click.command()
@click.option("--aligner", required=True, help="Name of an aligner (culteval ls aligners).")
@click.option("--task", "tasks", multiple=True, required=True, help="Task to answer and score; may be repeated.")
@click.option("--country", help="Country by name or code [default: that of --fit, else the task's, SA for vsm13].")
@click.option(
    "--model", default="smollm2", show_default=True, help="Embedded model, folder, hub id, or openai-chat:NAME."
)
@click.option("--budget", type=click.IntRange(0), default=DEFAULT_BUDGET, show_default=True, help="Survey evaluations.")
@click.option("--revision", help="Revision of a hub model.")
@click.option(
    "--adapter",
    type=click.Path(file_okay=False),
    help="PEFT adapter, LoRA or prompt tuning, that the model carries from the start.",
)
@click.option(
    "--chat",
    multiple=True,
    metavar="KEY=VALUE",
    help="system=TEXT, template=FILE or none, thinking_tokens=N, or a variable of the chat template.",
)
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option("--threads", type=click.IntRange(1), help="Processor threads [default: all].")
@endpoint_options
@click.option(
    "--fit",
    multiple=True,
    metavar="TASK[:COUNTRY]",
    help="What to fit; may be repeated [default: the first --task and --country].",
)
@click.option("--scoring", default="expected", show_default=True, help="Answer scoring to fit: expected or argmax.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting of the aligner.")
@click.option("--config", metavar="FILE|NAME", help="YAML file with settings of the aligner, or one that it ships.")
@click.option("--personas", type=click.IntRange(0, 100_000), default=0, help="Personas who answer [default: 0].")
@click.option("--limit", type=click.IntRange(1), help="Most paraphrases of a split, and personas; never items.")
@click.option("--calibrate", is_flag=True, help="Also ask content-free items, and score calibrated probabilities.")
@measure_options
@click.option(
    "--out", type=click.Path(file_okay=False), default="culteval-runs", show_default=True, help="Folder of runs."
)
@click.option("--fresh", is_flag=True, help="Start over even if this run is there already.")
@no_cache
@click.option("--compare/--no-compare", default=True, help="Also run naive, icl and random.", show_default=True)
@verbosity
@as_json
def run(**flags: Any) -> None:
    """Align a model to a country, answer tasks, write and score a submission."""
    started = time.perf_counter()
    request = request_of(flags)
    _announce((*request.tasks, *(text.partition(":")[0] for text in request.fit)))
    config = plan(request)
    others = [config.with_aligner(name) for name in _companions(config.aligner) if flags["compare"]]
    answers = None if flags["no_cache"] or flags["fresh"] else answers_folder()
    with terminal(flags["as_json"], flags["talk"]) as display:
        model_of = cache(lambda: load(config, display.say))
        results = []
        for each in (*others, config):
            result = execute(each, Path(flags["out"]), model_of, display, fresh=flags["fresh"], cache=answers)
            if result.reused:
                display.say(f"{each.aligner}: finished before in {result.folder}; --fresh starts over")
            results.append(result)
    _show(results, flags["as_json"], started)


def request_of(flags: Mapping[str, Any]) -> RunRequest:
    """The request that the parameters of ``culteval run`` make.

    Raises:
        UsageError: a value that does not fit. InputError: a file that cannot be read.
    """
    given = {name: value for name, value in flags.items() if name in RunRequest.model_fields}
    given |= {"endpoint": endpoint_of(flags["base_url"], flags["endpoint"]), "chat": chat_of(flags["chat"])}
    return RunRequest.of(**given, settings=read_assignments("--set", flags["assignments"]))


def _announce(names: Iterable[str]) -> None:
    """Say once which task the name of a family stands for."""
    for name in dict.fromkeys(names):
        if len(family(name)) > 1:
            task = concrete(name)
            origin = "ours" if task == family(name)[-1] else "your import"
            click.echo(f"{name}: {task}, {origin}.", err=True)


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(file_okay=False))
@no_cache
@verbosity
@as_json
def resume(folder: str, no_cache: bool, talk: str | None, as_json: bool) -> None:
    """Resume an interrupted run; it ends with the answers of an undisturbed one."""
    started, path = time.perf_counter(), Path(folder).resolve()
    config = read_config(path)
    if config.folder_name() != path.name:
        raise InputError(
            f"{path}: tasks, configuration or the model's files changed since this run began. Run it anew."
        )
    answers = None if no_cache else answers_folder()
    with terminal(as_json, talk) as display:
        result = execute(config, path.parent, lambda: load(config, display.say), display, cache=answers)
    if result.reused and not as_json and talk != "quiet":
        click.echo(f"{folder}: finished before.", err=True)
    _show([result], as_json, started)


def _companions(aligner: str) -> list[str]:
    """What to show beside an aligner: everything simpler than it."""
    order = COMPANIONS if find_aligner(aligner).budgeted else COMPANIONS[:2]
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
    _, answers = read_submission(result.folder / SUBMISSION)
    rows = []
    for asked in result.manifest.tasks:
        options = options_of(asked)
        rows += score_constant(spec_of(asked.name), answers[asked.name], asked.country, options)
    return rows


def _estimates(result: RunResult) -> str:
    asked = result.manifest.tasks[0]
    measure = measure_of(
        spec_of(asked.name),
        asked.country,
        options_of(asked),
    )
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
