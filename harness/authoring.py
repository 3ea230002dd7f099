"""The commands ``task`` and ``data``: what people bring themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from pydantic import ValidationError

from ..errors import InputError, UsageError, did_you_mean, shown
from ..tasks.answers import UNPARSED, Answers
from ..tasks.imported import data_dir
from ..tasks.intervals import LEAST_UNITS
from ..tasks.items import Presented, Question, Questions
from ..tasks.measure import MeasureOptions, countries_of, measure_of
from ..tasks.prompts import Asking, protocol, render
from ..tasks.spec import TaskSpec, first_problem, load_spec, read_yaml
from .files import replacing, write_json, write_text
from .registry import table
from .scoring import score_answers
from .statistics import detectable

if TYPE_CHECKING:
    from ..tasks.importing.questions import Tally

TEMPLATE = Path(__file__).parent.parent / "tasks" / "template"
OWN_HOOKS = "culteval.tasks.hooks."


@click.group()
def task() -> None:
    """Begin a new task, or check one."""


@task.command()
@click.argument("name")
def new(name: str) -> None:
    """Write a folder NAME with a small task that works, to be filled with your own questions."""
    folder = Path(name)
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,60}", folder.name):
        raise UsageError(f"task new {name!r}: a task's name has lower-case letters, digits and underscores only.")
    if folder.name in table("tasks"):
        raise UsageError(f"task new {name!r}: there is a task of this name already. Choose another name.")
    if folder.exists():
        raise UsageError(f"task new: {folder} is there already. Choose another name, or remove it.")
    with replacing(folder) as temporary:
        temporary.mkdir()
        for source in sorted(TEMPLATE.iterdir()):
            text = Template(source.read_text(encoding="utf-8")).safe_substitute(name=folder.name)
            target = f"{folder.name}.yaml" if source.name == "task.yaml" else source.name
            (temporary / target).write_text(text, encoding="utf-8")
    spec = folder / f"{folder.name}.yaml"
    click.echo(f"{folder}: written.\nnext       culteval task validate {spec}")


@task.command()
@click.argument("path", type=click.Path(dir_okay=False))
def validate(path: str) -> None:
    """Check a spec: schema, scales, splits, references, leakage, metrics. Nothing of it is executed."""
    spec = load_spec(Path(path))
    _check_lm_eval(spec, read_yaml(Path(path)))
    _check_readouts(spec)
    _check_rendering(spec)
    _check_leakage(spec)
    countries = _check_measure(spec)
    if not any((spec.folder / name).is_file() for name in ("README.md", "TERMS.md")):
        raise InputError(f"{spec.folder}: no README.md. Say in it where the items come from and on what terms.")
    reach = f"{len(countries)} countries" if countries else "any country"
    total = len(protocol(spec, Asking()))
    click.echo(f"{path}: valid ({len(spec.items.ids)} items, {len(spec.wordings)} wordings, {reach}, {total} answers).")
    if spec.metadata.measure == "shares" and isinstance(spec.items, Questions):
        scales = sum(question.ordered for question in spec.items.questions)
        click.echo(f"options that are a scale, compared by w1: {scales} of {len(spec.items.ids)} questions")
    for line in _detected(spec):
        click.echo(line)
    example = render(spec, "fit")
    said = f"{example.texts[0]}\n\nmay be answered: {', '.join(example.choices[0]) or 'anything'}"
    click.echo(f"\nfirst prompt:\n{shown(said)}")


def _detected(spec: TaskSpec) -> list[str]:
    """The smallest difference that the held-out protocol detects at worst: as it stands, or with 20 respondents."""
    rows = detectable(spec)
    if rows and rows[0].unit == "respondents":
        asked = "--respondents 20"
        told = ["asked of one respondent, it can test no difference"]
        rows = detectable(spec, LEAST_UNITS)
    else:
        asked, told = "as it stands", []
    found = [f"{row.metric} {row.difference:.3g} ({row.n} {row.unit})" for row in rows if row.difference is not None]
    if found:
        told.append(f"smallest difference found four times in five, at worst, {asked}: {', '.join(found)}")
    return told


def _check_lm_eval(spec: TaskSpec, data: dict[str, Any]) -> None:
    """What stock lm-eval needs of the file; functions that are not ours are named, not run."""
    if "include" not in data and "custom_dataset" not in data:
        raise InputError(f"{spec.path}: custom_dataset: missing. Write `custom_dataset: !function {OWN_HOOKS}dataset`.")
    called = [data.get("custom_dataset"), data.get("process_results")]
    metrics = data.get("metric_list", [])
    called += [row.get("aggregation") for row in metrics if isinstance(row, dict)]
    for name in called:
        if isinstance(name, str) and not name.startswith(OWN_HOOKS):
            click.echo(
                f"note: {spec.path}: stock lm-eval would run {name[:100]!a}, which is not part of culteval.", err=True
            )
    if spec.metadata.headline.metric not in spec.metrics:
        raise InputError(f"{spec.path}: metric_list: lacks the headline {spec.metadata.headline.metric!r}. Add it.")


def _check_readouts(spec: TaskSpec) -> None:
    as_text = spec.output_type == "generate_until"
    if as_text != ("text" in spec.metadata.readouts):
        raise InputError(
            f"{spec.path}: metadata.readouts: 'text' goes with output_type generate_until, and only with it."
        )


def _check_rendering(spec: TaskSpec) -> None:
    for split, part in spec.metadata.splits.named.items():
        for item in spec.items.ids:
            for wording in part.wordings:
                shown: Presented = spec.items.present(item, wording, "natural")
                if not shown.text.strip() or len(set(shown.choices)) < len(shown.choices):
                    raise InputError(f"{spec.path}: {split}: item {item!r} in wording {wording!r} renders to nothing.")


def _check_leakage(spec: TaskSpec) -> None:
    fit, heldout = (render(spec, split) for split in ("fit", "heldout"))
    held = set(heldout.texts)
    for row, text in enumerate(fit.texts):
        if text in held:
            item = fit.layout.items[fit.layout.item[row]]
            raise InputError(
                f"{spec.path}: item {item!r}: its prompt is in fit and in heldout, word for word. Change one."
            )


def _check_measure(spec: TaskSpec) -> tuple[str, ...]:
    """The countries of the reference, once uniform answers give the headline in its direction."""
    default, headline = spec.metadata.default_country, spec.metadata.headline
    try:
        known = countries_of(spec, None)
        measure_of(spec, default, MeasureOptions())
    except UsageError as error:
        raise InputError(f"{spec.path}: metadata.default_country: {error}") from None
    layout = protocol(spec, Asking()).layout
    probs = layout.inside / np.maximum(layout.widths, 1)[:, None]
    texts = tuple("" for _ in range(len(layout)))
    first = np.where(layout.widths > 0, layout.codes[:, 0], UNPARSED).astype(int)
    answers = Answers(layout, probs[None], np.zeros((1, len(layout))), texts, first)
    scores = score_answers(spec, answers, default, MeasureOptions(), "uniform")
    metrics = list(dict.fromkeys(row.metric for row in scores))
    for field, name in (
        ("metadata.headline.metric", headline.metric),
        *(("metric_list", name) for name in spec.metrics),
    ):
        if name not in metrics:
            raise InputError(f"{spec.path}: {field}: no metric {name!r}.{did_you_mean(name, metrics)}")
    found = [row for row in scores if row.metric == headline.metric]
    if found[0].higher_is_better is not None and found[0].higher_is_better != headline.higher_is_better:
        raise InputError(f"{spec.path}: metadata.headline.higher_is_better: {headline.metric} says the opposite.")
    return known


@click.group()
def data() -> None:
    """Import your own copies of licensed data; they stay on this machine."""


@data.group(name="import")
def import_() -> None:
    """Import a file: what it holds is checked first, and nothing is written unless all of it is right."""


_skip_bad_rows = click.option(
    "--skip-bad-rows", "skip", is_flag=True, help="Leave out questions that cannot be asked, and say how many."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")


@import_.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--edition", default="weighted", show_default=True, help="What to call it: --edition NAME of run and score."
)
@click.option(
    "--by", multiple=True, help="Also shares by demographic cell: gender, age, settlement, education, income."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def wvs7(file: str, edition: str, by: tuple[str, ...], as_json: bool) -> None:
    """The World Values Survey's wave-7 CSV: weighted shares and counts by country."""
    from ..tasks.importing import wvs7 as source

    if odd := [name for name in by if name not in source.CELLS]:
        raise UsageError(f"--by {odd[0]!r}: not one of {', '.join(source.CELLS)}.")
    folder = data_dir() / source.FAMILY
    target = folder / f"{_plain(edition)}.csv"
    found, lines = source.convert(Path(file))
    shares, cells = "".join(lines), "".join(source.convert(Path(file), by)[1]) if by else ""
    write_text(target, shares)
    if by:
        write_text(folder / "cells" / target.name, cells)
    _record(target, file, found.model_dump())
    if as_json:
        click.echo(json.dumps({"file": str(target), "edition": edition} | found.model_dump()))
        return
    click.echo(
        f"{target}: {found.respondents:,} respondents, {len(found.countries)} countries, {found.questions} questions."
    )
    if found.left_out:
        places = ", ".join(f"{name} {count:,}" for name, count in found.left_out.items())
        total = sum(found.left_out.values())
        click.echo(f"left out   {total:,} respondents, whose {source.WEIGHT} is missing or zero ({places})")
    click.echo(f"next       culteval run --aligner naive --task wvs --edition {edition}")


