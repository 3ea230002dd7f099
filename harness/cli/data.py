"""The command ``data``: import your own copies of licensed data."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from pydantic import ValidationError

from ...errors import InputError, UsageError
from ...tasks.imported import data_dir
from ...tasks.items import Question
from ...tasks.rows import SELECTIONS
from ...tasks.spec import EXTENDED, OWN_EDITION, first_problem
from ..registry import get_task
from ..util.atomic_io import write_json, write_text

if TYPE_CHECKING:
    from ...tasks.importers.common import Row, Tally


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


_seed = click.option("--seed", default=0, show_default=True, help="Seed of the order of options and of the splits.")
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
    "--wave",
    "waves",
    type=int,
    multiple=True,
    help="Wave of a trend file; repeatable [default: each country's last].",
)
@_as_json
def wvs(file: str, edition: str, waves: tuple[int, ...], as_json: bool) -> None:
    """Import people of the World Values Survey or EVS: shares by country and subgroup, correlations of items.

    A file of SPSS (.sav), Stata (.dta) or text: WVS waves 5 to 7, trend files of WVS and EVS, EVS 2017, the joint file.
    """
    from ...tasks.importers.wvs import FAMILY, convert

    target = data_dir() / FAMILY / f"{_plain(edition)}.csv"
    made = convert(Path(file), waves)
    summary = made.summary
    shares, cells, correlations = ("".join(lines) for lines in (made.shares, made.cells, made.correlations))
    write_text(target.parent / "cells" / target.name, cells)
    write_text(target.parent / "correlations" / target.name, correlations)
    write_text(target, shares)  # last: with it the edition is there
    _record(target, file, summary.model_dump())
    if as_json:
        click.echo(json.dumps({"file": str(target), "edition": edition} | summary.model_dump()))
        return
    size = f"{summary.respondents:,} respondents, {len(summary.countries)} countries, {summary.questions} questions"
    click.echo(f"{target}: {size} ({summary.kind}).")
    if found := sorted({wave for of_country in summary.waves.values() for wave in of_country}):
        click.echo(f"waves      {', '.join(map(str, found))}; by country in {target.stem}.source.json")
    click.echo(f"subgroups  {', '.join(summary.subgroups) or 'none'}")
    if summary.left_out:
        places = ", ".join(f"{name} {count:,}" for name, count in summary.left_out.items())
        total = sum(summary.left_out.values())
        click.echo(f"left out   {total:,} respondents with a weight that is missing or zero ({places})")
    for name, reason in summary.unread.items():
        click.echo(f"left out   {name}: {reason}")
    click.echo(f"next       culteval run --aligner naive --task wvs --edition {edition}")


def _questions(name: str, family: str, convert: str, what: str, *options: Callable[[Any], Any]) -> None:
    """Add the command ``data import NAME`` for a set of questions.

    Args:
        family: the folder of the tasks.
        convert: "module:function" in ``tasks.importers``, called with the file, the seed, a ``Tally`` and ``options``.
        what: what is imported, for the help.
    """

    def command(file: str, seed: int, skip: bool, as_json: bool, **settings: Any) -> None:
        from ...tasks.importers.common import Tally

        module, _, function = convert.partition(":")
        read = getattr(importlib.import_module(f"...tasks.importers.{module}", __package__), function)
        made = read(file, seed, tally := Tally(skip), **settings)
        _write_questions(family, made, file, seed, tally, as_json)

    flags = (
        click.argument("file", metavar="FILE_OR_HUB_ID"),
        _seed,
        _skip_bad_rows,
        *options,
        _as_json,
    )
    for flag in reversed(flags):
        command = flag(command)
    import_.command(name, help=f"Import {what}.")(command)


_questions(
    "culturalbench",
    "culturebench",
    "questions:culturalbench",
    "CulturalBench's official CSV (Easy or Hard), or its hub id",
)
_questions(
    "cdeval", "cdeval", "questions:cdeval", "CDEval's CSV (Question, Option 1, Option 2, Dimension), or a hub id"
)
_questions(
    "globalopinionqa",
    "globalopinionqa",
    "opinions:globalopinionqa",
    "GlobalOpinionQA's global_opinions.csv, or the hub id Anthropic/llm_global_opinions",
)
_questions(
    "blend",
    "blend",
    "everyday:blend",
    "BLEnD's mc_questions_file (CSV or JSON), or the hub id nayeon212/BLEnD",
    click.option(
        "--variants",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        help="Sets of choices drawn for each question of a region; 0 takes all.",
    ),
)
_questions(
    "normad",
    "normad",
    "everyday:normad",
    "NormAd's normad_etiquette_final_data.csv, or hub id akhilayerukola/NormAd; three contexts",
)
_questions(
    "simbench",
    "simbench",
    "simbench:simbench",
    "SimBenchPop.csv or SimBenchGrouped.csv, or both by the hub id pitehu/SimBench",
)


@import_.command()
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--by", multiple=True, help="Also import shares by an attribute such as POLPARTY; may be repeated.")
@_seed
@_skip_bad_rows
@_as_json
def opinionqa(folder: str, by: tuple[str, ...], seed: int, skip: bool, as_json: bool) -> None:
    """Import OpinionQA's folder human_resp (American_Trends_Panel_W...): questions and weighted shares."""
    from ...tasks.importers.common import Tally
    from ...tasks.importers.opinionqa import opinionqa as convert

    rows, editions = convert(folder, seed, tally := Tally(skip), by)
    _check_questions(rows, folder)
    for name, text in editions.items():
        write_text(data_dir() / "opinionqa" / f"{_plain(name)}.csv", text)
    _write_questions("opinionqa", {"opinionqa": rows}, folder, seed, tally, as_json)
    if not as_json and by:
        click.echo(f"editions   {', '.join(editions)} (--edition of culteval score and run)")


