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
from .countries import country as resolve
from .extraction import parse_code
from .measure import MeasureOptions, measure_of
from .prompts import Prompts, ProtocolOptions, render
from .schema import SplitName
from .spec import TaskSpec, load_spec

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
    logs = np.array([log for log, _ in results], dtype=np.float64)
    return dict.fromkeys(_spec(doc["spec"]).metrics, (doc, np.exp(logs).tolist(), None))


def process_text(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Build one record for every metric from the generated text."""
    return dict.fromkeys(_spec(doc["spec"]).metrics, (doc, [1.0] * len(doc["choices"]), results[0]))


def _prompts(spec: TaskSpec, split: SplitName, setting: dict[str, Any]) -> Prompts:
    return render(spec, split, ProtocolOptions(setting["personas"], setting["seed"]))


def _answers(spec: TaskSpec, records: list[Any]) -> Answers:
    """Build the answers from lm-eval's records, in the order of the prompts."""
    prompts = _prompts(spec, "heldout", records[0][0])
    if len(records) != len(prompts):
        raise InputError(f"{spec.name} needs every answer of its survey: run it without --limit.")
    records = sorted(records, key=lambda record: record[0]["row"])
    mass = np.zeros((1, *prompts.layout.codes.shape))
    for row, record in enumerate(records):
        mass[0, row, : len(record[1])] = record[1]
    probs, outside = shares(mass)
    if records[0][2] is None:
        return Answers(prompts.layout, probs, outside)
    texts = tuple(record[2] for record in records)
    codes = (map(int, row[:n]) for row, n in zip(prompts.layout.codes, prompts.layout.widths, strict=True))
    parsed = [parse_code(*cell) for cell in zip(texts, prompts.choices, map(tuple, codes), strict=True)]
    return Answers(prompts.layout, probs, outside, texts, np.array(parsed))


def _aggregation(metric: str) -> Callable[[list[Any]], float]:
    def aggregate(records: list[Any]) -> float:
        setting = records[0][0]
        spec = _spec(setting["spec"])
        answers = _answers(spec, records)
        edition = None if spec.metadata.reference is None else setting["edition"]
        measure = measure_of(spec, setting["country"], MeasureOptions(edition=edition, constants=setting["constants"]))
        scores = measure.score(answers, "heldout", "text" if answers.texts is not None else spec.default_scoring)
        return next((score.value for score in scores if score.metric == metric), float("nan"))

    aggregate.__name__ = metric
    return aggregate


def __getattr__(name: str) -> Callable[[list[Any]], float]:
    """Return the aggregation function of a metric, by its name."""
    if name.startswith("_"):
        raise AttributeError(name)
    return _aggregation(name)
