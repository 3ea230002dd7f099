"""The aligner ``clca``: runs every stage in the run's folder, then loads the model with the resulting LoRA adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...errors import UsageError
from ...harness.alignment.aligner import Aligner, Card
from ...harness.alignment.budget import Budget
from ...harness.alignment.checkpoint import Checkpoint
from ...harness.alignment.objective import Objective
from ...harness.models.aligned import AlignedModel
from ...harness.registry import spec_of
from ...tasks.metrics.reference import scores_of
from ..lora.training import Tell
from ..writing.teacher import Teacher, writer_of
from ..writing.writer import Writer
from .culture import in_words
from .dialogues.dialogue import read_dialogues
from .dialogues.scenarios import place_of
from .dialogues.shipped import file_of
from .pipeline import Pipeline
from .settings import CLCASettings
from .training.train import LORA

if TYPE_CHECKING:
    from ...harness.models.local import LanguageModel

FOLDER = "clca"


def culture_of(code: str) -> str:
    """Return a country's culture in words; UsageError if it has no figures or no scenes."""
    place_of(code)
    return in_words(scores_of(spec_of("vsm13"), "extended"), code)


def pipeline_of(
    folder: Path,
    country: str,
    settings: CLCASettings,
    seed: int,
    model_of: Callable[[], LanguageModel],
    teacher: Teacher,
    tell: Tell,
) -> Pipeline:
    """Return the pipeline of a country, or of the settings' own; ``seed`` is that of the run.

    ``teacher`` plays, judges and names intents.

    Raises:
        UsageError: as ``culture_of``.
    """
    code = settings.country(country)

    def writer(replies: Path) -> Writer:
        return writer_of(teacher(), replies, tell)

    return Pipeline(folder, code, culture_of(code), settings, seed, model_of, writer, tell, teacher.release)


class CLCA(Aligner):
    """Fine-tuning of LoRA on social dialogues set in the country, which the model or a teacher plays and judges.

    No survey is used.
    """

    Settings: ClassVar = CLCASettings
    summary: ClassVar = "LoRA fine-tuned on simulated, culture-adapted social interactions (CLCA)"
    card: ClassVar = Card(
        source="Liu, Korhonen & Gurevych 2025 (arXiv 2504.02953)",
        needs=("the country's dimensions for the scenes, no answers to surveys; training; at best a teacher"),
        cost="no budget; tokens of dialogues and training are counted",
        gives="LoRA adapter (PEFT)",
        limits=(
            "16 countries. A model of 135 million parameters keeps to no format and learns nothing measurable; "
            "`preset=paper` needs some billion parameters."
        ),
    )
    budgeted: ClassVar = False
    settings: CLCASettings

    def check(self, objective: Objective, budget: Budget) -> None:
        """Raise UsageError for a country without figures, scenes or shipped dialogues, InputError for a bad file."""
        code = self.settings.country(objective.country.code)
        culture_of(code)
        if self.settings.dialogues:
            read_dialogues(file_of(self.settings.dialogues, code))

    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Run every unfinished stage; no item is presented, so only tokens and seconds are spent.

        Raises:
            RunError: no training data was kept, or a loss that is not a number.
        """
        if model.info.adapter_sha256:
            raise UsageError("`adapter`: clca trains an adapter of its own; run it without `adapter`.")
        folder, name, dtype = Path(checkpoint.folder) / FOLDER, self.settings.teacher, self.settings.teacher_dtype
        teacher = Teacher(lambda: checkpoint.other_model(name, dtype) if name else model)
        code, seed = objective.country.code, int(rng.integers(1 << 31))
        pipeline = pipeline_of(folder, code, self.settings, seed, lambda: model, teacher, checkpoint.progress)
        pipeline.run()
        budget.tokens = int(sum(cost["tokens"] for cost in pipeline.spent().values()))
        budget.seconds = sum(cost["seconds"] for cost in pipeline.spent().values())
        return AlignedModel(model, lora=folder / LORA)
