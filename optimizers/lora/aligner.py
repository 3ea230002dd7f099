"""LoRA trained on the prompts of a task by trl: supervised fine-tuning and direct preference optimisation."""

from __future__ import annotations

import copy
import shutil
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ...errors import CheckpointError, RunError, UsageError
from ...harness.alignment.aligner import Aligner, Card, Settings
from ...harness.alignment.budget import Budget
from ...harness.alignment.checkpoint import Checkpoint
from ...harness.alignment.evaluator import require_budget
from ...harness.alignment.objective import Objective
from ...harness.models.aligned import AlignedModel
from ...harness.models.base import PASSES
from ...tasks.countries import country, others
from ...tasks.schema import Order
from ..descent import require_gradient
from ..preferences import preference_pairs
from ..soft_prompt import CONFIGS
from ..texts import sentence
from . import adapter
from .examples import Examples, Labels, Preferences, Presentation, SoftLabels, Whole
from .training import last_whole, progress, seeded

if TYPE_CHECKING:
    from ...harness.models.local import LanguageModel

FOLDER, LORA, CHECKPOINTS = "lora", "adapter", "checkpoints"
SAVES = 4  # checkpoints a run


class TuningSettings(Settings):
    """The settings of LoRA training on a task.

    LoRA of ``rank`` and ``alpha`` with ``dropout`` on ``modules``, at a learning ``rate`` that falls linearly to zero;
    ``batch`` prompts a step. The budget decides the number of steps. With ``paraphrases``, so many random mixtures of
    the paraphrases of ``fit`` are learned from, in both orders alternately, instead of those paraphrases as they are.
    """

    rank: int = Field(8, ge=1, le=512)
    alpha: float = Field(16, gt=0, le=10_000)
    dropout: float = Field(0.0, ge=0, lt=1)
    modules: tuple[adapter.ModuleName, ...] = Field(("q_proj", "v_proj"), min_length=1)
    batch: int = Field(8, ge=1, le=10_000)
    rate: float = Field(1e-3, gt=0, le=1)
    paraphrases: int = Field(0, ge=0, le=1000)

    @property
    def save_embeddings(self) -> bool:
        """Head and embeddings stay frozen."""
        return False


