"""The command ``leaderboard``: show, build, export and check boards of submissions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from ..harness.scoring.score import TaskCache
    from .answer_reader import AnswerReader
    from .boards import Board
    from .entries import Entry
    from .suite import Suite

FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="culteval-runs")


@click.group()
def leaderboard() -> None:
    """Rank submissions on leaderboards: show, build, export, check and verify boards."""


def _note(text: str) -> None:
    click.echo(f"note: {text}", err=True)


def _boards(folder: Path, answers: AnswerReader, suite: Suite, as_json: bool) -> tuple[list[Entry], list[Board]]:
    from ..harness.cli.options import terminal
    from .boards import boards, scored_anew
    from .entries import entries

    with terminal(as_json) as display:

        def advance(what: str) -> Callable[[int, int], None]:
            return lambda done, total: display.advance(what, done, total, None)

        runs = list(entries(folder, _note, advance("submissions"), answers.hold))
        found = boards(runs, answers.shelf, suite, scored_anew(answers), advance("boards"))
    return runs, found


@leaderboard.command()
@FOLDER
@click.option("--format", "form", type=click.Choice(["terminal", "md", "json"]), default="terminal", show_default=True)
@click.option("--overall", "whole", is_flag=True, help="One table instead: a row an aligner, a column a task.")
def show(folder: Path, form: str, whole: bool) -> None:
    """Show the submissions of a folder, ranked by their held-out headline, a table a task and country.

    With --overall, headlines are averaged over countries and seeds, beside the between-country R2.
    """
    from rich.console import Console

    from ..harness.scoring.score import TaskCache
    from .answer_reader import AnswerReader
    from .country_sets import aligned_sets
    from .render import terminal
    from .suite import read_suite

    answers = AnswerReader(TaskCache())
    runs, found = _boards(folder, answers, read_suite(), form == "json")
    if whole:
        _overall(found, answers.shelf, form)
        return
    if form == "json":
        rows = [score.model_dump() for board in found for row in board.rows() for score in row.scores]
        click.echo(json.dumps(rows))
        return
    sets = aligned_sets(runs, answers.shelf)
    if form == "md":
        click.echo(terminal.markdown(found, sets))
    else:
        terminal.show(found, sets, Console())


def _overall(found: list[Board], shelf: TaskCache, form: str) -> None:
    from rich.console import Console

    from .overall import overall
    from .render import terminal

    table = overall(found, shelf)
    if form == "json":
        click.echo(json.dumps(list(table.records()), allow_nan=False))
    elif form == "md":
        click.echo(terminal.overall_markdown(table), nl=False)
    else:
        console = Console()
        console.print(terminal.overall_table(table, console.width))


@leaderboard.command()
@FOLDER
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the site.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def build(folder: Path, out: Path, as_json: bool) -> None:
    """Build a site from a folder of runs or submissions: pages that open from disk.

    Scores are computed from the answers. A second build reads only what is new.
    """
    from ..harness.cli.options import terminal
    from .render import site

    with terminal(as_json) as display:
        made = site.build(folder, out, _note, lambda done, total: display.advance("submissions", done, total, None))
    page = out / "index.html"
    if as_json:
        click.echo(json.dumps(asdict(made) | {"page": str(page)}))
        return
    click.echo(f"{made.submissions} submissions on {made.boards} boards, {made.renewed} read anew.\nopen {page}")


@leaderboard.command()
@FOLDER
@click.option("--format", "form", type=click.Choice(["md", "csv", "latex", "json", "png", "svg"]), required=True)
@click.option("--task", help="Only boards of this task.")
@click.option("--country", help="Only boards of this country, by name or code.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write [default: print].")
def export(folder: Path, form: str, task: str | None, country: str | None, out: Path | None) -> None:
    """Export boards as tables for a paper, or one board as a figure.

    A row is bold only where it is better than every other in paired tests.
    """
    from ..harness.scoring.score import TaskCache
    from ..harness.util.atomic_io import write_text
    from .answer_reader import AnswerReader
    from .country_sets import aligned_sets
    from .suite import read_suite

    if form in ("png", "svg") and (out is None or out.suffix != f".{form}"):
        raise UsageError(f"--format {form}: a picture needs a file of that kind. Add --out board.{form}.")
    suite, answers = read_suite(), AnswerReader(TaskCache())
    runs, found = _boards(folder, answers, suite, form == "json")
    found = _chosen(found, task, country)
    if form in ("png", "svg"):
        assert out is not None, "refused above"
        _picture(found, form, out)
        return
    import numpy as np

    from .render import records, tables
    from .significance import proven

    tasks = [board.key.task for board in found]
    sets = [each for each in aligned_sets(runs, answers.shelf) if each.task in tasks]
    if form in ("csv", "json"):
        rows = records.records(found, sets, suite.version)
        text = records.as_csv(rows) if form == "csv" else json.dumps(rows, indent=2, allow_nan=False) + "\n"
    else:
        write, beside = (
            (tables.markdown, tables.markdown_beside) if form == "md" else (tables.latex, tables.latex_beside)
        )
        parts = [write(board, proven(board, answers, np.random.default_rng(0))) for board in found]
        text = "\n".join([*parts, *beside(tasks, sets)])
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)
        click.echo(f"{len(found)} boards in {out}")


def _chosen(found: list[Board], task: str | None, country: str | None) -> list[Board]:
    from ..harness.registry import family
    from ..tasks.countries import country as resolve

    known = {board.key.task for board in found}
    mine = known if task is None else known.intersection(family(task))
    if task is not None and not mine:
        raise UsageError(f"--task {task!r}: no board of it here.{did_you_mean(task, known)} There are {_list(known)}.")
    found = [board for board in found if board.key.task in mine]
    if country is None:
        return found
    countries = {board.key.country for board in found}
    code = resolve(country, countries).code
    if code not in countries:
        raise UsageError(f"--country {country!r}: no board of it here. There are {_list(countries)}.")
    return [board for board in found if board.key.country == code]


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _picture(found: list[Board], form: str, out: Path) -> None:
    from .render import figure

    if len(found) > 1:
        titles = "; ".join(board.title for board in found[:4])
        raise UsageError(f"--format {form}: shows one board, here are {len(found)} ({titles}). Add --task, --country.")
    left = figure.write(out, found[0])
    more = f", {left} rows below the best {figure.MOST_ROWS} left out" if left else ""
    click.echo(f"{found[0].title}: {out}{more}")


@leaderboard.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--to", "board", type=click.Path(file_okay=False, path_type=Path), required=True, help="A board's folder."
)
def add(runs: tuple[Path, ...], board: Path) -> None:
    """Add finished runs to a board's folder, each named after its content."""
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
    help="Where adapters go that boards no longer keep: random prefixes and those above 512 KiB.",
)
def migrate(folder: Path, adapters: Path | None) -> None:
    """Bring a board of an earlier version up to date in place: answers compressed, stored scores removed.

    Names, manifests, hashes and scores stay as they are.
    """
    from .publish import migrate as bring_up_to_date

    click.echo(f"{bring_up_to_date(folder, adapters, _note)} entries changed.")


