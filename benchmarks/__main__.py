"""Run one benchmark: python -m benchmarks NAME [--json]. README.md beside this file describes each NAME."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import click
from culteval.harness.models.load import default_dtype

from .common import Command, Row, Settings, say

NAMES = (
    "packing",
    "racing",
    "scaling",
    "startup",
    "fewshot",
    "gpu",
    "dialogues",
    "engines",
    "map",
)  # modules here, each with measure(settings) -> list[Row]
DTYPES = ("float32", "bfloat16", "float16", "int8")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(cls=Command)
@click.argument("name", type=click.Choice(NAMES))
@click.option("--json", "as_json", is_flag=True, help="Rows as JSON on standard output.")
@click.option("--model", default="smollm2", show_default=True, help="A registered model or a folder.")
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    type=click.Choice(DTYPES),
    help="May be given more than once.  [default: float32, and bfloat16 if the processor has it]",
)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Timed rounds.")
@click.option("--threads", type=click.IntRange(1), help="Processor threads of torch.  [default: torch's own]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--minutes", type=click.FloatRange(0.1), default=7, show_default=True, help="packing, dialogues: time it may take."
)
@click.option("--llama", type=_FILE, help="packing: a Python that has llama-cpp-python, the second peer.")
@click.option("--gguf", type=_FILE, help="packing: the file that llama.cpp reads.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="scaling: plot, .png or .svg.")
def main(name: str, as_json: bool, **given: Any) -> None:
    """Run one benchmark and print its rows."""
    if given["out"] and name != "scaling":
        raise click.UsageError("--out goes with scaling.")
    if (given["llama"] is None) != (given["gguf"] is None) or (given["llama"] and name != "packing"):
        raise click.UsageError("--llama and --gguf go together, and with packing.")
    given["dtypes"] = given["dtypes"] or tuple(dict.fromkeys(("float32", default_dtype(given["device"], say))))
    settings = Settings(**given)
    rows = importlib.import_module(f".{name}", __package__).measure(settings)
    if as_json:
        click.echo(json.dumps([row.model_dump() for row in rows], indent=2))
    else:
        show(name, rows)


def show(name: str, rows: list[Row]) -> None:
    """Print the rows as a table, without the columns that no row fills, and the notes below it."""
    from rich.console import Console
    from rich.table import Table

    columns = [c for c in Row.model_fields if c != "note" and any(getattr(row, c) is not None for row in rows)]
    table = Table(title=name, box=None, padding=(0, 2, 0, 0))
    for column in columns:
        text = column in ("name", "dtype")
        table.add_column(
            column.replace("_", "\n", 1).replace("_", " "), justify="left" if text else "right", no_wrap=True
        )
    for row in rows:
        table.add_row(*(cell(getattr(row, column)) for column in columns))
    console = Console()
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"{row.name}{f', {row.dtype}' if row.dtype else ''}: {row.note}", highlight=False)


def cell(value: str | float | None) -> str:
    """Format a cell: text as it is, numbers with three digits, nothing for null."""
    return value if isinstance(value, str) else "" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
