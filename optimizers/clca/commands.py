"""The command ``clca``: its stages one by one."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from ...harness.commands import api_options, load, run_defaults, terminal
from ...harness.files import write_json
from ...harness.planning import plan
from .aligner import culture_of
from .settings import PRESETS, CLCASettings
from .stages import STAGES, Course
from .teacher import writer_of

_TOLD = {
    "scenarios": "Set the seed scenarios in a country.",
    "simulate": "Have two agents play every scenario.",
    "filter": "Keep what checks and judges let pass.",
    "intents": "Ask for the intent behind every turn.",
    "train": "Learn from what was kept: a LoRA adapter.",
}


@click.group()
def clca() -> None:
    """Learn a culture from simulated social interactions, stage by stage; each does those before it where missing.

    \b
    All at once, with answers and scores:
      culteval run --aligner clca --task wvs --country US
    """


def _stage(name: str) -> click.Command:
    @click.command(name, help=_TOLD[name])
    @click.option("--country", default="US", show_default=True, help="Country by name or code.")
    @click.option("--preset", type=click.Choice(list(PRESETS)), default="laptop", show_default=True, help="Sizes.")
    @click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting of the aligner clca.")
    @click.option("--model", default="smollm2", show_default=True, help="Embedded model, folder, or hub id.")
    @api_options
    @click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
    @click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ...")
    @click.option("--threads", type=click.IntRange(1), help="Processor threads [default: all].")
    @click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
    @click.option("--out", type=click.Path(file_okay=False), default="culteval-clca", show_default=True)
    @click.option("--fresh", is_flag=True, help="Do this stage and those after it anew.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
    def command(
        preset: str, assignments: tuple[str, ...], out: str, fresh: bool, as_json: bool, **flags: object
    ) -> None:
        given = run_defaults() | flags | {"aligner": "clca", "tasks": ("vsm13",), "fit": ()}
        config = plan(given | {"assignments": (f"preset={preset}", *assignments)})
        settings = CLCASettings.model_validate(config.settings)
        code = settings.country(config.country)
        folder = Path(out) / f"{config.country}-{config.digest}"
        write_json(folder / "config.json", config.model_dump(mode="json"))
        with terminal(as_json) as display:
            model_of, teacher = cache(lambda: load(config, display)), settings.teacher

            def teacher_of() -> Any:
                return (
                    load(config.model_copy(update={"model": teacher, "revision": None}), display)
                    if teacher
                    else model_of()
                )

            def tell(stage: str, done: int, total: int) -> None:
                display.advance(f"clca {stage}", done, total, None)

            course = Course(
                folder=folder,
                country=code,
                culture=culture_of(code),
                settings=settings,
                seed=int(np.random.default_rng(config.seed).integers(1 << 31)),
                model_of=model_of,
                writer_of=cache(lambda: writer_of(teacher_of(), folder, tell)),
                tell=tell,
            )
            if fresh:
                course.clear(name)
            course.run(name)
        report = course.report()
        click.echo(json.dumps(report, indent=2)) if as_json else Console().print(_table(report, name))

    return command


def _table(report: dict[str, object], stage: str) -> Table:
    table = Table(title=f"clca, up to {stage}", title_justify="left", box=None, pad_edge=False, show_header=False)
    for name, value in report.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {number}" for key, number in value.items())
        table.add_row(name, " -> ".join(map(str, value)) if isinstance(value, list) else str(value))
    return table


for _name in STAGES:
    clca.add_command(_stage(_name))
