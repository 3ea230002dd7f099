"""Boards from run folders: collect, group by what is comparable, rank."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..harness.registry import spec_path
from ..harness.report import Row
from ..harness.run import SCORES, SUBMISSION, read_result
from ..harness.scoring import score_constant
from ..harness.submission import AskedTask, read
from ..tasks.countries import name_of
from ..tasks.measure import MeasureOptions
from ..tasks.spec import load_spec


@dataclass(frozen=True)
class Board:
    """Rows that may be compared: one task, country, model, edition and kind of constants."""

    title: str
    rows: tuple[Row, ...]


def boards(folder: Path) -> list[Board]:
    """All boards of the finished runs under a folder, the best held-out loss first, with the constant answer.

    Raises:
        InputError: no finished run there, or a damaged one.
    """
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    constants: dict[tuple[str, ...], Row] = {}
    for path in sorted(folder.glob(f"*/{SCORES}")):
        result = read_result(path.parent, reused=True)
        manifest = result.manifest
        for task in manifest.tasks:
            key = (
                task.name,
                task.country,
                manifest.model.name,
                manifest.model.dtype,
                _edition(task),
                task.constants,
            )
            scores = [row for row in result.scores if row.task == task.name]
            label = f"{manifest.aligner.name} s{manifest.seed}"
            groups[key].append(Row(label, task.name, task.country, scores, manifest.budget))
            if key not in constants:
                answers = read(path.parent / SUBMISSION)[1][task.name]
                options = MeasureOptions(edition=task.edition, constants=task.constants)
                rows = score_constant(load_spec(spec_path(task.name)), answers, task.country, options)
                constants[key] = Row("constant", task.name, task.country, rows, None)
    if not groups:
        raise InputError(f"{folder}: no finished runs. `culteval run` makes some; give its --out folder.")
    return [_board(key, [*rows, constants[key]]) for key, rows in groups.items()]


def _edition(task: AskedTask) -> str:
    return task.edition or load_spec(spec_path(task.name)).metadata.reference.default_edition


def _board(key: tuple[str, ...], rows: list[Row]) -> Board:
    task, country, model, dtype, edition, constants = key
    title = f"{task}, {name_of(country)} ({model} {dtype}, edition {edition}, {constants} constants)"
    return Board(title, tuple(sorted(rows, key=Row.heldout_loss)))
