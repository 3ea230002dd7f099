"""A score: one number about one submission, with all that is needed to say what it means."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from .schema import Readout, SplitName


class Score(BaseModel):
    """One row of ``scores.json``.

    ``low`` and ``high`` bound a 95 % interval and are null where none is owed; ``n`` counts what would be resampled
    (respondents of a questionnaire, questions of a knowledge set). ``note`` is a label such as ``collapsed``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    country: str
    aligner: str = ""
    metric: str
    readout: Readout
    split: SplitName
    value: float
    low: float | None = None
    high: float | None = None
    n: int
    higher_is_better: bool | None
    edition: str
    constants: str
    norm: str | None = None
    wordings: tuple[str, ...]
    orders: tuple[str, ...]
    note: str | None = None
