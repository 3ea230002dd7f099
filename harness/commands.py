"""The commands ``run``, ``resume`` and ``score``."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ..errors import UsageError
from ..tasks.countries import country as resolve
from ..tasks.countries import name_of
from ..tasks.measure import MeasureOptions, countries_of, measure_of
from ..tasks.prompts import Asking
from ..tasks.prompts import asked as count
from ..tasks.score import Score
from ..tasks.spec import TaskSpec
from . import report, submission
from .config import DEFAULT_BUDGET, RunConfig, aligner_settings
from .display import TerminalDisplay
from .registry import find, spec_of, table
from .run import FIGURE, SUBMISSION, RunResult, execute, read_config
from .scoring import options_of, score_constant, score_submission

DTYPE_NAMES = ("auto", "float32", "bfloat16", "float16")
COMPANIONS = ("naive", "icl", "random")

_MEASURE_OPTIONS = (
    click.option("--edition", help="Edition of the reference scores [default: the task's own]."),
    click.option("--constants", help="Constants C of the indices: world or zero [default: world]."),
    click.option("--norm", help="Norm of the fitted loss: sse, l2 or l1 [default: sse]."),
)


def _measure_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_MEASURE_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.option("--aligner", required=True, help="Name of an aligner (culteval ls aligners).")
@click.option("--task", "tasks", multiple=True, required=True, help="Task to answer and score; may be repeated.")
@click.option("--fit", metavar="TASK[:COUNTRY]", help="What to fit [default: the first --task and --country].")
@click.option("--country", help="Country by name or code [default: the task's, SA for vsm13].")
@click.option("--model", default="smollm2", show_default=True, help="Embedded model, folder, or hub id.")
@click.option("--revision", help="Revision of a hub model.")
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
@click.option(
    "--config", type=click.Path(dir_okay=False), help="YAML file with settings of the aligner, or a shipped name."
)
@_measure_options
@click.option(
    "--out", type=click.Path(file_okay=False), default="culteval-runs", show_default=True, help="Where runs go."
)
@click.option("--fresh", is_flag=True, help="Start over even if this run is there already.")
@click.option("--compare/--no-compare", default=True, help="Also run naive, icl and random.", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def run(**flags: Any) -> None:
    """Align a model to a country, answer tasks, write and score a submission."""
    started = time.perf_counter()
    config = _config(flags)
    others = [config.with_aligner(name) for name in _companions(config.aligner) if flags["compare"]]
    with _display(flags["as_json"]) as display:
        model_of = cache(lambda: _load(config, display))
        results = []
        for each in (*others, config):
            result = execute(each, Path(flags["out"]), model_of, display, fresh=flags["fresh"])
            if result.reused:
                display.say(f"{each.aligner}: finished before in {result.folder}; --fresh starts over")
            results.append(result)
    _show(results, flags["as_json"], started)


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def resume(folder: str, as_json: bool) -> None:
    """Go on with a run that was interrupted; ends with the answers of an undisturbed run."""
    started, path = time.perf_counter(), Path(folder).resolve()
    config = read_config(path)
    if config.folder_name() != path.name:
        raise UsageError(f"{path}: the tasks or the configuration changed since this run began. Run it anew.")
    with _display(as_json) as display:
        result = execute(config, path.parent, lambda: _load(config, display), display)
    if result.reused and not as_json:
        click.echo(f"{folder}: finished before.", err=True)
    _show([result], as_json, started)


@click.command()
@click.argument("path", metavar="SUBMISSION", type=click.Path())
@click.option("--country", help="Another country by name or code, or all.")
@_measure_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def score(path: str, country: str | None, as_json: bool, **options: str | None) -> None:
    """Score a submission folder again: no model is needed."""
    given = {name: value for name, value in options.items() if value is not None}
    folder = Path(path)
    folder = folder / SUBMISSION if (folder / SUBMISSION).is_dir() else folder
    manifest, scores = score_submission(folder, country, given)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "submission": str(folder),
                    "budget": manifest.budget.model_dump(),
                    "scores": [row.model_dump() for row in scores],
                },
                indent=2,
            )
        )
        return
    console = Console()
    for asked in manifest.tasks:
        spec = spec_of(asked.name)
        mine = [row for row in scores if row.task == spec.name]
        codes = dict.fromkeys(row.country for row in mine)
        rows = [report.Row(name_of(code), [s for s in mine if s.country == code], None) for code in codes]
        title = f"{spec.name}: {manifest.aligner.name}, aligned to {name_of(manifest.country)}, scored against"
        console.print(report.table(report.ranked(rows, spec), title, spec, first="country"))


def _companions(aligner: str) -> list[str]:
    """What to show beside an aligner: everything simpler than it."""
    order = COMPANIONS if find("aligners", aligner).budgeted else COMPANIONS[:2]
    return [name for name in order if name != aligner] if aligner != "naive" else []


def _config(flags: dict[str, Any]) -> RunConfig:
    """Everything that can be checked before a model is loaded is checked here."""
    tasks = [_in_language(name, flags["language"]) for name in flags["tasks"]]
    specs = [spec_of(name) for name in tasks]
    fit_name, _, fit_country = (flags["fit"] or tasks[0]).partition(":")
    fit_spec = spec_of(fit_name)
    options = MeasureOptions(**{k: flags[k] for k in ("edition", "constants", "norm") if flags[k] is not None})
    known = countries_of(fit_spec, options.edition)
    wanted = specs[0].metadata.default_country if flags["country"] is None else flags["country"]
    country = resolve(wanted, known).code
    fit_code = resolve(fit_country, known).code if fit_country else country
    if flags["dtype"] not in DTYPE_NAMES:
        raise UsageError(f"--dtype {flags['dtype']!r}: not one of {', '.join(DTYPE_NAMES)}.")
    if flags["readout"] not in ("expected", "argmax"):
        raise UsageError(f"--readout {flags['readout']!r}: a fit optimises expected or argmax.")
    measure_of(fit_spec, fit_code, options)
    for spec in specs:
        measure_of(spec, country, options)
    asking = Asking(flags["respondents"], flags["seed"], flags["limit"], flags["calibrate"])
    asked = sum(count(spec, asking) for spec in specs)
    if asked > submission.MOST_ANSWERS:
        raise UsageError(f"--respondents: {asked} answers; a submission holds {submission.MOST_ANSWERS} at most.")
    base = _settings_file(flags["config"], flags["aligner"]) if flags["config"] else None
    settings = aligner_settings(flags["aligner"], flags["assignments"], base)
    budgeted = find("aligners", flags["aligner"]).budgeted
    if budgeted:
        _require_a_candidate(fit_spec, flags["budget"], flags["respondents"])
    copied = ("aligner", "model", "revision", "dtype", "device", "threads", "readout", "respondents", "seed")
    copied += ("limit", "calibrate")
    return RunConfig(
        **{name: flags[name] for name in copied},
        settings=settings.model_dump(mode="json"),
        fit=fit_name,
        fit_country=fit_code,
        tasks=tuple(dict.fromkeys(tasks)),
        country=country,
        options=options,
        budget=flags["budget"] if budgeted else 0,
    )


def _in_language(task: str, language: str | None) -> str:
    """The sibling of a task in a language, which is named after it."""
    if language in (None, "en"):
        return task
    known = sorted(name.removeprefix(f"{task}_") for name in table("tasks") if name.startswith(f"{task}_"))
    known = [name for name in known if len(name) == 2]
    if language not in known:
        there = f"it is there in {', '.join(['en', *known])}" if known else "it is there in English only"
        raise UsageError(f"--language {language!r}: {task} has no such wording; {there}.")
    return f"{task}_{language}"


def _require_a_candidate(spec: TaskSpec, budget: int, respondents: int) -> None:
    part = spec.metadata.splits.fit
    least = len(part.wordings) * len(part.orders) * max(1, respondents)
    if budget < least:
        raise UsageError(
            f"--budget {budget}: one candidate costs {least} survey evaluations here. Give at least {least}."
        )


def _settings_file(name: str, aligner: str) -> dict[str, Any]:
    from ..tasks.spec import read_yaml

    shipped = Path(__file__).parent.parent / "optimizers" / "configs" / f"{name}.yaml"
    path = shipped if shipped.is_file() else Path(name)
    if not path.is_file():
        raise UsageError(f"--config {name!r}: neither a file nor a shipped configuration for {aligner}.")
    return read_yaml(path)


def _display(as_json: bool) -> TerminalDisplay:
    return TerminalDisplay(Console(stderr=True, quiet=as_json and not os.isatty(2)))


def _load(config: RunConfig, display: TerminalDisplay) -> Any:
    # Nothing of the embedded model's or a local folder's loading needs a hub; silence what libraries print.
    display.say(f"loading {config.model}")
    from .models import load_model

    with contextlib.redirect_stdout(io.StringIO()):
        return load_model(config.model, config.dtype, config.device, config.revision, config.threads, display.say)


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
        console.print(report.table(rows, f"{spec.name}, {country}: {_compared(spec, asked)}", spec))
        from .figure import bars

        if spec.metadata.measure == "hofstede":
            console.print(bars([s for s in main.scores if s.task == spec.name], "expected", "heldout", country))
    estimates = _estimates(main)
    if estimates:
        console.print(estimates, style="yellow", highlight=False)
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


def _compared(spec: TaskSpec, asked: submission.AskedTask) -> str:
    """What the table's numbers are."""
    if spec.metadata.measure == "hofstede":
        return f"loss against the published scores ({asked.constants} constants)"
    return spec.metadata.title


def _constant_rows(result: RunResult) -> list[Score]:
    _, answers = submission.read(result.folder / SUBMISSION)
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
    return {
        "run": str(main.folder),
        "submission": str(main.folder / SUBMISSION),
        "seconds": round(seconds, 3),
        "reused": main.reused,
        "budget": budget,
        "scores": [row.model_dump() for row in scores],
    }
