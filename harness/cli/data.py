"""The command ``data``: import your own copies of licensed data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml
from pydantic import ValidationError

from ...errors import InputError, UsageError
from ...tasks.imported import data_dir
from ...tasks.items import Question
from ...tasks.spec import first_problem
from ..registry import get_task
from ..util.atomic_io import write_json, write_text

if TYPE_CHECKING:
    from ...tasks.importers.questions import Tally


@click.group()
def data() -> None:
    """Import your own copies of licensed data.

    The imported files stay on this machine.
    """


@data.group(name="import")
def import_() -> None:
    """Import a file.

    The file is validated first; nothing is written unless all of it is valid.
    """


_skip_bad_rows = click.option(
    "--skip-bad-rows", "skip", is_flag=True, help="Leave out invalid questions, and report how many."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")


@import_.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--edition", default="weighted", show_default=True, help="Name of the edition, for --edition of other commands."
)
@click.option(
    "--by", multiple=True, help="Also import shares by gender, age, settlement, education or income; may be repeated."
)
@_as_json
def wvs7(file: str, edition: str, by: tuple[str, ...], as_json: bool) -> None:
    """Import the World Values Survey's wave-7 CSV: weighted shares and counts by country."""
    from ...tasks.importers import wvs7 as source

    if unknown := [name for name in by if name not in source.CELLS]:
        raise UsageError(f"--by {unknown[0]!r}: not one of {', '.join(source.CELLS)}.")
    folder = data_dir() / source.FAMILY
    target = folder / f"{_plain(edition)}.csv"
    summary, lines = source.convert(Path(file))
    shares, cells = "".join(lines), "".join(source.convert(Path(file), by)[1]) if by else ""
    write_text(target, shares)
    if by:
        write_text(folder / "cells" / target.name, cells)
    _record(target, file, summary.model_dump())
    if as_json:
        click.echo(json.dumps({"file": str(target), "edition": edition} | summary.model_dump()))
        return
    size = f"{summary.respondents:,} respondents, {len(summary.countries)} countries, {summary.questions} questions"
    click.echo(f"{target}: {size}.")
    if summary.left_out:
        places = ", ".join(f"{name} {count:,}" for name, count in summary.left_out.items())
        total = sum(summary.left_out.values())
        click.echo(f"left out   {total:,} respondents with {source.WEIGHT} missing or zero ({places})")
    click.echo(f"next       culteval run --aligner naive --task wvs --edition {edition}")


@import_.command()
@click.argument("file", metavar="FILE_OR_HUB_ID")
@click.option("--seed", default=0, show_default=True, help="Seed of the order of options and of the splits.")
@_skip_bad_rows
@_as_json
def culturalbench(file: str, seed: int, skip: bool, as_json: bool) -> None:
    """Import CulturalBench's official CSV (Easy or Hard), or its hub id."""
    from ...tasks.importers.questions import Tally, culturalbench

    made = culturalbench(file, seed, tally := Tally(skip))
    _write_questions("culturebench", made, file, seed, tally, as_json)


@import_.command()
@click.argument("file", metavar="FILE_OR_HUB_ID")
@click.option("--seed", default=0, show_default=True, help="Seed of the splits.")
@_skip_bad_rows
@_as_json
def cdeval(file: str, seed: int, skip: bool, as_json: bool) -> None:
    """Import CDEval's CSV (Question, Option 1, Option 2, Dimension), or a hub id."""
    from ...tasks.importers.questions import Tally, cdeval

    made = {"cdeval": cdeval(file, seed, tally := Tally(skip))}
    _write_questions("cdeval", made, file, seed, tally, as_json)


@import_.command()
@click.argument("file", type=click.Path(dir_okay=False))
def vsm13(file: str) -> None:
    """Import your copy of the official VSM 2013 form: 24 rows item,question,option1..option5."""
    from ...tasks.importers.form import convert

    target = data_dir() / "vsm13" / "official.yaml"
    write_text(target, convert(file))
    _record(target, file, {"items": 24})
    click.echo(f"{target}: 24 items.\nnext       culteval run --aligner naive --task vsm13_official")


