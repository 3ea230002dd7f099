"""A column of a respondent file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Column:
    """A column as its distinct ``texts``, stripped, and each respondent's ``place`` (respondents,) among them.

    ``labels`` are the labels of its values by text, where the file has codes and labels.
    """

    texts: tuple[str, ...]
    place: np.ndarray
    labels: Mapping[str, str] = field(default_factory=dict)
