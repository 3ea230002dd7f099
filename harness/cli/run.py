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
from ...tasks.answers import IN_TEXT
from ...tasks.countries import name_of
from ...tasks.measure import measure_of
from ...tasks.prompts import layout_of
from ...tasks.score import Score
from ...tasks.spec import TaskSpec
from ..alignment.aligner import find_aligner
from ..providers.response_log import Usage
from ..providers.settings import EndpointSettings, is_remote
from ..registry import concrete, family, spec_of
from ..report import tables as report
from ..report.progress import verbosity
from ..runs.answer_cache import answers_folder
from ..runs.config import DEFAULT_BUDGET, DEFAULT_MODEL, RunConfig, read_assignments
from ..runs.execute import FIGURE, execute
from ..runs.folder import Run, read_config, read_usage
from ..runs.plan import RunRequest, plan
from ..scoring.baselines import constant_scores
from ..submissions.manifest import SUBMISSION, AskedTask
from ..util.command_help import GroupedCommand, option
from .options import as_json, chat_of, endpoint_of, endpoint_options, load, no_cache, terminal

COMPANIONS = ("naive", "icl", "random")


_FIRST, _MODEL, _ALIGN, _ASK, _OUT = "First run", "Model", "Alignment", "Questions and scoring", "Output"

_MODELS = f"Model [{DEFAULT_MODEL}], folder, hub id, FILE.gguf."
_BUDGET = f"Survey evaluations of a search [default: {DEFAULT_BUDGET}]."
_CHAT = "system, template, thinking_tokens, template variables."
_RUNS = "Folder of runs [default: culteval-runs]."


@click.command(cls=GroupedCommand)
@option("--aligner", required=True, metavar="NAME", group=_FIRST, help="Aligner (culteval ls aligners).")
@option("--task", "tasks", multiple=True, required=True, metavar="NAME", group=_FIRST, help="Task; repeatable.")
@option("--country", metavar="NAME", group=_FIRST, help="Name or code [default: that of --fit, or of the task].")
@option("--model", default=DEFAULT_MODEL, metavar="NAME", group=_FIRST, help=_MODELS)
@option("--budget", type=click.IntRange(0), default=DEFAULT_BUDGET, metavar="N", group=_FIRST, help=_BUDGET)
@option("--revision", metavar="NAME", group=_MODEL, help="Revision of a hub model.")
@option("--adapter", type=click.Path(file_okay=False), metavar="FOLDER", group=_MODEL, help="LoRA or prompt tuning.")
@option("--chat", multiple=True, metavar="KEY=VALUE", group=_MODEL, help=_CHAT)
@option("--dtype", default="auto", metavar="NAME", group=_MODEL, help="auto, float32, bfloat16, float16 or int8.")
@option("--device", default="cpu", metavar="NAME", group=_MODEL, help="cpu, cuda, cuda:1 ... [default: cpu].")
@option("--threads", type=click.IntRange(1), metavar="N", group=_MODEL, help="Processor threads [default: all].")
@endpoint_options
@option(
    "--fit", multiple=True, metavar="TASK[:COUNTRY]", group=_ALIGN, help="Task to fit [default: --task]; repeatable."
)
@option("--scoring", default="expected", metavar="NAME", group=_ALIGN, help="Answers to fit: expected, argmax or text.")
@option(
    "--objective",
    default="task",
    metavar="NAME",
    group=_ALIGN,
    help="task, distribution or worst_paraphrase.",
)
@option("--norm", metavar="NAME", group=_ALIGN, help="Norm of the fitted loss: sse, l2 or l1.")
@option("--set", "assignments", multiple=True, metavar="KEY=VALUE", group=_ALIGN, help="A setting of the aligner.")
@option("--config", metavar="FILE|NAME", group=_ALIGN, help="Settings: a YAML file, or a shipped name.")
@option("--seed", type=click.IntRange(0), default=0, metavar="N", group=_ALIGN, help="Seed of all randomness.")
@option("--personas", type=click.IntRange(0, 100_000), default=0, metavar="N", group=_ASK, help="Personas who answer.")
@option("--limit", type=click.IntRange(1), metavar="N", group=_ASK, help="Most paraphrases and personas; never items.")
@option("--calibrate", is_flag=True, group=_ASK, help="Ask content-free items too, and calibrate by them.")
@option("--edition", metavar="NAME", group=_ASK, help="Edition of the reference [default: the task's].")
@option("--constants", metavar="NAME", group=_ASK, help="Constants C of the indices: world or zero.")
@option("--out", type=click.Path(file_okay=False), default="culteval-runs", metavar="FOLDER", group=_OUT, help=_RUNS)
@option("--compare/--no-compare", default=True, group=_OUT, help="Also run naive, icl and random [default].")
@option("--fresh", is_flag=True, group=_OUT, help="Start over even if this run is there already.")
@no_cache
@verbosity
@as_json
def run(**flags: Any) -> None:
    """Align a model to a country, answer tasks, write and score a submission."""
    started = time.perf_counter()
    request = request_of(flags)
    _announce((*request.tasks, *(text.partition(":")[0] for text in request.fit)))
    config = plan(request)
    others = [config.with_aligner(name) for name in _companions(config) if flags["compare"]]
    answers = None if flags["no_cache"] or flags["fresh"] else answers_folder()
    with terminal(flags["as_json"], flags["talk"]) as display:
        model_of = cache(lambda: load(config, display.say))
        results = []
        for one in (*others, config):
            result = execute(one, Path(flags["out"]), model_of, display, fresh=flags["fresh"], cache=answers)
            if result.reused:
                display.say(f"{one.aligner}: finished before in {result.folder}; --fresh starts over")
            if others:  # a row as soon as there is one; the table follows
                for spec in (spec_of(asked.name) for asked in result.manifest.tasks):
                    display.say(report.line(_row(result, spec), spec))
            results.append(result)
    _show(results, flags["as_json"], started, config.endpoint)