@import_.command()
@click.argument("file", type=click.Path(dir_okay=False))
def vsm13(file: str) -> None:
    """Import your copy of the official VSM 2013 form: 24 rows item,question,option1..option5."""
    from ...tasks.importers.form import convert

    target = data_dir() / "vsm13" / "official.yaml"
    write_text(target, convert(file))
    _record(target, file, {"items": 24})
    click.echo(f"{target}: 24 items.\nnext       culteval run --aligner naive --task vsm13_official")


@import_.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--edition", default="survey", show_default=True, help="Name of the edition, for --edition of other commands."
)
@_as_json
def iw_map(file: str, edition: str, as_json: bool) -> None:
    """Fit the cultural map's projection on your survey file, as `data import wvs` reads it."""
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


def _write_questions(
    family: str, made: dict[str, list[Row]], file: str, seed: int, tally: Tally, as_json: bool
) -> None:
    from ...tasks.importers.common import lines

    for rows in made.values():
        _check_questions(rows, file)
    imported = []
    counts_by_kind: dict[str, object] = {"mended": dict(tally.mended), "left_out": dict(tally.left_out)}
    for name, rows in made.items():
        target = data_dir() / family / f"{name}.jsonl"
        write_text(target, lines(rows))
        count = len({row.get("group", row["id"]) for row in rows})
        _record(target, file, counts_by_kind | {"questions": count, "seed": seed})
        task_name = f"culturalbench_{name}" if family == "culturebench" else name
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


def _check_questions(rows: list[Row], file: str) -> None:
    """Raise InputError for rows that make no valid question file: an empty or repeated option, a repeated id."""
    seen: set[object] = set()
    for row in rows:
        try:
            Question.model_validate({key: value for key, value in row.items() if key != SELECTIONS})
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
    write_json(
        target.with_suffix(".source.json"), {"source": path.name if path.exists() else source, "sha256": digest} | what
    )


def _plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}", name) or name in ("shipped", EXTENDED, OWN_EDITION):
        raise UsageError(f"--edition {name!r}: letters, digits, dots and dashes; not shipped, extended or own.")
    return name
