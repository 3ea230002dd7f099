"""The command ``clca``: its stages one by one, the published evaluation, and what each part is worth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from ...errors import RunError, UsageError
from ...harness.adapters.peft_files import carried_hash, read_lora_config
from ...harness.cli.options import endpoint_of, endpoint_options, terminal
from ...harness.providers.response_log import Usage, usage_of
from ...harness.runs.config import RunConfig, read_assignments
from ...harness.runs.execute import USAGE
from ...harness.runs.folder import same_model
from ...harness.runs.load_model import load, load_other
from ...harness.runs.plan import RunRequest, plan
from ...harness.util.atomic_io import locked, write_json, write_text
from ...tasks.countries import country as resolve
from . import tables
from .aligner import culture_of
from .settings import PRESETS, CLCASettings
from .stages import STAGES, Course
from .teacher import writer_of
from .train import LORA
from .writer import Writer

_TOLD = {
    "scenarios": "Set the seed scenarios in a country.",
    "simulate": "Have two agents play every scenario.",
    "filter": "Keep what checks and judges let pass.",
    "intents": "Ask for the intent behind every turn.",
    "train": "Learn from what was kept: a LoRA adapter.",
}
_FLAGS = (
    click.option("--preset", type=click.Choice(list(PRESETS)), default="laptop", show_default=True, help="Sizes."),
    click.option("--dialogues", type=click.Path(dir_okay=False), help="Your own dialogues in place of simulated ones."),
    click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting of the aligner clca."),
    click.option("--model", default="smollm2", show_default=True, help="Embedded model, folder, or hub id."),
    click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16."),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ..."),
    click.option("--threads", type=click.IntRange(1), help="Processor threads [default: all]."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
    click.option("--out", type=click.Path(file_okay=False), default="culteval-clca", show_default=True),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."),
)
_MODEL = ("model", "dtype", "device", "threads", "seed", "country")  # of the arguments of a run
_ONE = click.option("--country", default="US", show_default=True, help="Country by name or code.")
_PERSONAS = click.option(
    "--personas", type=click.IntRange(2, 100_000), help="Who answers [default: 50, with --preset paper 1000]."
)


def _flags(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_FLAGS):
        command = option(command)
    return endpoint_options(command)


@click.group()
def clca() -> None:
    """Learn a culture from simulated social interactions, stage by stage; each does those before it where missing.

    \b
    All at once, with answers and scores:
      culteval run --aligner clca --task wvs --country US
    The published evaluation, before and after:
      culteval clca evaluate --country US
    """


def _planned(flags: dict[str, Any]) -> RunConfig:
    given = {name: flags[name] for name in _MODEL if flags.get(name) is not None}
    chosen = {name: flags[name] for name in ("preset", "dialogues") if flags.get(name) is not None}
    settings = chosen | read_assignments("--set", flags["assignments"])
    endpoint = endpoint_of(flags["base_url"], flags["endpoint"])
    request = given | {"aligner": "clca", "tasks": ("vsm13",), "settings": settings, "endpoint": endpoint}
    return plan(RunRequest.of(**request))


class _Desk:
    """What the commands work with: the configuration, the model once it is wanted, and courses."""

    def __init__(self, config: RunConfig, folder: Path, display: Any) -> None:
        self.config, self.folder, self.display = config, folder, display
        self.settings = CLCASettings.model_validate(config.settings)
        self.model_of, self.teacher_of = cache(self._load), cache(self._load_teacher)

    def _load_teacher(self) -> Any:
        teacher = self.settings.teacher
        if not teacher:
            return self.model_of()
        return load_other(self.config, teacher, self.display.say)

    def _load(self) -> Any:
        model = load(self.config, self.display.say)
        same_model(self.folder / "model.json", model)
        return model

    def tell(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage."""
        self.display.advance(f"clca {stage}", done, total, None)

    def usage(self) -> Usage | None:
        """What an API was asked for here so far, which is noted beside it; None where none was."""
        found = usage_of(self.folder, self.config.endpoint)
        if found:
            write_json(self.folder / USAGE, found.model_dump(mode="json"))
        else:
            (self.folder / USAGE).unlink(missing_ok=True)
        return found

    def course(self, country: str, folder: Path) -> Course:
        """A country's course in a folder."""
        code = self.settings.country(country)
        seed = int(np.random.default_rng(self.config.seed).integers(1 << 31))
        culture = culture_of(code)

        def writer(replies: Path) -> Writer:
            return writer_of(self.teacher_of(), replies, self.tell)

        return Course(folder, code, culture, self.settings, seed, self.model_of, writer, self.tell)


