"""Hooks that stock lm-eval calls for every task here: prompts as a dataset, and metrics over all records.

``dataset_kwargs: {spec: "package:file.yaml"}`` names the spec. Metrics are functions of this module by name
(``!function culteval.tasks.hooks.w1``). Everything is computed by the code that ``culteval score`` uses, so that both
give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .answers import Answers, shares
from .cloze import byte_lengths, per_byte
from .countries import country as resolve
from .measure import MeasureOptions, measure_of
from .prompts import Prompts, ProtocolOptions, render
from .schema import SplitName
from .spec import TaskSpec, load_spec
from .verbalized import stated_answers

SETTINGS = ("spec", "country", "edition", "constants", "personas", "seed")


@lru_cache(maxsize=8)
def _spec(place: str) -> TaskSpec:
    package, _, file = place.rpartition(":")
    named = len(package) > 1 and all(part.isidentifier() for part in package.split("."))  # a drive letter is no package
    return load_spec(Path(str(files(package) / file)) if named else Path(place))


def dataset(spec: str, **metadata: Any) -> dict[str, Any]:
    """Build the prompts by split; ``metadata`` may set country, edition, constants, personas and seed."""
    from datasets import Dataset

    task = _spec(spec)
    setting = {
        "spec": spec,
        "country": resolve(metadata.get("country", task.metadata.default_country)).code,
        "edition": metadata.get("edition", task.default_edition),
        "constants": metadata.get("constants", "world"),
        "personas": int(metadata.get("personas", 0)),
        "seed": int(metadata.get("seed", 0)),
    }
    splits: dict[str, Any] = {}
    split: SplitName
    for split in ("fit", "heldout"):
        prompts = _prompts(task, split, setting)
        rows = zip(prompts.texts, prompts.choices, strict=True)
        docs = [{"text": text, "choices": list(c), "gold": 0, "row": i} | setting for i, (text, c) in enumerate(rows)]
        splits[split] = Dataset.from_list(docs)
    return splits


def process(doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """Build one record for every metric from the log-likelihoods of the options."""
    spec = _spec(doc["spec"])
    return dict.fromkeys(spec.metrics, (doc, option_mass(spec, doc["choices"], [log for log, _ in results]), None))


def process_text(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Build one record for every metric from the generated text."""
    return dict.fromkeys(_spec(doc["spec"]).metrics, (doc, [1.0] * len(doc["choices"]), results[0]))


def _prompts(spec: TaskSpec, split: SplitName, setting: dict[str, Any]) -> Prompts:
    return render(spec, split, ProtocolOptions(setting["personas"], setting["seed"]))


def option_mass(spec: TaskSpec, choices: Sequence[str], logs: Sequence[float]) -> list[float]:
    """Compute the probability of each option, or its likelihood per byte for ``cloze``, from log-likelihoods."""
    values = np.array([logs], dtype=np.float64)
    if spec.cloze:
        values = per_byte(values, byte_lengths([choices], values.shape[1]), np.array(values.shape[1:]))
    mass: list[float] = np.exp(values[0]).tolist()
    return mass


def answers_of(prompts: Prompts, masses: Sequence[Sequence[float]]) -> Answers:
    """Build the answers to prompts from the ``option_mass`` of each."""
    mass = np.zeros((1, *prompts.layout.codes.shape))
    for row, given in enumerate(masses):
        mass[0, row, : len(given)] = given
    return Answers(prompts.layout, *shares(mass))


def answers_of_texts(prompts: Prompts, texts: tuple[str, ...]) -> Answers:
    """Build the answers to prompts from the text generated for each; no probabilities are known."""
    if prompts.verbalized:
        return stated_answers(prompts.layout, texts)
    none = np.zeros((1, *prompts.layout.codes.shape))
    return Answers(prompts.layout, none, np.ones(none.shape[:2]), texts, prompts.parse(texts))


def _answers(spec: TaskSpec, records: list[Any]) -> Answers:
    """Build the answers from lm-eval's records, in the order of the prompts."""
    prompts = _prompts(spec, "heldout", records[0][0])
    if len(records) != len(prompts):
        raise InputError(f"{spec.name} needs every answer of its survey: run it without --limit.")
    records = sorted(records, key=lambda record: record[0]["row"])
    if records[0][2] is None:
        return answers_of(prompts, [record[1] for record in records])
    return answers_of_texts(prompts, tuple(record[2] for record in records))


def _aggregation(metric: str) -> Callable[[list[Any]], float]:
    def aggregate(records: list[Any]) -> float:
        setting = records[0][0]
        spec = _spec(setting["spec"])
        answers = _answers(spec, records)
        edition = None if spec.metadata.reference is None else setting["edition"]
        measure = measure_of(spec, setting["country"], MeasureOptions(edition=edition, constants=setting["constants"]))
        by_text = answers.texts is not None and not spec.verbalized
        scores = measure.score(answers, "heldout", "text" if by_text else spec.default_scoring)
        return next((score.value for score in scores if score.metric == metric), float("nan"))

    aggregate.__name__ = metric
    return aggregate


def __getattr__(name: str) -> Callable[[list[Any]], float]:
    """Return the aggregation function of a metric, by its name."""
    if name.startswith("_"):
        raise AttributeError(name)
    return _aggregation(name)
