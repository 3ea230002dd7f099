"""The command ``leaderboard``: show, build, export and check boards of submissions."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError

if TYPE_CHECKING:
    from .leaderboard import Leaderboard

FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="culteval-runs")


@click.group()
def leaderboard() -> None:
    """Rank submissions on leaderboards: show, build, export, check and verify boards."""


def _note(text: str) -> None:
    click.echo(f"note: {text}", err=True)


def _read(folder: Path, as_json: bool) -> Leaderboard:
    from ..harness.cli.options import terminal
    from .leaderboard import leaderboard as read

    with terminal(as_json) as display:
        return read(folder, warn=_note, advance=lambda what, done, total: display.advance(what, done, total, None))


@leaderboard.command()
@FOLDER
@click.option("--format", "form", type=click.Choice(["terminal", "md", "json"]), default="terminal", show_default=True)
@click.option("--overview", "first_only", is_flag=True, help="Only the overview.")
def show(folder: Path, form: str, first_only: bool) -> None:
    """Show the submissions of a folder: the overview, then one ranked table per task and country.

    The overview has a row for each model and aligner and a column for each task: held-out headlines, averaged over
    countries and seeds, beside the between-country R2.
    """
    from rich.console import Console

    from .overview import markdown_section
    from .render import terminal

    found = _read(folder, form == "json")
    table = found.overview()
    if form == "terminal":
        Console().print(table if first_only else found)
    elif form == "md":
        text = markdown_section(table)
        click.echo(text.rstrip("\n") if first_only else f"{text}\n{terminal.markdown(found, found.sets)}")
    else:
        rows = [score.model_dump() for board in found for row in board.rows() for score in row.scores]
        shown = {"overview": list(table.records())} | ({} if first_only else {"scores": rows})
        click.echo(json.dumps(shown, allow_nan=False))


@leaderboard.command()
@FOLDER
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the site.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def build(folder: Path, out: Path, as_json: bool) -> None:
    """Build a static site from a folder of runs or submissions.

    Scores are computed from the answers. A second build reads new submissions only.
    """
    from ..harness.cli.options import terminal
    from .render import site

    with terminal(as_json) as display:
        made = site.build(folder, out, _note, lambda done, total: display.advance("submissions", done, total, None))
    page = out / "index.html"
    if as_json:
        click.echo(json.dumps(asdict(made) | {"page": str(page)}))
        return
    boards = "1 board" if made.boards == 1 else f"{made.boards} boards"
    click.echo(f"{made.submissions} submissions on {boards}, {made.renewed} read again.\nopen {page}")


@leaderboard.command()
@FOLDER
@click.option("--format", "form", type=click.Choice(["md", "csv", "latex", "json", "png", "svg"]), required=True)
@click.option("--task", help="Only boards of this task.")
@click.option("--country", help="Only boards of this country, by name or code.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write [default: print].")
def export(folder: Path, form: str, task: str | None, country: str | None, out: Path | None) -> None:
    """Export the overview and boards as tables for a paper, or one board as a figure.

    A row is bold only if it is better than every other in paired tests.
    """
    from ..harness.util.atomic_io import write_text
    from .render.records import as_csv, exported

    if form in ("png", "svg") and (out is None or out.suffix != f".{form}"):
        raise UsageError(f"--format {form}: a figure needs a file name that ends in .{form}. Add --out board.{form}.")
    found = _read(folder, form == "json").select(task, country)
    if form in ("png", "svg"):
        assert out is not None, "refused above"
        _picture(found, form, out)
        return
    if form in ("csv", "json"):
        rows = exported(found.overview(), found.records())
        text = as_csv(rows) if form == "csv" else json.dumps(rows, indent=2, allow_nan=False) + "\n"
    else:
        text = found.to_markdown() if form == "md" else found.to_latex()
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)
        click.echo(f"{len(found)} boards in {out}")


def _picture(found: Leaderboard, form: str, out: Path) -> None:
    from .render import figure

    if len(found) > 1:
        titles = "; ".join(board.title for board in found[:4])
        raise UsageError(f"--format {form}: shows one board, not {len(found)} ({titles}). Add --task, --country.")
    left = figure.write(out, found[0])
    more = f", {left} rows below the best {figure.MOST_ROWS} left out" if left else ""
    click.echo(f"{found[0].title}: {out}{more}")


@leaderboard.command()
@FOLDER
@click.option("--task", help="Only sets of this task or family.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of sampled permutations.")
@click.option("--format", "form", type=click.Choice(["terminal", "md", "json"]), default="terminal", show_default=True)
def identify(folder: Path, task: str | None, seed: int, form: str) -> None:
    """Identify the country of each submission in every aligned set: ranks, and p corrected for all sets.

    An aligned set has runs of one model, aligner and seed, each aligned to another country; six countries are needed.
    """
    import numpy as np
    from rich.console import Console

    from ..harness.report.tables import escape, markdown_table, narrow_table
    from .identification import HEADINGS, NOTE, SPARE, WORDS, identified

    rows = identified(_read(folder, form == "json").select(task), np.random.default_rng(seed))
    if form == "json":
        click.echo(json.dumps([row.record for row in rows], allow_nan=False))
    elif not rows:
        click.echo("no aligned set has six countries; `culteval identify RUN` ranks the countries of one submission.")
    elif form == "md":
        lines = [[escape(cell) for cell in row.cells] for row in rows]
        click.echo(f"{markdown_table(HEADINGS, lines, WORDS)}\n{NOTE}.")
    else:
        console, cells = Console(), [row.cells for row in rows]
        console.print(narrow_table("Identification", NOTE, HEADINGS, cells, SPARE, console.width))


@leaderboard.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--to", "board", type=click.Path(file_okay=False, path_type=Path), required=True, help="A board's folder."
)
def add(runs: tuple[Path, ...], board: Path) -> None:
    """Add finished runs to a board's folder; names are derived from the content."""
    from .publish import publish

    for run in runs:
        entry, left_out = publish(run, board)
        click.echo(str(entry))
        if left_out:
            _note(left_out)