@import_.command()
@click.argument("file", metavar="FILE_OR_HUB_ID")
@click.option("--seed", default=0, show_default=True, help="Shuffles options and splits.")
@_skip_bad_rows
@_as_json
def culturalbench(file: str, seed: int, skip: bool, as_json: bool) -> None:
    """CulturalBench's official CSV (Easy or Hard), or its hub id."""
    from ..tasks.importing.questions import Tally, culturalbench

    made = culturalbench(file, seed, tally := Tally(skip))
    _write_questions("culturebench", made, file, seed, tally, as_json)


@import_.command()
@click.argument("file", metavar="FILE_OR_HUB_ID")
@click.option("--seed", default=0, show_default=True, help="Splits the pairs.")
@_skip_bad_rows
@_as_json
def cdeval(file: str, seed: int, skip: bool, as_json: bool) -> None:
    """CDEval's CSV (Question, Option 1, Option 2, Dimension), or a hub id."""
    from ..tasks.importing.questions import Tally, cdeval

    made = {"cdeval": cdeval(file, seed, tally := Tally(skip))}
    _write_questions("cdeval", made, file, seed, tally, as_json)


@import_.command()
@click.argument("file", type=click.Path(dir_okay=False))
def vsm13(file: str) -> None:
    """Your copy of the official VSM 2013 form: 24 rows item,question,option1..option5."""
    from ..tasks.importing.form import convert

    target = data_dir() / "vsm13" / "official.yaml"
    write_text(target, convert(file))
    _record(target, file, {"items": 24})
    click.echo(f"{target}: 24 items.\nnext       culteval run --aligner naive --task vsm13_official")