@import_.command(name="lm-eval")
@click.argument("folder", type=click.Path(exists=True))
@click.option("--out", type=click.Path(file_okay=False), help="Folder of the submission [default: FOLDER/submission].")
@_as_json
def lm_eval(folder: str, out: str | None, as_json: bool) -> None:
    """Import a stock lm-eval run of our tasks (--log_samples) as a submission.

    FOLDER is its --output_path, or one of its results_*.json. The submission has the held-out prompts, which lm-eval
    asks; culteval score, compare and leaderboard read it.
    """
    from ..integrations.lm_eval_output import read_output
    from ..submissions.manifest import SUBMISSION
    from ..submissions.writer import write_submission

    given = Path(folder)
    found = read_output(given)
    target = Path(out) if out else (given if given.is_dir() else given.parent) / SUBMISSION
    if target.exists():
        raise UsageError(f"--out {target}: there already. Name another folder.")
    written = write_submission(target, found.manifest, found.answers)
    names = [task.name for task in written.tasks]
    if as_json:
        click.echo(json.dumps({"submission": str(target), "tasks": names, "left_out": found.left_out}))
        return
    click.echo(f"{target}: {written.model.name}, {', '.join(names)}, {written.answers.rows} answers.")
    if found.left_out:
        click.echo(f"left out   {', '.join(found.left_out)}: no tasks of culteval")
    click.echo(f"next       culteval score {target}")


@import_.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--edition", default="survey", show_default=True, help="Name of the edition, for --edition of other commands."
)
@_as_json
def iw_map(file: str, edition: str, as_json: bool) -> None:
    """Fit the cultural map's projection on your survey file: a trend file or wave 7 as CSV."""
    from ...tasks.importers.respondent_map import read_respondents
    from ...tasks.metrics.map_editions import SUFFIX

    if _plain(edition) == (shipped := get_task("iw_map").spec.default_edition):
        raise UsageError(f"--edition {edition!r}: the task has an edition of that name. Take another than {shipped}.")
    target = data_dir() / "iw_map" / f"{edition}{SUFFIX}"
    fitted = read_respondents(Path(file))
    write_text(target, yaml.safe_dump(fitted.model_dump(mode="json"), sort_keys=False))
    summary: dict[str, object] = {"respondents": fitted.respondents, "countries": sorted(fitted.countries)}
    _record(target, file, summary)
    if as_json:
        click.echo(json.dumps({"file": str(target), "edition": edition} | summary))
        return
    explained = ", ".join(f"{share:.0%}" for share in fitted.explained)
    click.echo(f"{target}: {fitted.respondents:,} respondents with all items, {len(fitted.countries)} countries.")
    click.echo(f"variance   {explained} (traditional to secular, survival to self-expression)")
    click.echo(f"next       culteval run --aligner naive --task iw_map --edition {edition}")


def _write_questions(
    family: str, made: dict[str, list[dict[str, object]]], file: str, seed: int, tally: Tally, as_json: bool
) -> None:
    from ...tasks.importers.questions import lines

    for rows in made.values():
        _check_questions(rows, file)
    imported = []
    counts_by_kind: dict[str, object] = {"mended": dict(tally.mended), "left_out": dict(tally.left_out)}
    for name, rows in made.items():
        target = data_dir() / family / f"{name}.jsonl"
        write_text(target, lines(rows))
        count = len({row.get("group", row["id"]) for row in rows})
        _record(target, file, counts_by_kind | {"questions": count, "seed": seed})
        task_name = name if family == "cdeval" else f"culturalbench_{name}"
        imported.append({"task": task_name, "file": str(target), "rows": len(rows), "questions": count})
    if as_json:
        click.echo(json.dumps({"imported": imported} | counts_by_kind))
        return
    for row in imported:
        click.echo(f"{row['file']}: {row['rows']} rows, {row['questions']} questions.")
    for heading, counts in (("mended    ", tally.mended), ("left out  ", tally.left_out)):
        if counts:
            click.echo(f"{heading} questions by defect: {', '.join(f'{k} {n}' for k, n in counts.items())}")
    for row in imported:
        click.echo(f"next       culteval run --aligner naive --task {row['task']}")


def _check_questions(rows: list[dict[str, object]], file: str) -> None:
    """Raise InputError for rows that make no valid question file: an empty or repeated option, a repeated id."""
    seen: set[object] = set()
    for row in rows:
        try:
            Question.model_validate(row)
        except ValidationError as error:
            raise InputError(f"{file}: question {row['id']}: {first_problem(error)}. Mend its row.") from None
        if row["id"] in seen:
            raise InputError(f"{file}: question {row['id']} is there twice. Mend its rows.")
        seen.add(row["id"])


def _record(target: Path, source: str, what: dict[str, object]) -> None:
    """Write the source of an import beside it: the file's name and hash, or the hub id."""
    import hashlib

    path = Path(source)
    digest = None
    if path.is_file():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_json(target.with_suffix(".source.json"), {"source": path.name if digest else source, "sha256": digest} | what)


def _plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}", name) or name in ("shipped", "own"):
        raise UsageError(f"--edition {name!r}: letters, digits, dots and dashes; not shipped or own.")
    return name
