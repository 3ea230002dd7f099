"""Boards from run folders: collect, group by what is comparable, rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import CultevalError, InputError, UsageError
from ..harness.registry import spec_of
from ..harness.report import Row, ranked
from ..harness.run import SCORES, SUBMISSION, read_result
from ..harness.scoring import options_of, score_constant
from ..harness.submission import AskedTask, read
from ..tasks.countries import name_of
from ..tasks.spec import TaskSpec


@dataclass(frozen=True)
class Board:
    """Rows that may be compared: one task, country, model, edition and kind of constants."""

    title: str
    spec: TaskSpec
    rows: tuple[Row, ...]


def boards(folder: Path, warn: Callable[[str], None] = lambda text: None) -> list[Board]:
    """All boards of the finished runs under a folder, the best held-out loss first, with the constant answer.

    Raises:
        InputError: no finished run there, or none but damaged ones; with others, those are warned about and left out.
    """
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    problems: list[CultevalError] = []
    constants: dict[tuple[str, ...], Row] = {}
    for path in sorted(folder.glob(f"*/{SCORES}")):
        try:
            result = read_result(path.parent, reused=True)
        except (InputError, UsageError) as error:  # one outdated run must not take the board down
            problems.append(error)
            continue
        manifest = result.manifest
        for task in manifest.tasks:
            key = (
                task.name,
                task.country,
                manifest.model.name,
                manifest.model.dtype,
                _edition(task),
                task.constants,
                _asked(task),
            )
            spec = spec_of(task.name)
            scores = [row for row in result.scores if row.task == spec.name]
            groups[key].append(Row(f"{manifest.aligner.name} s{manifest.seed}", scores, manifest.budget))
            if key not in constants:
                answers = read(path.parent / SUBMISSION)[1][task.name]
                options = options_of(task)
                rows = score_constant(spec, answers, task.country, options)
                constants[key] = Row("constant", rows, None)
    if problems and not groups:
        raise problems[0]
    for problem in problems:
        warn(f"left out: {problem}")
    if not groups:
        raise InputError(f"{folder}: no finished runs. `culteval run` makes some; give its --out folder.")
    return [_board(key, [*rows, constants[key]]) for key, rows in groups.items()]


def _edition(task: AskedTask) -> str:
    return task.edition or spec_of(task.name).default_edition


def _asked(task: AskedTask) -> str:
    """How much was asked, where it is not the default: such rows stand on boards of their own."""
    people = f", {task.respondents} respondents" if task.respondents else ""
    return people + (f", limit {task.limit}" if task.limit else "")


def _board(key: tuple[str, ...], rows: list[Row]) -> Board:
    task, country, model, dtype, edition, constants, asked = key
    spec = spec_of(task)
    kind = f", {constants} constants" if spec.metadata.measure == "hofstede" else ""
    title = f"{spec.name}, {name_of(country)} ({model} {dtype}, edition {edition}{kind}{asked})"
    return Board(title, spec, tuple(ranked(rows, spec)))
