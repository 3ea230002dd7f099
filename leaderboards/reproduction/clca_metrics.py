"""The published evaluation (Liu et al. 2025, section 4): personas as system prompts, greedy whole numbers as answers.

In addition to the paper, the probabilities of the options in the same chats: a small model may write the same number
for every question, and then only probabilities show the effect of training.

44 items of the World Values Survey, each presented once to every persona; a text without a valid number, including
refusals, is a separate category with share zero in the country. The survey's respondents may not be distributed, so
accuracy is the expected one: the probability that an answer equals that of a random respondent.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import RunError
from ...harness.analysis.significance import compared
from ...harness.engine.tokenize import Encoded, encode
from ...harness.registry import spec_of
from ...harness.util.atomic_io import replacing, write_json
from ...optimizers.clca.rows import read_rows, write_rows
from ...optimizers.writing.writer import Heard, LocalWriter, Style
from ...tasks.answers import UNPARSED, Answers, Layout
from ...tasks.measure import MeasureOptions
from ...tasks.metrics.accuracy import Accuracy
from ...tasks.metrics.distribution_distances import jensen_shannon, kl_clca, smoothed_kl
from ...tasks.metrics.shares import BIASED, Shares
from ...tasks.personas import draw_personas
from ...tasks.prompts import Prompts, ProtocolOptions, render
from ...tasks.sample import Metric, Sample, standard_error
from ...tasks.schema import SplitName, Strict
from .clca_tables import HABITS

if TYPE_CHECKING:
    from ...harness.engine.packed import Engine
    from ...harness.models.local import LanguageModel

TASK, GENERAL = "wvs_text", "general"
SPLIT: SplitName = "heldout"
PERSONAS = {"laptop": 50, "paper": 1000}
ANSWERS, ABILITY = "answers.jsonl", "general.json"


class Asked(Strict):
    """A model's answers to a persona's questions, in the order of ``questions``.

    ``probs`` has for each question the probability of every option, in code order, among the options alone.
    """

    persona: str
    texts: tuple[str, ...]
    probs: tuple[tuple[float, ...], ...]


class Replies(NamedTuple):
    """One model's answers: one row per persona, and the small task of general ability."""

    people: list[Asked]
    general: Answers


def questions() -> Prompts:
    """Return the 44 items, each once: the first held-out paraphrase, options in natural order, no persona."""
    spec = spec_of(TASK)
    whole = render(spec, SPLIT, ProtocolOptions(limit=1))
    return whole.take(whole.layout.where(whole.layout.paraphrases, ("natural",)))


def ask(model_of: Callable[[], LanguageModel], personas: int, seed: int, folder: Path, heard: Heard) -> Replies:
    """Evaluate a model, or read its earlier answers; a file grows by persona. The model is loaded at most once.

    Raises:
        RunError: ``folder`` has answers of other personas.
    """
    people, model_of = draw_personas(spec_of(TASK), personas, seed, SPLIT), cache(model_of)
    path, general = folder / ANSWERS, folder / ABILITY
    done = read_rows(path, Asked) if path.exists() else []
    if [each.persona for each in done] != list(people[: len(done)]):
        raise RunError(f"{path}: answers of other personas. Give the same --personas and --seed, or remove it.")
    prompts = questions()
    for number, persona in enumerate(people[len(done) :], start=len(done)):
        heard(number, len(people))
        done.append(_asked(model_of(), prompts, persona))
        write_rows(path, done)
    heard(len(people), len(people))
    asked = render(spec_of(GENERAL), SPLIT)
    if not general.exists():
        write_json(general, model_of().answer(asked).probs[0].tolist())
    probs = np.array(json.loads(general.read_text(encoding="utf-8")))[None]
    return Replies(done, Answers(asked.layout, probs, np.zeros(probs.shape[:2])))


def _asked(model: LanguageModel, prompts: Prompts, persona: str) -> Asked:
    from ...harness.models.greedy import packs_text

    chats = [[{"role": "system", "content": persona}, {"role": "user", "content": text}] for text in prompts.texts]
    # An option's tokens are the same after every opened answer.
    encoded = Encoded([model.chat.chat_ids(chat) for chat in chats], encode(model.chat, prompts).options)
    most = spec_of(TASK).most_tokens
    if model.engine is not None and packs_text(model, None):
        answers, texts = _read_once(model, model.engine, encoded, prompts.layout, most)
    else:
        writer = LocalWriter(model, batch=len(chats))
        answers, texts = model.weigh(encoded, prompts.layout), writer.write(chats, Style(most, top_p=0), 0)
    probs = answers.probs[0].round(6)
    return Asked(
        persona=persona,
        texts=tuple(text.partition("\n")[0] for text in texts),
        probs=tuple(tuple(row[:width].tolist()) for row, width in zip(probs, prompts.layout.widths, strict=True)),
    )


def _read_once(
    model: LanguageModel, engine: Engine, encoded: Encoded, layout: Layout, most: int
) -> tuple[Answers, list[str]]:
    """Compute option probabilities and greedy texts of chats that are read once."""
    from ...harness.engine.generate import Sampling, generate_weighed
    from ...harness.models.local import as_answers

    with model.at_work():
        written, logs = generate_weighed(engine, encoded, Sampling(most, ends=model.ends))
    model.tokens += model.cost_of(encoded) + sum(map(len, written))
    texts = [model.tokenizer.decode(row, skip_special_tokens=True).strip() for row in written]
    return as_answers(layout, logs[None].cpu().double().numpy()), texts


def take_over(source: Path, target: Path) -> None:
    """Copy the answers of an equal model, if there are none yet."""
    for name in (ANSWERS, ABILITY):
        if (source / name).exists() and not (target / name).exists():
            with replacing(target / name) as temporary:
                shutil.copyfile(source / name, temporary)


