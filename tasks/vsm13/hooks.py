"""What stock lm-eval calls for ``vsm13``: the prompts as a dataset, one record an answer, metrics over all records.

Everything is computed by the code that ``culteval score`` uses, so the two give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..answers import Answers
from ..countries import country as resolve
from ..measure import MeasureOptions, measure_of
from ..parsing import parse_code
from ..prompts import render
from ..respondents import panel
from ..spec import load_spec

SPEC = Path(__file__).with_name("vsm13.yaml")
METRICS = ("loss", "skill", "loss_reversed", "pdi", "idv", "mas", "uai", "lto", "ivr")


def dataset(**metadata: Any) -> dict[str, Any]:
    """The prompts by split; ``metadata`` may set country, edition, constants, respondents and seed."""
    from datasets import Dataset

    spec = load_spec(SPEC)
    setting = {
        "country": resolve(metadata.get("country", spec.metadata.default_country)).code,
        "edition": metadata.get("edition", spec.metadata.reference.default_edition),
        "constants": metadata.get("constants", "world"),
        "respondents": int(metadata.get("respondents", 0)),
        "seed": int(metadata.get("seed", 0)),
    }
    splits = {}
    for split in ("fit", "heldout"):
        prompts = _prompts(spec, split, setting)
        rows = zip(prompts.texts, prompts.choices, strict=True)
        docs = [{"text": text, "choices": list(c), "gold": 0, "row": i} | setting for i, (text, c) in enumerate(rows)]
        splits[split] = Dataset.from_list(docs)
    return splits


def process(doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """One record for every metric from the log-likelihoods of the options."""
    logs = np.array([log for log, _ in results], dtype=np.float64)
    return dict.fromkeys(METRICS, (doc, np.exp(logs).tolist(), None))


def process_text(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """One record for every metric from the generated text."""
    return dict.fromkeys(METRICS, (doc, [1.0] * len(doc["choices"]), results[0]))


def _prompts(spec: Any, split: str, setting: dict[str, Any]) -> Any:
    return render(spec, getattr(spec.metadata.splits, split), panel(setting["respondents"], setting["seed"], split))


def _aggregation(metric: str) -> Callable[[list[Any]], float]:
    def aggregate(records: list[Any]) -> float:
        doc = records[0][0]
        spec = load_spec(SPEC)
        prompts = _prompts(spec, "heldout", doc)
        if len(records) != len(prompts):
            raise ValueError("vsm13 needs every answer of the survey: do not use --limit")
        records = sorted(records, key=lambda record: record[0]["row"])
        mass = np.array([record[1] for record in records])[None]
        texts = tuple(record[2] for record in records)
        as_text = texts[0] is not None
        codes = [parse_code(t, c) for t, c in zip(texts, prompts.choices, strict=True)] if as_text else None
        answers = Answers(
            prompts.layout,
            mass / mass.sum(-1, keepdims=True),
            np.clip(1 - mass.sum(-1), 0, 1),
            texts if as_text else None,
            None if codes is None else np.array(codes),
        )
        measure = measure_of(spec, doc["country"], MeasureOptions(edition=doc["edition"], constants=doc["constants"]))
        scores = measure.score(answers, "heldout", "text" if as_text else "expected")
        return next((score.value for score in scores if score.metric == metric), float("nan"))

    aggregate.__name__ = metric
    return aggregate


loss, skill, loss_reversed, pdi, idv, mas, uai, lto, ivr = map(_aggregation, METRICS)
