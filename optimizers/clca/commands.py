"""The command ``clca`` with one subcommand per stage, and the parts that its reproduction and evaluation use."""

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
from rich.table import Table

from ...harness.cli.options import endpoint_of, endpoint_options, load, terminal
from ...harness.providers.response_log import Usage, usage_of
from ...harness.runs.config import DEFAULT_MODEL, RunConfig, read_assignments
from ...harness.runs.execute import USAGE
from ...harness.runs.folder import same_model
from ...harness.runs.load_model import load_other
from ...harness.runs.plan import RunRequest, plan
from ...harness.util.atomic_io import locked, write_json
from ..writing.teacher import Teacher
from .aligner import pipeline_of
from .pipeline import STAGES, Pipeline
from .settings import CLCASettings

_HELP = {
    "scenarios": "Set the seed scenarios in a country.",
    "simulate": "Have two agents play every scenario.",
    "filter": "Keep what checks and judges let pass.",
    "intents": "Ask for the intent behind every turn.",
    "train": "Learn from what was kept: a LoRA adapter.",
}
_FLAGS = (
    click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting of the aligner clca."),
    click.option("--model", default=DEFAULT_MODEL, show_default=True, help="Embedded model, folder, or hub id."),
    click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16."),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ..."),
    click.option("--threads", type=click.IntRange(1), help="Processor threads [default: all]."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."),
)
_MODEL = ("model", "dtype", "device", "threads", "seed", "country")  # of the arguments of a run
one_country = click.option("--country", default="US", show_default=True, help="Country by name or code.")


def flags_of_clca(command: Callable[..., Any], out: str = "culteval-clca") -> Callable[..., Any]:
    """Add the options that every command of CLCA has; ``out`` is the default folder."""
    folder = click.option("--out", type=click.Path(file_okay=False), default=out, show_default=True)
    for option in reversed((*_FLAGS, folder)):
        command = option(command)
    return endpoint_options(command)


@click.group()
def clca() -> None:
    """Learn a culture from simulated social interactions, stage by stage; each does those before it where missing.

    \b
    All at once, with answers and scores:
      culteval run --aligner clca --task wvs --country US
    Larger, as published, or from your own dialogues:
      culteval clca train --country US --set preset=paper
      culteval clca train --country US --set dialogues=own.jsonl
    """


def planned(flags: dict[str, Any]) -> RunConfig:
    """Return the configuration of a run of CLCA that the options ask for."""
    given = {name: flags[name] for name in _MODEL if flags.get(name) is not None}
    settings = read_assignments("--set", flags.get("assignments", ()))
    endpoint = endpoint_of(flags.get("base_url"), flags.get("endpoint", ()))
    return plan(RunRequest.of(aligner="clca", tasks=("vsm13",), settings=settings, endpoint=endpoint, **given))


class Workspace:
    """The state of a command: the configuration, the model (loaded on first use), and pipelines."""

    def __init__(self, config: RunConfig, folder: Path, display: Any) -> None:
        self.config, self.folder, self.display = config, folder, display
        self.settings = CLCASettings.model_validate(config.settings)
        self.model_of, self.teacher = cache(self._load), Teacher(self._load_teacher)

    def _load_teacher(self) -> Any:
        teacher = self.settings.teacher
        if not teacher:
            return self.model_of()
        return load_other(self.config, teacher, self.settings.teacher_dtype, self.display.say)

    def _load(self) -> Any:
        model = load(self.config, self.display.say)
        same_model(self.folder / "model.json", model)
        return model

    def tell(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage."""
        self.display.advance(f"clca {stage}", done, total, None)

    def usage(self) -> Usage | None:
        """Return the endpoint usage recorded here so far, and write it to a file; None if no endpoint was used."""
        found = usage_of(self.folder, self.config.endpoint)
        if found:
            write_json(self.folder / USAGE, found.model_dump(mode="json"))
        else:
            (self.folder / USAGE).unlink(missing_ok=True)
        return found

    def pipeline(self, country: str, folder: Path) -> Pipeline:
        """Return a country's pipeline in a folder."""
        seed = int(np.random.default_rng(self.config.seed).integers(1 << 31))
        return pipeline_of(folder, country, self.settings, seed, self.model_of, self.teacher, self.tell)


@contextmanager
def workspace(flags: dict[str, Any], as_json: bool) -> Iterator[Workspace]:
    """Open the workspace of one country, in a folder named after everything that determines its results."""
    config = planned(flags)
    folder = Path(flags["out"]) / f"{config.country}-{config.digest}"
    with locked(folder), terminal(as_json) as display:
        write_json(folder / "config.json", config.model_dump(mode="json"))
        yield Workspace(config, folder, display)


def _stage(name: str) -> click.Command:
    @click.command(name, help=_HELP[name])
    @one_country
    @flags_of_clca
    @click.option("--fresh", is_flag=True, help="Do this stage and those after it anew.")
    def command(fresh: bool, as_json: bool, **flags: Any) -> None:
        with workspace(flags, as_json) as work:
            pipeline = work.pipeline(work.config.country, work.folder)
            if fresh:
                pipeline.clear(name)
            pipeline.run(name)
            usage = work.usage()
        report = pipeline.report()
        if as_json:
            click.echo(json.dumps(report | usage_json(usage), indent=2))
            return
        console = Console()
        console.print(_table(report, name))
        show_usage(console, usage)

    return command


def _table(found: dict[str, Any], stage: str) -> Table:
    """Build a table of the numbers of every finished stage."""
    table = Table(title=f"clca, up to {stage}", title_justify="left", box=None, pad_edge=False, show_header=False)
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {number}" for key, number in value.items())
        table.add_row(name, " -> ".join(map(str, value)) if isinstance(value, list) else str(value))
    return table


def usage_json(usage: Usage | None) -> dict[str, Any]:
    """Return the usage as ``culteval run`` has it: by aligner, and nothing if no endpoint was used."""
    return {"usage": {"clca": usage.model_dump()}} if usage else {}


def show_usage(console: Console, usage: Usage | None) -> None:
    """Print the endpoint usage, if there is any."""
    if usage:
        console.print(f"asked      clca: {usage.summary()}", highlight=False, soft_wrap=True, markup=False)


for _name in STAGES:
    clca.add_command(_stage(_name))
