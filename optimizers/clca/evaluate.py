"""The published evaluation (Liu et al. 2025, section 4): personas as system prompts, greedy whole numbers as answers.

44 items of the World Values Survey, each asked once of every persona; what holds no valid number, refusals among it, is
an answer of its own kind, which nobody in the country gave. The survey's respondents are not ours to give, so accuracy
is the expected one: how often an answer is that of a respondent drawn at random.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import RunError
from ...harness.aligned import AlignedModel
from ...harness.files import write_json
from ...harness.registry import spec_of
from ...harness.statistics import compared
from ...tasks.answers import UNPARSED, Answers
from ...tasks.measure import MeasureOptions
from ...tasks.metrics.accuracy import Accuracy
from ...tasks.metrics.shares import BENT, Shares, jensen_shannon, kl_clca, smoothed_kl
from ...tasks.prompts import Asking, Prompts, render
from ...tasks.respondents import panel
from ...tasks.sample import Metric, Sample, standard_error
from ...tasks.schema import SplitName, Strict
from .rows import read_rows, write_rows
from .writer import Heard, LocalWriter, Style

if TYPE_CHECKING:
    from ...harness.models import LanguageModel

TASK, GENERAL = "wvs_text", "general"
SPLIT: SplitName = "heldout"
PERSONAS = {"laptop": 50, "paper": 1000}


class Asked(Strict):
    """What a model wrote to a persona's questions, in the order of ``questions``."""

    persona: str
    texts: tuple[str, ...]


class Replies(NamedTuple):
    """What one model answered: a row a persona, and the small task of general ability."""

    people: list[Asked]
    general: Answers


def questions() -> Prompts:
    """The 44 items, each once: the first held-out wording, options in natural order, no persona."""
    spec = spec_of(TASK)
    whole = render(spec, SPLIT, Asking(limit=1))
    return whole.take(whole.layout.where(whole.layout.wordings, ("natural",)))


def ask(model_of: Callable[[], LanguageModel], personas: int, seed: int, folder: Path, heard: Heard) -> Replies:
    """Ask a model, or read what it answered before; a file grows persona by persona.

    Raises:
        RunError: ``folder`` has answers of other personas.
    """
    people = panel(spec_of(TASK), personas, seed, SPLIT)
    path, general = folder / "answers.jsonl", folder / "general.json"
    done = read_rows(path, Asked) if path.exists() else []
    if [each.persona for each in done] != list(people[: len(done)]):
        raise RunError(f"{path}: answers of other personas. Give the same --personas and --seed, or remove it.")
    if len(done) < len(people):
        prompts, writer = questions(), LocalWriter(model_of(), batch=len(questions()))
        style = Style(spec_of(TASK).most_tokens, top_p=0)
        for number, persona in enumerate(people[len(done) :], start=len(done)):
            heard(number, len(people))
            chats = [
                [{"role": "system", "content": persona}, {"role": "user", "content": text}] for text in prompts.texts
            ]
            texts = [text.partition("\n")[0] for text in writer.write(chats, style, 0)]
            done.append(Asked(persona=persona, texts=tuple(texts)))
            write_rows(path, done)
    asked = render(spec_of(GENERAL), SPLIT)
    if not general.exists():
        write_json(general, AlignedModel(model_of()).answer(asked).probs[0].tolist())
    probs = np.array(json.loads(general.read_text(encoding="utf-8")))[None]
    return Replies(done, Answers(asked.layout, probs, np.zeros(probs.shape[:2])))


class Country:
    """The published metrics against one country's answer shares."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.measure = Shares(spec_of(TASK), code, MeasureOptions())

    @cached_property
    def targets(self) -> list[np.ndarray]:
        """The country's shares of each item that it was asked, and of answers that are none, which is 0."""
        return [np.append(self.measure.target[item], 0.0) for item in self.measure.items]

    def sample(self, people: Sequence[Asked]) -> Sample:
        """How each persona's answers are spread over the options and the bucket of what is none."""
        prompts, columns = questions(), []
        answered = np.array([prompts.parse(each.texts) for each in people])
        row_of = {int(item): row for row, item in enumerate(prompts.layout.item)}
        for item, target in zip(self.measure.items, self.targets, strict=True):
            row, counted = row_of[item], np.unique(self.measure.codes[item])
            codes = self.measure.codes[item].tolist()
            merged = dict(zip(prompts.layout.options[row], codes, strict=True)) | {UNPARSED: UNPARSED}
            read = [merged[code] for code in answered[:, row].tolist()]
            place = [len(counted) if code == UNPARSED else int(np.searchsorted(counted, code)) for code in read]
            columns.append(np.eye(len(target))[place])
        sums = np.concatenate(columns, axis=1)
        cells = np.arange(sums.shape[1])
        metrics = {}
        for name in METRICS:
            bent = None if name in _LINEAR else BENT
            metrics[name] = Metric(cells, partial(self._mean, name), name == "accuracy", bent=bent)
        return Sample("respondents", np.arange(len(people)), sums, np.ones_like(sums), metrics)

    def _mean(self, metric: str, means: np.ndarray) -> np.ndarray:
        """Mean (...,) over items of a metric of shares (..., cells)."""
        values, start = [], 0
        for target in self.targets:
            values.append(METRICS[metric](means[..., start : start + len(target)], target))
            start += len(target)
        return np.mean(values, axis=0)


_LINEAR = ("accuracy", "none")
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {  # of shares (..., options and none)
    "kl": smoothed_kl,
    "kl_clca": kl_clca,
    "js": jensen_shannon,
    "accuracy": lambda p, q: p @ q,
    "none": lambda p, q: p[..., -1],
}


def samples(country: Country, replies: Replies, names: Sequence[str] = tuple(METRICS)) -> tuple[Sample, Sample]:
    """What some metrics of a model rest on: personas, and the questions of general ability."""
    people = country.sample(replies.people)
    ability = Accuracy(spec_of(GENERAL), country.code, MeasureOptions()).sample(replies.general, "argmax")
    return replace(people, metrics={name: people.metrics[name] for name in names}), ability


def values(country: Country, replies: Replies) -> dict[str, float]:
    """Every metric of a model against a country; ``general`` is its accuracy on general questions."""
    people, ability = samples(country, replies)
    return {name: people.value(name) for name in people.metrics} | {GENERAL: ability.value("accuracy")}


def change(
    country: Country, a: Replies, b: Replies, rng: np.random.Generator, names: Sequence[str] = tuple(METRICS)
) -> list[dict[str, Any]]:
    """Some metrics of ``b`` and ``a``: the difference b - a, its standard error and p over the same personas.

    The test exchanges the answers of both persona by persona (of ``general``: question by question); the error is the
    jackknife's.
    """
    rows = []
    for one, two in zip(samples(country, a, names), samples(country, b, names), strict=True):
        for row in compared(two, one, rng, paired=True):
            name = row["metric"]
            error = standard_error(two.without_one(name) - one.without_one(name)) if len(one) > 1 else None
            row = {"metric": GENERAL if one.unit == "questions" else name, "before": row["b"], "after": row["a"]} | {
                key: row[key] for key in ("difference", "p", "n", "unit", "note", "higher_is_better")
            }
            rows.append(row | {"standard_error": error})
    return rows