class Tuned(Aligner):
    """An aligner that trains LoRA by a trainer of trl; subclasses choose the examples."""

    Settings: ClassVar = TuningSettings
    settings: TuningSettings
    per_prompt: ClassVar[int]  # item forwards of one prompt in a step

    def countries(self, objective: Objective) -> list[Objective]:
        """Return the objectives of all countries learned together, the run's own first."""
        return [objective]

    def preamble(self, objective: Objective) -> str:
        """Return the text before every prompt, while learning and while answering."""
        return ""

    @abstractmethod
    def examples(self, model: LanguageModel, shown: Sequence[Presentation]) -> Examples:
        """Return what is trained on."""

    def batch(self) -> int:
        """Return the number of examples in a step."""
        return self.settings.batch

    def step(self, objective: Objective) -> int:
        """Return the item forwards of a step."""
        return self.per_prompt * self.settings.batch

    def check(self, objective: Objective, budget: Budget) -> None:
        """Raise UsageError unless the budget pays for one step."""
        require_budget(self.step(objective), "step", budget)

    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Train as many steps as the budget pays for; an interrupted training resumes from its last checkpoint.

        Raises:
            UsageError: the model carries an adapter, or is in int8. RunError: no such modules, or a loss that is not a
                number.
        """
        from transformers import PrinterCallback

        self.check(objective, budget)
        if model.info.adapter_sha256:
            raise UsageError("`adapter`: this aligner trains an adapter of its own; run it without `adapter`.")
        folder, cost, batch = Path(checkpoint.folder) / FOLDER, self.step(objective), self.batch()
        steps = budget.total // cost
        preamble, examples = self.preamble(objective), self.examples(model, self._shown(objective, rng))
        drawn = examples.draw(steps, batch, rng)
        state = checkpoint.load()
        if state is None:
            shutil.rmtree(folder, ignore_errors=True)
        elif int(state["step"]) == steps and (folder / LORA).is_dir():
            return AlignedModel(model, preamble=preamble, lora=folder / LORA)
        seed = int(rng.integers(1 << 31))
        with model.at_work(), seeded(seed):
            tuned = adapter.attached(model.fresh(), self.settings)
            size = examples.in_one_pass(drawn, batch)
            common = self._arguments(folder / CHECKPOINTS, size, steps, model.model.device.type) | {"seed": seed}
            tokenizer = copy.deepcopy(model.tokenizer)
            trainer = examples.trainer(drawn, common, model=tuned, processing_class=tokenizer)
            tokens = [examples.tokens(drawn[start : start + size]) for start in range(0, len(drawn), size)]
            meter = _Meter(budget, checkpoint, tokens, batch // size, cost)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(meter.callback())
            trainer.add_callback(progress(checkpoint.progress))
            last = last_whole(folder / CHECKPOINTS)
            trainer.train(resume_from_checkpoint=str(last) if last else None)
            adapter.save(tuned, folder / LORA)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        return AlignedModel(model, preamble=preamble, lora=folder / LORA)

    def _shown(self, objective: Objective, rng: np.random.Generator) -> list[Presentation]:
        """Return every country's prompts in the paraphrases of ``fit``, or in random ones and both orders."""
        drawn = _drawn(objective, self.settings.paraphrases, rng)
        several = [each for one in drawn or [objective] for each in self.countries(one)]
        return [Presentation(each, self.preamble(each)) for each in several]

    def _arguments(self, folder: Path, in_one_pass: int, steps: int, device: str) -> dict[str, Any]:
        return {
            "output_dir": str(folder),
            "per_device_train_batch_size": in_one_pass,
            "gradient_accumulation_steps": self.batch() // in_one_pass,
            "max_steps": steps,
            "learning_rate": self.settings.rate,
            "train_sampling_strategy": "sequential",  # rows are drawn already
            "save_strategy": "steps",
            "save_steps": max(1, -(-steps // SAVES)),
            "save_total_limit": 2,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "disable_tqdm": True,
            "report_to": [],
            "use_cpu": device == "cpu",
            "bf16": False,  # the model has its dtype already
            "gradient_checkpointing": False,
            "max_length": None,
        }


class SupervisedSettings(TuningSettings):
    """The settings of ``TuningSettings``, what is learned, and how countries are named.

    ``target``: ``labels`` by the prompt (soft ones for the objective ``distribution``), or the loss of the
    ``objective`` on whole ``paraphrases``, one a step whatever ``batch``, plus ``off_options`` times the probability
    off the options, as ``augmented`` has it. ``elicitation`` puts a sentence that names the country before every
    prompt, while learning and while answering, as ``icl`` does. ``countries`` are learned together with the run's own,
    each by its sentence.
    """

    target: Literal["labels", "objective"] = "labels"
    off_options: float = Field(0.1, ge=0, le=100)
    elicitation: Literal["none", "persona", "resident", "third_person"] = "none"
    countries: tuple[str, ...] = Field((), max_length=200)

    @model_validator(mode="after")
    def _told_apart(self) -> SupervisedSettings:
        for name in self.countries:
            country(name)
        if self.countries and self.elicitation == "none":
            raise ValueError("countries: need an elicitation that names them, such as elicitation=resident")
        if self.target == "objective" and not self.paraphrases:
            raise ValueError("target: objective learns whole paraphrases; give their number, such as paraphrases=64")
        return self


class SupervisedTuning(Tuned):
    """Supervised fine-tuning of LoRA by trl on the option nearest to the country's figure, or on answer distributions.

    It is the simplest use of a model's weights, and the comparison that the seed paper names.
    """

    summary: ClassVar = "LoRA fine-tuned on the nearest option, or on the people's distribution (SFT, trl)"
    card: ClassVar = Card(
        source="LoRA: Hu et al. 2022 (arXiv 2106.09685); comparison: Masoud et al. 2025 (arXiv 2503.16094); "
        "soft labels: Cao et al. 2025 (arXiv 2502.07068)",
        needs="a second copy of the weights; the country's figures on `fit` as labels; training",
        cost="three item forwards a prompt of a step",
        gives="LoRA adapter (PEFT)",
        limits=(
            "With one answer a prompt, distributions become more certain than people are; `--objective distribution` "
            "learns shares instead. Not for models in int8 or with an adapter."
        ),
    )
    configs: ClassVar = {"many-wordings": CONFIGS / "many-wordings.yaml"}
    Settings: ClassVar = SupervisedSettings
    settings: SupervisedSettings
    per_prompt: ClassVar = PASSES

    def check(self, objective: Objective, budget: Budget) -> None:
        """Raise UsageError for another objective, a country without figures, or a budget too small for one step."""
        if objective.kind == "worst_paraphrase":
            raise UsageError("`objective` worst_paraphrase: sft does not fit it. Use `objective` task.")
        self.countries(objective)
        if self.settings.target == "objective":
            require_gradient(objective, budget, self.step(objective), self.settings.target)
        else:
            super().check(objective, budget)

    def batch(self) -> int:
        """Return 1 where the examples are whole paraphrases."""
        return 1 if self.settings.target == "objective" else super().batch()

    def step(self, objective: Objective) -> int:
        """Return the item forwards of a step: of a batch of prompts, or of a paraphrase."""
        if self.settings.target == "labels":
            return super().step(objective)
        return PASSES * _drawn(objective, 1)[0].cost

    def countries(self, objective: Objective) -> list[Objective]:
        """Return the objectives of the run's own country and of the settings' others."""
        further = others(self.settings.countries, objective.country)
        return [objective, *map(objective.for_country, further)]

    def preamble(self, objective: Objective) -> str:
        """Return the sentence that names the country, or nothing."""
        elicitation = self.settings.elicitation
        return "" if elicitation == "none" else sentence(objective, elicitation) + "\n\n"

    def longest_preamble(self, objective: Objective) -> str:
        """Return the sentence that names the country, or nothing."""
        return self.preamble(objective)

    def examples(self, model: LanguageModel, shown: Sequence[Presentation]) -> Examples:
        """Return labels, soft labels for the objective ``distribution``, or whole paraphrases."""
        if self.settings.target == "objective":
            return Whole(model, shown, self.settings.off_options)
        return (SoftLabels if shown[0].objective.kind == "distribution" else Labels)(model, shown)


class PreferenceSettings(TuningSettings):
    """The settings of ``TuningSettings``, and ``beta``, the weight of staying near the model as it was."""

    beta: float = Field(0.1, gt=0, le=100)


class PreferenceTuning(Tuned):
    """Direct preference optimisation of LoRA by trl: the option nearest to the country's figure above the farthest one.

    ``beta`` keeps the model near what it was.
    """

    Settings: ClassVar = PreferenceSettings
    summary: ClassVar = "LoRA by direct preference optimisation, nearest above farthest option (DPO, trl)"
    card: ClassVar = Card(
        source="Rafailov et al. 2023 (arXiv 2305.18290); pairs: Masoud et al. 2025 (arXiv 2503.16094)",
        needs="a second copy of the weights; the country's figures on `fit` as preference pairs; training",
        cost=(
            "eight item forwards a prompt of a step: two options, forward and backward, and once by the model as it was"
        ),
        gives="LoRA adapter (PEFT)",
        limits="The likelihood of both options may fall. Not for models in int8 or with an adapter.",
    )
    settings: PreferenceSettings
    per_prompt: ClassVar = 2 * (PASSES + 1)  # both options, forward and backward, and by the model as it was

    def check(self, objective: Objective, budget: Budget) -> None:
        """Raise UsageError for an objective other than the task's, or a budget that does not pay for one step."""
        if objective.kind != "task":
            raise UsageError(f"`objective` {objective.kind}: dpo learns from pairs of options. Use `aligner` sft.")
        super().check(objective, budget)

    def examples(self, model: LanguageModel, shown: Sequence[Presentation]) -> Examples:
        """Return preference pairs."""
        pairs = [pair for each in shown for pair in preference_pairs(model, *each)]
        return Preferences(pairs, self.settings.beta)


def _drawn(objective: Objective, count: int, rng: np.random.Generator | None = None) -> list[Objective]:
    """Return the objective in random paraphrases, in both orders alternately."""
    rng = rng or np.random.default_rng(0)
    orders: tuple[Order, Order] = ("natural", "reversed")
    return [objective.paraphrased(rng, orders[at % 2]) for at in range(count)]


class _Meter:
    """Charges every step of a trainer to the budget, and saves the budget with each of the trainer's checkpoints."""

    def __init__(self, budget: Budget, checkpoint: Checkpoint, tokens: list[int], passes: int, step: int) -> None:
        """Set up a meter; ``tokens`` are those of each pass, ``step`` the item forwards of a step of ``passes``."""
        self.budget, self.checkpoint, self.step = budget, checkpoint, step
        self.tokens = np.concatenate([[0], np.cumsum(tokens)[passes - 1 :: passes]])  # after each step
        self.done, self.started = 0, time.perf_counter()

    def record(self, steps: int) -> None:
        """Record the tokens and seconds since the last record, after ``steps`` steps in all."""
        self.budget.record(int(self.tokens[steps] - self.tokens[self.done]), self.started)
        self.done, self.started = steps, time.perf_counter()

    def callback(self) -> Any:
        """Make the trainer's callback."""
        from transformers import TrainerCallback

        meter = self

        class Charge(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                spent = state.global_step * meter.step
                if spent < meter.budget.spent:
                    raise CheckpointError("the saved training does not match its budget. Start over with `fresh`.")
                meter.budget.spend(spent - meter.budget.spent)
                meter.budget.tokens = int(meter.tokens[state.global_step])
                meter.done, meter.started = state.global_step, time.perf_counter()

            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                meter.budget.spend(meter.step)

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
                if "loss" in (logs or {}) and not np.isfinite(float(logs["loss"])):
                    raise RunError("the training loss is not a number. Try `dtype` float32, or a lower rate.")

            def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                meter.record(state.global_step)
                losses = [line["loss"] for line in state.log_history if "loss" in line]
                meter.checkpoint.save({"step": np.array(state.global_step)}, float(losses[-1]) if losses else np.inf)

        return Charge()
