"""Base class of aligners and of their settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from ...errors import UsageError
from ..models.aligned import AlignedModel
from ..registry import find
from .budget import Budget
from .checkpoint import Checkpoint
from .objective import Objective

if TYPE_CHECKING:
    from ..models.local import LanguageModel


class Settings(BaseModel):
    """Base class of every aligner's settings: typed, validated, set by ``--set key=value``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


CANDIDATE_COST = (  # ``cost`` in the card of a search
    "one item forward a candidate and fitted prompt: two survey evaluations a candidate on `vsm13`"
)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What one must know to choose an aligner, beside its docstring, which says in two sentences what it does.

    ``source``: the paper; ``needs``: reference figures, losses, gradients, training; ``cost``: in item forwards;
    ``gives``: what it returns; ``limits``: what was seen to go wrong, and when not to use it.
    ``docs/method-cards.md`` is made from them.
    """

    source: str
    needs: str
    cost: str
    gives: str
    limits: str


AnySettings = Settings  # in the body of an aligner the name ``Settings`` is that of its own class


class Aligner(ABC):
    """Method that aligns a model to a country's culture within a budget.

    ``summary`` is one line for ``culteval ls aligners``; ``card`` is the method card. ``budgeted`` says whether the
    aligner searches, so that a budget applies. ``needs_weights`` is False for an aligner that works with text alone:
    only such aligners can align a model behind an endpoint. ``configs`` are YAML files of settings by their names for
    ``--config``. The ``rng`` of ``align`` must be the only source of randomness.
    """

    Settings: ClassVar[type[AnySettings]] = AnySettings
    summary: ClassVar[str] = ""
    card: ClassVar[Card | None] = None
    budgeted: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = True
    configs: ClassVar[Mapping[str, Path]] = {}

    def __init__(self, settings: AnySettings) -> None:
        self.settings = settings

    @property
    def soft_tokens(self) -> int:
        """Return the soft tokens before every prompt, which are compared with the context length before fitting."""
        return 0

    def check(self, objective: Objective, budget: Budget) -> None:  # noqa: B027  # nothing to check is the usual case
        """Raise UsageError or InputError for errors that can be detected before a model is loaded."""

    def longest_preamble(self, objective: Objective) -> str:
        """Return the longest text that may precede a question, which is compared with the context length."""
        return ""

    @abstractmethod
    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Fit ``objective`` and return the aligned model.

        Raises:
            RunError: the budget does not pay for one candidate, or losses are NaN.
        """


def find_aligner(name: str) -> type[Aligner]:
    """Return the class of an aligner by its name, built in or from a plug-in.

    Raises:
        UsageError: no such name, or an object that is no subclass of ``Aligner``.
    """
    kind = find("aligners", name)
    if not (isinstance(kind, type) and issubclass(kind, Aligner)):
        raise UsageError(f"aligner {name!r}: not a subclass of culteval.harness.alignment.aligner.Aligner.")
    return kind