def request_of(flags: Mapping[str, Any]) -> RunRequest:
    """Make the request of the parameters of ``culteval run``.

    Raises:
        UsageError: an invalid value. InputError: a file that cannot be read.
    """
    given = {name: value for name, value in flags.items() if name in RunRequest.model_fields}
    given |= {"endpoint": endpoint_of(flags["base_url"], flags["endpoint"]), "chat": chat_of(flags["chat"])}
    return RunRequest.of(**given, settings=read_assignments("--set", flags["assignments"]))


def _announce(names: Iterable[str]) -> None:
    """Print once which task the name of a family stands for."""
    for name in dict.fromkeys(names):
        if len(family(name)) > 1:
            task = concrete(name)
            origin = "built in" if task == family(name)[-1] else "your import"
            click.echo(f"{name}: {task}, {origin}.", err=True)


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(file_okay=False))
@no_cache
@verbosity
@as_json
def resume(folder: str, no_cache: bool, talk: str | None, as_json: bool) -> None:
    """Resume an interrupted run; its answers are those of an uninterrupted one."""
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
    _show([result], as_json, started, config.endpoint)


def _companions(config: RunConfig) -> list[str]:
    """Return the simpler aligners to run and show beside an aligner."""
    if config.aligner == "naive":
        return []
    in_text = is_remote(config.model) or config.scoring in IN_TEXT
    order = COMPANIONS if find_aligner(config.aligner).budgeted and not in_text else COMPANIONS[:2]
    return [name for name in order if name != config.aligner]


def _show(results: list[Run], as_json: bool, started: float, endpoint: EndpointSettings | None) -> None:
    main = results[-1]
    constant = _constant_rows(main)
    found = {result.manifest.aligner.name: read_usage(result.folder, endpoint) for result in results}
    usage = {name: used for name, used in found.items() if used}
    if as_json:
        seconds = time.perf_counter() - started
        click.echo(json.dumps(_as_json(results, constant, seconds, usage), indent=2, allow_nan=False))
        return
    console = Console()
    country = name_of(main.manifest.country)
    for asked in main.manifest.tasks:
        spec = spec_of(asked.name)
        rows = [report.Row("constant", [s for s in constant if s.task == spec.name], None)]
        rows += [_row(result, spec) for result in results]
        title = f"{spec.name}, {country}: {_compared(spec, asked)}"
        console.print(report.table(rows, title, spec, console.width))
        from ..report.plots import bars, dimensions, pictured

        if spec.metadata.measure == "hofstede":
            scores = [s for s in main.scores if s.task == spec.name]
            if dimensions(scores, pictured(scores), "heldout"):
                console.print(bars(scores, pictured(scores), "heldout", country))
    estimates = _estimates(main)
    if estimates:
        console.print(estimates, style="yellow", highlight=False)
    for name, used in usage.items():
        console.print(f"asked      {name}: {used.summary()}", highlight=False, soft_wrap=True, markup=False)
    for label, path in (
        ("run", main.folder),
        ("submission", main.folder / SUBMISSION),
        ("figure", main.folder / FIGURE),
    ):
        if not path.exists():
            continue
        console.print(f"{label:<11}{path}", highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"next       culteval score {main.folder} --country all", highlight=False, soft_wrap=True, markup=False
    )


def _row(result: Run, spec: TaskSpec) -> report.Row:
    scores = [score for score in result.scores if score.task == spec.name]
    return report.Row(result.manifest.aligner.name, scores, result.manifest.budget)


def _compared(spec: TaskSpec, asked: AskedTask) -> str:
    """Describe the numbers of the table."""
    if spec.metadata.measure == "hofstede":
        return f"loss against the published scores ({asked.constants} constants)"
    return spec.metadata.title


def _constant_rows(result: Run) -> list[Score]:
    """Compute the scores of the baseline ``constant`` on the prompts of a run."""
    rows, seed = [], result.manifest.seed
    for asked in result.manifest.tasks:
        spec = spec_of(asked.name)
        rows += constant_scores(spec, layout_of(spec, asked.protocol(seed)), asked.country, asked.options)
    return rows


def _estimates(result: Run) -> str:
    asked = result.manifest.tasks[0]
    measure = measure_of(spec_of(asked.name), asked.country, asked.options)
    return f"note: {measure.caution}" if measure.caution else ""


def _as_json(results: list[Run], constant: list[Score], seconds: float, usage: Mapping[str, Usage]) -> dict[str, Any]:
    main = results[-1]
    budget = main.manifest.budget.model_dump()
    scores = [*main.scores, *(row for other in results[:-1] for row in other.scores), *constant]
    by_aligner = {name: used.model_dump() for name, used in usage.items()}
    return ({"usage": by_aligner} if usage else {}) | {
        "run": str(main.folder),
        "submission": str(main.folder / SUBMISSION),
        "seconds": round(seconds, 3),
        "reused": main.reused,
        "cached": main.cached,
        "budget": budget,
        "scores": [row.model_dump() for row in scores],
    }
