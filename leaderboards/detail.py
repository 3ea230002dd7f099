"""What the page of one submission shows: where it comes from, all its scores, its answers item by item."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..harness.scoring import Shelf, options_of
from ..harness.submission import AskedTask, Manifest
from ..tasks.answers import Answers
from ..tasks.calibration import is_free
from ..tasks.items import Questions, Survey
from ..tasks.metrics.common import group_means
from ..tasks.metrics.shares import Shares
from ..tasks.prompts import of_split
from ..tasks.spec import OWN_EDITION, TaskSpec
from .collect import Entry

MOST_SHOWN = 400  # characters of a generated answer
MOST_ITEMS = 2_000  # of a task on a page


def visible(data: Any) -> Any:
    """The same data with what cannot be seen in its strings written out: controls, marks that turn the reading."""
    if isinstance(data, str):
        return data if data.isprintable() else "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in data)
    if isinstance(data, Mapping):
        return {visible(key): visible(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [visible(value) for value in data]
    return data


def page(entry: Entry, answers: Mapping[str, Answers], shelf: Shelf) -> dict[str, Any]:
    """All of a submission that its page shows, as JSON data."""
    scores = [
        [s.task, s.metric, s.readout, s.split, number(s.value), number(s.low), number(s.high), s.n, s.note]
        for s in entry.scores
    ]
    return {
        "name": entry.name,
        "manifest": visible(entry.manifest.model_dump(mode="json")),
        "differs": entry.differs,
        "command": visible(command(entry.manifest)),
        "scores": scores,
        "answers": {name: item_answers(shelf.spec(name), given) for name, given in answers.items()},
    }


def number(value: float | None) -> float | None:
    """Six significant digits: more than is shown, less than takes room."""
    return None if value is None else float(f"{value:.6g}")


def command(manifest: Manifest) -> str:
    """The command that makes such a submission, put together from the manifest's fields."""
    words = ["culteval", "run", "--aligner", manifest.aligner.name]
    for task in manifest.tasks:
        words += ["--task", task.name]
    fitted, first = manifest.fitted, manifest.tasks[0]
    if fitted:
        for name in fitted.tasks:
            words += ["--fit", f"{name}:{fitted.country}"]
        words += ["--readout", fitted.readout, "--norm", fitted.norm]
    words += ["--country", manifest.country, "--model", manifest.model.name, "--dtype", manifest.model.dtype]
    budget = manifest.budget
    if budget.item_forwards and budget.survey_evaluations:
        per_survey = budget.item_forwards / budget.survey_evaluations
        words += ["--budget", str(round(budget.item_forwards_allowed / per_survey))]
    words += ["--seed", str(manifest.seed), "--constants", first.constants]
    if first.edition and first.edition != OWN_EDITION:
        words += ["--edition", first.edition]
    if first.respondents:
        words += ["--respondents", str(first.respondents)]
    if first.limit:
        words += ["--limit", str(first.limit)]
    words += ["--calibrate"] * first.calibrated
    for key, value in sorted(manifest.aligner.settings.items()):
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)


def item_answers(spec: TaskSpec, answers: Answers) -> dict[str, Any]:
    """Mean probability of each option, by split and item; the first text of each open question."""
    free = is_free(answers)
    answers = answers.take(~free) if free.any() else answers
    layout, found = answers.layout, {}
    for split in spec.metadata.splits.named:
        rows = of_split(spec, layout, split)
        means = group_means(answers.probs[0, rows], layout.item[rows], len(layout.items))
        found[split] = {
            spec_id: [round(float(p), 4) for p in means[i, : len(spec.items.codes(spec_id))]]
            for i, spec_id in enumerate(spec.items.ids[:MOST_ITEMS])
            if np.isfinite(means[i]).all()
        }
    texts: dict[str, str] = {}
    for row, text in enumerate(answers.texts or ()):
        texts.setdefault(layout.items[layout.item[row]], visible(text[:MOST_SHOWN]))
    return {"shares": found, "texts": texts}


def items(spec: TaskSpec, asked: AskedTask, shelf: Shelf) -> list[dict[str, Any]]:
    """What the items of a board's task ask, and what people of the country answer.

    Of data that users import, only the names of the items: their texts and figures may not be handed on.
    """
    measure = shelf.measure(spec, asked.country, options_of(asked))
    own = spec.metadata.imported is None
    reference = spec.metadata.reference
    shipped = reference is not None and (asked.edition or spec.default_edition) in reference.editions
    survey = measure if isinstance(measure, Shares) and shipped else None
    rows = []
    for item in spec.items.ids[:MOST_ITEMS]:
        codes = spec.items.codes(item)
        text, options = _text(spec, item) if own else (item, [str(code) for code in codes])
        row: dict[str, Any] = {"id": item, "text": text, "options": options}
        if survey is not None and item in survey.reference.shares:
            row["people"] = [round(survey.reference.shares[item].get(code, 0.0), 4) for code in codes]
            counts_as = survey.codes[spec.items.ids.index(item)].tolist()
            if counts_as != list(codes):  # the country was asked a shorter scale
                row["as"] = [codes.index(code) for code in counts_as]
        if isinstance(spec.items, Questions) and own and spec.items.by_id[item].right:
            row["right"] = [codes.index(code) for code in spec.items.by_id[item].right]
        rows.append(row)
    return rows


def _text(spec: TaskSpec, item: str) -> tuple[str, list[str]]:
    """An item's question and the labels of its options, in the first held-out wording."""
    if isinstance(spec.items, Survey):
        words = spec.items.wordings[spec.metadata.splits.heldout.wordings[0]]
        key = spec.items.items[item]
        stem = f"{words.stems[key.stem]} " if key.stem else ""
        labels = zip(spec.items.codes(item), words.scales[key.scale], strict=True)
        return stem + words.items[item], [label or str(code) for code, label in labels]
    assert isinstance(spec.items, Questions)
    question = spec.items.by_id[item]
    return question.question, list(question.options)