@contextmanager
def _desk(flags: dict[str, Any], as_json: bool) -> Iterator[_Desk]:
    """The desk of one country, in a folder named after all that decides what comes of it."""
    config = _planned(flags)
    folder = Path(flags["out"]) / f"{config.country}-{config.digest}"
    with locked(folder), terminal(as_json) as display:
        write_json(folder / "config.json", config.model_dump(mode="json"))
        yield _Desk(config, folder, display)


def _stage(name: str) -> click.Command:
    @click.command(name, help=_TOLD[name])
    @_ONE
    @_flags
    @click.option("--fresh", is_flag=True, help="Do this stage and those after it anew.")
    def command(fresh: bool, as_json: bool, **flags: Any) -> None:
        with _desk(flags, as_json) as desk:
            course = desk.course(desk.config.country, desk.folder)
            if fresh:
                course.clear(name)
            course.run(name)
            usage = desk.usage()
        report = course.report()
        if as_json:
            click.echo(json.dumps(report | _as_json(usage), indent=2))
            return
        console = Console()
        console.print(tables.report(report, name))
        _show(console, usage)

    return command


def _as_json(usage: Usage | None) -> dict[str, Any]:
    """As ``culteval run`` has it: by aligner, and nothing where no API was asked."""
    return {"usage": {"clca": usage.model_dump()}} if usage else {}


def _show(console: Console, usage: Usage | None) -> None:
    if usage:
        console.print(f"asked      clca: {usage.told()}", highlight=False, soft_wrap=True, markup=False)


@clca.command()
@_ONE
@_flags
@_PERSONAS
@click.option("--adapter", "given", type=click.Path(file_okay=False), help="Evaluate this one; nothing is simulated.")
def evaluate(as_json: bool, personas: int | None, given: str | None, **flags: Any) -> None:
    """Ask WVS of personas before and after, as published: greedy numbers, KL, Jensen-Shannon, accuracy.

    Does the stages that are missing. The same personas answer before and after, so that differences are tested in
    pairs; the small task of general ability shows what the training cost.
    """
    from .evaluate import PERSONAS, Country, ask, change

    country = Country(resolve(flags["country"]).code)  # what cannot be done leaves nothing behind
    if given:
        read_lora_config(Path(given))
    with _desk(flags, as_json) as desk:
        seed = desk.config.seed
        adapter = Path(given) if given else desk.folder / LORA
        if not given:
            desk.course(country.code, desk.folder).run()
        people, replies = personas or PERSONAS[desk.settings.preset], []
        after = desk.folder / f"evaluation-{carried_hash(adapter)[:10]}-{people}"
        for name, folder, model_of in (
            ("before", desk.folder / f"naive-{people}", desk.model_of),
            ("after", after, lambda: desk.model_of().adapted(adapter, carried=True)),
        ):
            replies.append(ask(model_of, people, seed, folder, lambda *at, name=name: desk.tell(f"asking {name}", *at)))
        rows = change(country, replies[0], replies[1], np.random.default_rng(seed))
        write_json(after / "evaluation.json", rows)
        write_text(after / "evaluation.md", tables.markdown(*tables.changes(rows)))
        usage = desk.usage()
    if as_json:
        told = {"folder": str(after), "country": country.code, "personas": people, "metrics": rows}
        click.echo(json.dumps(told | _as_json(usage)))
        return
    console = Console()
    console.print(tables.rich(*tables.changes(rows), f"wvs_text, {country.code}: {people} personas, before and after"))
    console.print(tables.LEGEND, style="dim", highlight=False)
    _show(console, usage)
    console.print(f"table      {after / 'evaluation.md'}", highlight=False, soft_wrap=True, markup=False)


