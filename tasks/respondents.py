"""Panels of synthetic respondents: drawn from a seed, equal across countries, never with a nationality."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .schema import SplitName
from .spec import read_yaml


def panel(size: int, seed: int, split: SplitName) -> tuple[str, ...]:
    """``size`` persona sentences; the respondents of ``fit`` and ``heldout`` are different people.

    Shares are in ``respondents.yaml``; no respondent (``size`` 0) is one answer without a persona.
    """
    if size == 0:
        return ()
    data = read_yaml(Path(__file__).with_name("respondents.yaml"))
    rng = np.random.default_rng([seed, ("fit", "heldout").index(split)])
    low, high = data["age"]
    columns = {"age": rng.integers(low, high + 1, size)}
    for name in ("gender", "education", "job"):
        columns[name] = rng.choice(list(data[name]), size, p=list(data[name].values()))
    return tuple(data["text"].format(**{key: value[i] for key, value in columns.items()}) for i in range(size))