def habits(replies: Replies, naive: Replies) -> dict[str, float]:
    """Compute statistics of a model's answers that do not depend on a country, compared with the bare model's answers.

    ``modal_share``: share of the modal answer over all personas and questions, texts without a number included;
    ``changed_answers``: number of answers that differ from the bare model's; ``total_variation``: between the options'
    probabilities of both, mean over personas and questions.
    """
    prompts = questions()
    own, bare = (np.array([prompts.parse(each.texts) for each in mine.people]) for mine in (replies, naive))
    apart = [
        abs(np.subtract(p, q)).sum() / 2
        for one, other in zip(replies.people, naive.people, strict=True)
        for p, q in zip(one.probs, other.probs, strict=True)
    ]
    commonest = float(np.unique(own, return_counts=True)[1].max() / own.size)
    return {
        "modal_share": commonest,
        "changed_answers": float((own != bare).sum()),
        "total_variation": float(np.mean(apart)),
    }


class Country:
    """The published metrics against one country's answer shares."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.measure = Shares(spec_of(TASK), code, MeasureOptions())

    @cached_property
    def targets(self) -> list[np.ndarray]:
        """Return the country's shares of each item asked there, followed by 0 for answers without a valid number."""
        return [np.append(self.measure.target[item], 0.0) for item in self.measure.items]

    def sample(self, people: Sequence[Asked]) -> Sample:
        """Return each persona's distribution over the options and the category without a number.

        First from texts, then from probabilities, whose last category is empty.
        """
        sums = np.concatenate([self._said(people), self._weighed(people)], axis=1)
        cells = np.split(np.arange(sums.shape[1]), 2)
        metrics = {}
        for name, distance in METRICS.items():
            biased = None if distance in LINEAR else BIASED
            own = cells[name in WEIGHED]
            metrics[name] = Metric(own, partial(self._mean, distance), distance is _hit, biased=biased)
        return Sample("personas", np.arange(len(people)), sums, np.ones_like(sums), metrics)

    def _said(self, people: Sequence[Asked]) -> np.ndarray:
        """Return one for each persona's answer, zero for the others: (personas, cells)."""
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
        return np.concatenate(columns, axis=1)

    def _weighed(self, people: Sequence[Asked]) -> np.ndarray:
        """Return the probability of each answer: (personas, cells)."""
        row_of, columns = {int(item): row for row, item in enumerate(questions().layout.item)}, []
        for item, target in zip(self.measure.items, self.targets, strict=True):
            place = np.searchsorted(np.unique(self.measure.codes[item]), self.measure.codes[item])
            probs = np.array([each.probs[row_of[item]] for each in people])
            columns.append(probs @ np.eye(len(target))[place])
        return np.concatenate(columns, axis=1)

    def _mean(self, metric: _Distance, means: np.ndarray) -> np.ndarray:
        """Compute the mean (...,) over items of a metric of shares (..., cells)."""
        values, start = [], 0
        for target in self.targets:
            values.append(metric(means[..., start : start + len(target)], target))
            start += len(target)
        return np.mean(values, axis=0)


def _hit(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return p @ q


def _none(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return p[..., -1]


_Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]
LINEAR = (_hit, _none)
WEIGHED: dict[str, _Distance] = {  # of probabilities, which the paper does not use
    "kl_probs": smoothed_kl,
    "js_probs": jensen_shannon,
    "accuracy_probs": _hit,
}
METRICS: dict[str, _Distance] = {  # of shares (..., options and none)
    "kl": smoothed_kl,
    "kl_clca": kl_clca,
    "js": jensen_shannon,
    "accuracy": _hit,
    "none": _none,
    **WEIGHED,
}


def samples(country: Country, replies: Replies, names: Sequence[str] = tuple(METRICS)) -> tuple[Sample, Sample]:
    """Return the units of some metrics of a model: personas, and the questions of general ability."""
    people = country.sample(replies.people)
    ability = Accuracy(spec_of(GENERAL), country.code, MeasureOptions()).sample(replies.general, "argmax")
    return replace(people, metrics={name: people.metrics[name] for name in names}), ability


def values(country: Country, replies: Replies) -> dict[str, float]:
    """Compute every metric of a model against a country; ``general`` is its accuracy on general questions."""
    people, ability = samples(country, replies)
    return {name: people.value(name) for name in people.metrics} | {GENERAL: ability.value("accuracy")}


def change(
    country: Country, a: Replies, b: Replies, rng: np.random.Generator, names: Sequence[str] = tuple(METRICS)
) -> list[dict[str, Any]]:
    """Compare some metrics of ``b`` and ``a``: the difference b - a, its standard error and p over the same personas.

    The test exchanges the answers of both by persona (for ``general`` by question); the error is the jackknife's.
    ``habits`` come last, untested.
    """
    rows: list[dict[str, Any]] = []
    for one, two in zip(samples(country, a, names), samples(country, b, names), strict=True):
        for row in compared(two, one, rng, paired=True):
            name = row["metric"]
            error = standard_error(two.without_one(name) - one.without_one(name)) if len(one) > 1 else None
            row = {"metric": GENERAL if one.unit == "questions" else name, "before": row["b"], "after": row["a"]} | {
                key: row[key] for key in ("difference", "p", "n", "unit", "note", "higher_is_better")
            }
            rows.append(row | {"standard_error": error})
    before, after = habits(a, a), habits(b, a)
    untested = {"standard_error": None, "p": None, "unit": "answers", "note": None, "higher_is_better": None}
    n = len(a.people) * len(questions())
    rows += [
        {"metric": name, "before": before[name], "after": after[name], "difference": after[name] - before[name], "n": n}
        | untested
        for name in HABITS
    ]
    return rows
