"""The command ``reproduce``: the tables of published papers, by runs of this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ...errors import RunError
from ...harness.cli.options import as_json as json_option
from ...harness.cli.options import no_cache
from ...harness.cli.sweep import table_of
from ...harness.report.progress import verbosity
from ...harness.runs.config import DEFAULT_MODEL
from ...harness.sweeps.status import STATUS
from ...harness.util.atomic_io import write_text
from ...harness.util.command_help import GroupedCommand, option
from ..literature import reported_for
from .clca_command import clca
from .soft_prompt import FOLDS, LENGTHS, PARTS, Work, adapted_grid, differences
from .soft_prompt_tables import SURVEY


@click.group()
def reproduce() -> None:
    """Reproduce published tables on a model of your own."""


@reproduce.command("soft-prompt", cls=GroupedCommand)
@option("--model", default=DEFAULT_MODEL, show_default=True, group="Model", help="Embedded model, folder, or hub id.")
@option("--dtype", default="auto", show_default=True, group="Model", help="auto, float32, bfloat16, float16 or int8.")
@option("--device", default="cpu", show_default=True, group="Model", help="cpu, cuda, cuda:1 ...")
@option("--threads", type=click.IntRange(1), group="Model", help="Processor threads [default: all].")
@option(
    "--country",
    "countries",
    multiple=True,
    group="Tables",
    help="Country by name or code; may be repeated [default: SA, US, CN, IN].",
)
@option(
    "--table",
    "parts",
    type=click.Choice(list(PARTS)),
    multiple=True,
    group="Tables",
    help="Only this table; may be repeated.",
)
@option(
    "--budget", type=click.IntRange(1), group="Tables", help="Survey evaluations a fit [default: the sweep file's]."
)
@option("--seeds", type=click.IntRange(1), default=1, show_default=True, group="Tables", help="Seeds of every run.")
@option("--dry-run", is_flag=True, group="Execution", help="List the runs and estimate the time; nothing is fitted.")
@option("--workers", type=click.IntRange(1), group="Execution", help="Runs at once [default: one for 8 processors].")
@option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="culteval-reproduction",
    show_default=True,
    group="Output",
    help="Folder of runs and tables.",
)
@no_cache
@verbosity
@json_option
def soft_prompt(
    countries: tuple[str, ...], parts: tuple[str, ...], out: Path, dry_run: bool, as_json: bool, **flags: Any
) -> None:
    """Reproduce Masoud et al. 2025: soft prompts by Differential Evolution and gradient descent.

    Table 1 (a) and (b), the follow-up, the sweep of prompt lengths and the open questions, with the published figures
    beside them. Finished runs are skipped, so that the same command resumes.
    """
    chosen = tuple(name for name in PARTS if name in parts or not parts)
    grid, codes = adapted_grid(countries, flags)
    work = Work(chosen, codes, grid, out, flags)
    estimate = work.estimate(as_json)
    if dry_run:
        _plan(work, estimate, as_json)
        return
    if not as_json:
        click.echo(f"estimate   {estimate}", err=True)
    work.run(as_json)
    _present(work, as_json)
    if failed := [cell for cell in work.cells if cell.state == "failed"]:
        raise RunError(f"{len(failed)} of {len(work.cells)} runs failed; their reasons are in {out / STATUS}.")


def _plan(work: Work, estimate: str, as_json: bool) -> None:
    """Print the runs and the estimated time."""
    if as_json:
        click.echo(json.dumps({"estimate": estimate, "runs": [cell.record() for cell in work.cells]}, indent=2))
        return
    console = Console()
    console.print(table_of(work.cells, None, 1, whole=True))
    if work.lengths:
        console.print(f"lengths: {len(LENGTHS)} lengths, {FOLDS} folds", highlight=False)
    click.echo(f"estimate   {estimate}")


def _present(work: Work, as_json: bool) -> None:
    """Write the tables as Markdown, and print them, or all as JSON."""
    made, named, seconds = work.tables(), differences(work), work.seconds
    parts = "" if len(work.parts) == len(PARTS) else "-" + "-".join(work.parts)
    path = work.out / f"soft-prompt-{Path(work.grid.models[0]).name}{parts}.md"
    text = "\n".join(
        [
            "# Masoud et al. (2025), reproduced\n",
            f"Published figures: {reported_for(SURVEY)[0].source}.\n",
            *(table.markdown() for table in made),
            "## Differences from the paper\n",
            "".join(f"- {line}\n" for line in named),
            "## Time of the runs\n",
            f"Tables share runs. {', '.join(f'`{name}` {each / 3600:.2f} h' for name, each in seconds.items())}.\n",
        ]
    )
    write_text(path, text)
    if as_json:
        found = {"tables": [table.record() for table in made], "differences": named}
        click.echo(json.dumps(found | {"seconds": seconds, "markdown": str(path)}, indent=2, allow_nan=False))
    else:
        click.echo(text)
        click.echo(f"tables     {path}")


reproduce.add_command(clca)