@clca.command()
@click.option("--country", "countries", multiple=True, required=True, help="Country by name or code; may be repeated.")
@_flags
@_PERSONAS
def ablate(as_json: bool, personas: int | None, countries: tuple[str, ...], **flags: Any) -> None:
    """Compare CLCA with itself without a part, and with controls; the same command goes on where it was stopped.

    The table is written as soon as there is a control, and anew after every arm. Every country is simulated
    once. Two countries or more give the arm "wrong country".
    """
    from .ablate import ARMS, WHOLE, Study, missing, verdicts
    from .evaluate import PERSONAS, Country

    codes = tuple(dict.fromkeys(resolve(name).code for name in countries))
    configs = [_planned(flags | {"country": code}) for code in codes]
    for code in codes:
        Country(code)
    settings = CLCASettings.model_validate(configs[0].settings)
    for arm in ARMS:
        if arm.name != WHOLE and settings == settings.model_copy(update=arm.changes):
            raise UsageError(f"--set {next(iter(arm.changes))}: then the arm {arm.name!r} is the whole. Leave it out.")
    folder = Path(flags["out"])
    people = personas or PERSONAS[settings.preset]
    with locked(folder), terminal(as_json) as display:
        _same_study(folder / "config.json", {"personas": people} | configs[0].model_dump(mode="json"))
        desk = _Desk(configs[0], folder, display)
        study = Study(folder, codes, desk.course, desk.model_of, people, configs[0].seed, desk.tell)
        own = desk.settings.own()
        for rows in study.run():
            said = [tables.settings(own, desk.settings.preset)]
            said += [line for code in codes for line in verdicts(rows, code)]
            if waiting := missing(rows):
                said.append(f"Not done yet: {', '.join(waiting)}.")
            write_json(folder / "ablation.json", {"settings": own, "personas": people, "rows": rows})
            text = "\n".join([tables.markdown(*tables.arms(rows)), *(f"- {line}" for line in said)])
            write_text(folder / "ablation.md", f"{text}\n")
        usage = desk.usage()
    if as_json:
        told = {"folder": str(folder), "personas": people, "verdicts": said, "rows": rows}
        click.echo(json.dumps(told | _as_json(usage)))
        return
    console = Console()
    console.print(tables.rich(*tables.arms(rows, tables.NARROW), f"What each part is worth: {people} personas"))
    for line in (tables.LEGEND, *said):
        console.print(line, highlight=False)
    _show(console, usage)
    console.print(f"table      {folder / 'ablation.md'}", highlight=False, soft_wrap=True, markup=False)


def _same_study(path: Path, config: dict[str, Any]) -> None:
    """Raise RunError where a study of other settings was begun in this folder.

    Countries may be added; how fast an API is asked, and its prices, decide nothing.
    """
    url = (config["api"] or {}).get("base_url")
    config = {name: value for name, value in config.items() if name not in ("country", "fit_country", "api")}
    config["base_url"] = url
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else config
    flat = [each | {f"setting {name}": value for name, value in each["settings"].items()} for each in (config, before)]
    if odd := [name for name in flat[0] if flat[0][name] != flat[1].get(name) and name != "settings"]:
        raise RunError(f"{path.parent}: a study of other settings is here ({', '.join(odd)} differ). Change --out.")
    write_json(path, config)


for _name in STAGES:
    clca.add_command(_stage(_name))