@leaderboard.command()
@FOLDER
@click.option(
    "--adapters",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for adapters that boards do not keep: random prefixes and those above 512 KiB.",
)
def migrate(folder: Path, adapters: Path | None) -> None:
    """Update a board of an earlier version in place: rename fields, compress answers, remove scores.

    No score changes. Entries get the folder names that follow from their new manifests.
    """
    from .migrate import migrate as bring_up_to_date

    click.echo(f"{bring_up_to_date(folder, adapters, _note)} entries changed.")


@leaderboard.command()
@FOLDER
@click.option("--since", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The folder as released.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.pass_context
def check(context: click.Context, folder: Path, since: Path | None, as_json: bool) -> None:
    """Check the entries of a board; exit code 3 if there are problems.

    Names, hashes, stored scores, suite, budgets and adapters must agree with the answers; entries of different origin
    must not have equal answers; with --since, no released entry may be missing or changed.
    """
    from ..errors import InputError
    from ..harness.cli.options import terminal
    from .check import check as check_board
    from .suite import read_suite

    with terminal(as_json) as display:
        total, problems = check_board(
            folder, read_suite(), since, lambda done, of: display.advance("entries", done, of, None)
        )
    if as_json:
        click.echo(json.dumps({"entries": total, "problems": [asdict(problem) for problem in problems]}))
        context.exit(InputError.exit_code if problems else 0)
    for problem in problems:
        click.echo(f"{problem.entry}: {problem.text}" if problem.entry else problem.text)
    if problems:
        raise InputError(f"{folder}: {len(problems)} problems in {total} entries.")
    click.echo(f"{total} entries, no problems.")


@leaderboard.command()
@FOLDER
@click.argument("names", nargs=-1)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of a local model; entries name it by the folder's last part. May be repeated.",
)
@click.option(
    "--adapters",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with adapters that entries do not contain, each under the name of its entry.",
)
@click.option(
    "--sample", type=click.IntRange(1), default=24, show_default=True, help="Answers to regenerate of each task."
)
@click.option("--seed", type=click.IntRange(0), help="Seed of the sample [default: a new one, which is printed].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.pass_context
def verify(
    context: click.Context,
    folder: Path,
    names: tuple[str, ...],
    models: tuple[Path, ...],
    adapters: Path | None,
    sample: int,
    seed: int | None,
    as_json: bool,
) -> None:
    """Regenerate a sample of each entry's answers with its model and adapter, and mark entries that match.

    Random prefixes are generated from the entry's seed. Marks are stored in verified.json, by manifest. Exit code 3 if
    an entry differs.
    """
    from ..errors import InputError
    from ..harness.cli.options import terminal
    from .verify import Models, verify_all

    if seed is None:  # a known one would tell submitters which answers are regenerated
        seed = secrets.randbits(32)
    with terminal(as_json) as display:
        verdicts, refused = verify_all(folder, names, Models(models, display.say), sample, seed, display, adapters)
    if as_json:
        rows = [asdict(verdict) | {"holds": verdict.holds} for verdict in verdicts]
        click.echo(json.dumps({"verdicts": rows, "not_verified": refused}))
    for verdict in () if as_json else verdicts:
        click.echo(str(verdict))
    if verdicts and not as_json:
        click.echo(f"--sample {sample} --seed {seed} regenerates the same answers.")
    for text in () if as_json else refused:
        _note(f"not verified: {text}")
    if any(not verdict.holds for verdict in verdicts):
        context.exit(InputError.exit_code)
