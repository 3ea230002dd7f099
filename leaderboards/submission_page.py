"""Collect the data of a submission's page: provenance, all scores, answers by item."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..harness.model_info import COMMIT, ModelInfo
from ..harness.providers.settings import is_remote
from ..harness.registry import spec_of
from ..harness.runs.config import assignments
from ..harness.scoring.score import TaskCache
from ..harness.submissions.manifest import AskedTask, Manifest
from ..tasks.answers import Answers
from ..tasks.calibration import is_free
from ..tasks.chat_options import DEFAULT_CHAT, THINKING_TOKENS, ChatOptions
from ..tasks.items import Questions, Survey
from ..tasks.metrics.common import group_means
from ..tasks.metrics.shares import Shares
from ..tasks.prompts import of_split
from ..tasks.spec import OWN_EDITION, TaskSpec
from .entries import Entry

MOST_SHOWN = 400  # characters of a generated answer
MOST_ITEMS = 2_000  # of a task on a page


def visible(data: Any) -> Any:
    """Return data with invisible characters of strings escaped, such as control and direction characters."""
    if isinstance(data, str):
        return data if data.isprintable() else "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in data)
    if isinstance(data, Mapping):
        return {visible(key): visible(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [visible(value) for value in data]
    return data


def page(entry: Entry, answers: Mapping[str, Answers], shelf: TaskCache) -> dict[str, Any]:
    """Return the data of a submission's page as JSON data."""
    scores = [
        [s.task, s.metric, s.scoring, s.split, number(s.value), number(s.low), number(s.high), s.n, s.note]
        for s in entry.scores
    ]
    return {
        "name": entry.name,
        "manifest": visible(entry.manifest.model_dump(mode="json")),
        "differs": entry.differs,
        "command": visible(command(entry.manifest, shelf.spec)),
        "scores": scores,
        "answers": {name: item_answers(shelf.spec(name), given) for name, given in answers.items()},
    }


def number(value: float | None) -> float | None:
    """Round to six significant digits, to keep pages small."""
    return None if value is None else float(f"{value:.6g}")


def command(manifest: Manifest, specs: Callable[[str], TaskSpec] = spec_of) -> str:
    """Return the command that repeats a submission, made from the fields of the manifest.

    If the model had an adapter, ``--adapter`` names a folder that the user has to provide.
    """
    words = ["culteval", "run", "--aligner", manifest.aligner.name]
    for task in manifest.tasks:
        words += ["--task", task.name]
    fitted, first, budget = manifest.fitted, manifest.tasks[0], manifest.budget
    if fitted:
        for name in fitted.tasks:
            words += ["--fit", f"{name}:{fitted.country}"]
        words += ["--scoring", fitted.scoring, "--norm", fitted.norm]
        words += ["--objective", fitted.objective] if fitted.objective != "task" else []
    words += ["--country", manifest.country, *_model_flags(manifest.model)]
    if budget.item_forwards or not budget.item_forwards_allowed:
        surveys = budget.survey_evaluations / (budget.item_forwards or 1)
        words += ["--budget", f"{budget.item_forwards_allowed * surveys:.0f}"]
    words += ["--seed", str(manifest.seed), "--constants", first.constants, *_edition_flag(manifest.tasks, specs)]
    if first.personas:
        words += ["--personas", str(first.personas)]
    if first.limit:
        words += ["--limit", str(first.limit)]
    words += ["--calibrate"] * first.calibrated
    for assignment in assignments(manifest.aligner.settings):
        words += ["--set", assignment]
    return shlex.join(words)


def _model_flags(model: ModelInfo) -> list[str]:
    """Return the flags of a model: only the name for an endpoint; a revision only if it is a commit of a hub."""
    words = ["--model", model.name]
    if is_remote(model.name):
        return words
    words += ["--dtype", model.dtype]
    if model.device != "cpu":
        words += ["--device", model.device]
    if model.threads:
        words += ["--threads", str(model.threads)]
    if COMMIT.fullmatch(model.revision):
        words += ["--revision", model.revision]
    if model.adapter_sha256:
        words += ["--adapter", f"adapter-{model.adapter_sha256[:10]}"]
    return words + _chat_flags(model.chat or DEFAULT_CHAT)


def _chat_flags(chat: ChatOptions) -> list[str]:
    """Return the flags of chat options; the user has to provide a template file."""
    given = [f"system={chat.system}"] if chat.system else []
    if chat.template is not None:
        given.append(f"template={'template.jinja' if chat.template else 'none'}")
    given += assignments(chat.arguments)
    if chat.thinking_tokens != THINKING_TOKENS:
        given.append(f"thinking_tokens={chat.thinking_tokens}")
    return [word for text in given for word in ("--chat", text)]


def _edition_flag(tasks: Iterable[AskedTask], specs: Callable[[str], TaskSpec]) -> list[str]:
    """Return the flag of an edition that is not the default; all tasks of a run share it."""
    named = [(task.edition, specs(task.name)) for task in tasks if task.edition not in (None, OWN_EDITION)]
    editions = {edition for edition, _ in named if edition is not None}
    if len(editions) != 1 or all(edition == spec.default_edition for edition, spec in named):
        return []
    return ["--edition", *editions]


def item_answers(spec: TaskSpec, answers: Answers) -> dict[str, Any]:
    """Return mean option probabilities by split and item, and the first text of each open question."""
    free = is_free(answers.layout)
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


def items(spec: TaskSpec, asked: AskedTask, shelf: TaskCache) -> list[dict[str, Any]]:
    """Return questions, options and the country's answer shares for the items of a board's task.

    Of imported data only item names: their terms forbid publishing texts and figures.
    """
    measure = shelf.measure(spec, asked.country, asked.options)
    own = spec.metadata.imported is None
    shipped = (asked.edition or spec.default_edition) in spec.editions
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
    """Return the question and option labels of an item, in the first held-out paraphrase."""
    if isinstance(spec.items, Survey):
        words = spec.items.paraphrases[spec.metadata.splits.heldout.paraphrases[0]]
        key = spec.items.items[item]
        stem = f"{words.stems[key.stem]} " if key.stem else ""
        labels = zip(spec.items.codes(item), words.scales[key.scale], strict=True)
        return stem + words.items[item], [label or str(code) for code, label in labels]
    assert isinstance(spec.items, Questions)
    question = spec.items.by_id[item]
    return question.question, list(question.options)