@leaderboard.command()
@FOLDER
@click.option("--since", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The folder as released.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.pass_context
def check(context: click.Context, folder: Path, since: Path | None, as_json: bool) -> None:
    """Check a board's entries as a maintainer does: exit code 3 where something is wrong.

    Names, hashes, stored scores, suite, budgets and adapters have to agree with the answers; no two entries of
    different origin may have the same; with --since nothing may be gone or changed.
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
    click.echo(f"{total} entries, nothing wrong.")


@leaderboard.command()
@FOLDER
@click.argument("names", nargs=-1)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of a model that entries call by the folder's last name; may be repeated.",
)
@click.option(
    "--adapters",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with adapters that entries do not carry, each under its entry's name.",
)
@click.option(
    "--sample", type=click.IntRange(1), default=24, show_default=True, help="Answers to regenerate per entry."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the prompts.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.pass_context
def verify(
    context: click.Context,
    folder: Path,
    names: tuple[str, ...],
    models: tuple[Path, ...],
    adapters: Path | None,
    sample: int,
    seed: int,
    as_json: bool,
) -> None:
    """Regenerate a sample of each entry's answers by its model and adapter, and mark those that match.

    Random prefixes are drawn anew. Marks go to verified.json. Exit code 3 where an entry does not match.
    """
    from ..errors import InputError
    from ..harness.cli.options import terminal
    from .verify import Models, verify_all

    with terminal(as_json) as display:
        verdicts, refused = verify_all(folder, names, Models(models, display.say), sample, seed, display, adapters)
    if as_json:
        rows = [asdict(verdict) | {"holds": verdict.holds} for verdict in verdicts]
        click.echo(json.dumps({"verdicts": rows, "not_verified": refused}))
    for verdict in () if as_json else verdicts:
        click.echo(str(verdict))
    for text in () if as_json else refused:
        _note(f"not verified: {text}")
    if any(not verdict.holds for verdict in verdicts):
        context.exit(InputError.exit_code)