def _write_questions(
    family: str, made: dict[str, list[dict[str, object]]], file: str, seed: int, tally: Tally, as_json: bool
) -> None:
    from ..tasks.importing.questions import lines

    for rows in made.values():
        _check_questions(rows, file)
    found = []
    told: dict[str, object] = {"mended": dict(tally.mended), "left_out": dict(tally.left_out)}
    for name, rows in made.items():
        target = data_dir() / family / f"{name}.jsonl"
        write_text(target, lines(rows))
        count = len({row.get("group", row["id"]) for row in rows})
        _record(target, file, told | {"questions": count, "seed": seed})
        task_name = name if family == "cdeval" else f"culturalbench_{name}"
        found.append({"task": task_name, "file": str(target), "rows": len(rows), "questions": count})
    if as_json:
        click.echo(json.dumps({"imported": found} | told))
        return
    for each in found:
        click.echo(f"{each['file']}: {each['rows']} rows, {each['questions']} questions.")
    for heading, counts in (("mended    ", tally.mended), ("left out  ", tally.left_out)):
        if counts:
            click.echo(f"{heading} questions by what was wrong: {', '.join(f'{k} {n}' for k, n in counts.items())}")
    for each in found:
        click.echo(f"next       culteval run --aligner naive --task {each['task']}")


def _check_questions(rows: list[dict[str, object]], file: str) -> None:
    """Raise InputError where the rows would be no question file: an empty option, one there twice, an id twice."""
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
    """Beside an import, where it came from: the file's name and hash, or the hub id."""
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
