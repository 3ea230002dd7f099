"""The published evaluation of CLCA before and after training: python -m benchmarks.clca_evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from culteval.harness.adapters.peft_files import carried_hash, read_lora_config
from culteval.harness.util.atomic_io import write_json, write_text
from culteval.leaderboards.reproduction import clca_tables as tables
from culteval.leaderboards.reproduction.clca_metrics import PERSONAS, Country, ask, change
from culteval.optimizers.clca.commands import flags_of_clca, one_country, show_usage, usage_json, workspace
from culteval.optimizers.clca.training.train import LORA
from culteval.tasks.countries import country as resolve
from rich.console import Console

from .common import Command


@click.command(cls=Command)
@one_country
@flags_of_clca
@click.option(
    "--personas", type=click.IntRange(2, 100_000), help="How many personas [default: 50, with --set preset=paper 1000]."
)
@click.option("--adapter", "given", type=click.Path(file_okay=False), help="Evaluate this one; nothing is simulated.")
def main(as_json: bool, personas: int | None, given: str | None, **flags: Any) -> None:
    """Present WVS to personas before and after, as published: greedy numbers, KL, Jensen-Shannon, accuracy.

    Runs the stages that are missing. The same personas answer before and after, so that differences are tested in
    pairs; the small task of general ability measures the cost of training.
    """
    country = Country(resolve(flags["country"]).code)  # an invalid country fails before anything is written
    if given:
        read_lora_config(Path(given))
    with workspace(flags, as_json) as work:
        seed = work.config.seed
        adapter = Path(given) if given else work.folder / LORA
        if not given:
            work.pipeline(country.code, work.folder).run()
        people, replies = personas or PERSONAS[work.settings.preset], []
        after = work.folder / f"evaluation-{carried_hash(adapter)[:10]}-{people}"
        for name, folder, model_of in (
            ("before", work.folder / f"naive-{people}", work.model_of),
            ("after", after, lambda: work.model_of().adapted(adapter, carried=True)),
        ):
            replies.append(ask(model_of, people, seed, folder, lambda *at, name=name: work.tell(f"asking {name}", *at)))
        rows = change(country, replies[0], replies[1], np.random.default_rng(seed))
        write_json(after / "evaluation.json", rows)
        write_text(after / "evaluation.md", tables.markdown(*tables.changes(rows)))
        usage = work.usage()
    if as_json:
        result = {"folder": str(after), "country": country.code, "personas": people, "metrics": rows}
        click.echo(json.dumps(result | usage_json(usage)))
        return
    console = Console()
    console.print(tables.rich(*tables.changes(rows), f"wvs_text, {country.code}: {people} personas, before and after"))
    console.print(tables.LEGEND, style="dim", highlight=False)
    show_usage(console, usage)
    console.print(f"table      {after / 'evaluation.md'}", highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.clca_evaluation")
