"""In-context learning: a sentence that says whose answer is wanted, and answered examples, before the question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, ValidationInfo, field_validator, model_serializer

from ..errors import UsageError
from ..harness.alignment.aligner import Aligner, Card, Settings
from ..harness.alignment.budget import Budget
from ..harness.alignment.checkpoint import Checkpoint
from ..harness.alignment.objective import Objective
from ..harness.models.aligned import AlignedModel
from .texts import language_cue, sentence, texts

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class InContextSettings(Settings):
    """Settings: ``elicitation``, the way in which the country's answers are asked for.

    ``persona``: role play ("You are ..."); ``resident``: the user lives there; ``third_person``: what people there
    would say; ``forecast``: the shares of people there, for ``verbalized`` tasks; ``language``: a sentence in the
    country's language that does not name it; ``demonstrations``: answered examples alone.

    ``demonstrations`` is the number of answered examples, drawn from the prompts of ``fit``.
    """

    demonstrations: int = Field(0, ge=0, le=24)
    elicitation: Literal["persona", "resident", "third_person", "forecast", "language", "demonstrations"] = "persona"

    @field_validator("elicitation")
    @classmethod
    def _shown(cls, value: str, info: ValidationInfo) -> str:
        if value == "demonstrations" and not info.data.get("demonstrations"):
            raise ValueError("demonstrations needs their number too, such as demonstrations=5")
        return value

    @model_serializer(mode="wrap")
    def _as_named(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the default elicitation: the names of runs are hashes of their settings."""
        given: dict[str, Any] = handler(self)
        if self.elicitation == "persona":
            given.pop("elicitation", None)
        return given


class InContext(Aligner):
    """A sentence before the question says whose answer is wanted, as a persona or in another way.

    Answered questions of ``fit`` may stand before it as examples.
    """

    Settings: ClassVar = InContextSettings
    summary: ClassVar = "persona or other sentence, optionally answered examples, before the question"
    card: ClassVar = Card(
        source="Masoud et al. 2025 (arXiv 2503.16094); examples: Brown et al. 2020 (arXiv 2005.14165)",
        needs="the country's name; the country's figures only for examples",
        cost="no budget; each example lengthens every prompt",
        gives="preamble",
        limits=(
            "One sentence changes all answers, and repeats what texts say about a country, stereotypes included. The "
            "effect depends on country and paraphrase; do not use it where prompts must stay as they are."
        ),
    )
    budgeted: ClassVar = False
    needs_weights: ClassVar = False
    settings: InContextSettings

    def check(self, objective: Objective, budget: Budget) -> None:
        """Raise UsageError for a country without a text, or where task and elicitation ask for different things."""
        stated, settings = objective.prompts.verbalized, self.settings
        if settings.elicitation == "forecast" and not stated:
            raise UsageError(
                f"`settings` elicitation=forecast: {objective.task} asks for one answer, not for shares of people. "
                "Take a task with scoring verbalized, such as wvs_verbalized."
            )
        if settings.demonstrations and stated:
            raise UsageError(
                f"`settings` demonstrations: examples are single answers, but {objective.task} asks for shares."
            )
        self._sentence(objective)

    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Return the model behind a preamble; spends nothing."""
        parts = self._sentence(objective)
        layout = objective.prompts.layout
        given = (layout.codes == objective.demonstrations[:, None]) & layout.inside  # options are written in code order
        for row in rng.permutation(np.flatnonzero(given.any(1)))[: self.settings.demonstrations]:
            answer = objective.prompts.choices[row][int(given[row].argmax())]
            example = {"question": objective.prompts.texts[row], "answer": answer}
            parts.append(texts(objective.language)["demonstration"].format(**example))
        return AlignedModel(model, preamble="\n\n".join(parts) + "\n\n")

    def _sentence(self, objective: Objective) -> list[str]:
        """Return the sentence before the examples; none for demonstrations alone."""
        if self.settings.elicitation == "demonstrations":
            return []
        if self.settings.elicitation == "language":
            return [language_cue(objective)]
        return [sentence(objective, self.settings.elicitation)]
