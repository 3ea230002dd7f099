"""What LoRA is trained on: the prompts of an objective with the options to learn, and trl's trainer of each kind.

An example is a fitted prompt, or a whole presentation of the questions. A label is a prompt's option nearest to the
country's figure, soft labels are the people's answer distribution over all options, preferences its nearest above its
farthest option.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ...harness.alignment.objective import Objective
from ...harness.engine.tokenize import Encoded
from ...harness.models.base import PASSES
from ..descent import penalised
from ..preferences import Pair, in_batches, nearest_and_farthest
from .training import MICRO_TOKENS, micro_batch

if TYPE_CHECKING:
    from ...harness.models.local import LanguageModel
    from ...tasks.metrics.target_distributions import TargetDistributions
    from ...tasks.prompts import Prompts

TOGETHER = 8  # prompts of one presentation in a step: they share most of their text


class Presentation(NamedTuple):
    """The prompts of an objective, and the text before each."""

    objective: Objective
    preamble: str = ""


class Examples(ABC):
    """Training examples, each by its number."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    def draw(self, steps: int, batch: int, rng: np.random.Generator) -> list[int]:
        """Draw the examples of ``steps`` steps: every example once in random order, then again in another."""
        return in_batches(len(self), steps * batch, rng).tolist()

    @abstractmethod
    def in_one_pass(self, drawn: Sequence[int], batch: int) -> int:
        """Return how many of the examples drawn are read in one pass, a divisor of ``batch``."""

    @abstractmethod
    def tokens(self, examples: Sequence[int]) -> int:
        """Return the tokens read for the examples of one pass, forward and backward."""

    @abstractmethod
    def trainer(self, drawn: Sequence[int], common: dict[str, Any], **given: Any) -> Any:
        """Return the trainer of the examples ``drawn``, in this order.

        Args:
            common: arguments of every trainer's configuration.
            given: model and tokenizer.
        """


@dataclass(frozen=True)
class Preferences(Examples):
    """The nearest option above the farthest one; ``beta`` is the weight of staying near the model as it was."""

    pairs: list[Pair]
    beta: float

    def __len__(self) -> int:
        return len(self.pairs)

    def in_one_pass(self, drawn: Sequence[int], batch: int) -> int:
        """Return as many as ``MICRO_TOKENS`` permit."""
        pairs = [self.pairs[number] for number in drawn]
        return micro_batch(batch, max(len(one.prompt) + max(len(one.chosen), len(one.rejected)) for one in pairs))

    def tokens(self, examples: Sequence[int]) -> int:
        """Return the tokens of both texts, each read four times."""
        pairs = [self.pairs[number] for number in examples]
        return (PASSES + 1) * sum(2 * len(one.prompt) + len(one.chosen) + len(one.rejected) for one in pairs)

    def trainer(self, drawn: Sequence[int], common: dict[str, Any], **given: Any) -> Any:
        """Return trl's ``DPOTrainer``; the model as it was is the one without the adapter."""
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        class TokenisedDPOTrainer(DPOTrainer):
            """A trainer of rows that are token ids already: trl would put its own special tokens around them."""

            def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
                return dataset

        pairs = [self.pairs[number] for number in drawn]
        rows = [{"prompt_ids": one.prompt, "chosen_ids": one.chosen, "rejected_ids": one.rejected} for one in pairs]
        args = DPOConfig(beta=self.beta, **common)
        return TokenisedDPOTrainer(args=args, train_dataset=Dataset.from_list(rows), **given)


class Packed(Examples):
    """Examples read in packed passes; subclasses have the loss."""

    model: LanguageModel

    @abstractmethod
    def loss(self, learner: LanguageModel, examples: Sequence[int]) -> Any:
        """Compute the mean loss of the examples of one pass, a scalar with its graph."""

    def trainer(self, drawn: Sequence[int], common: dict[str, Any], **given: Any) -> Any:
        """Return trl's ``SFTTrainer`` with this loss."""
        import torch
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        examples, learner = self, self.model.learner(given["model"])

        class PackedTrainer(SFTTrainer):
            """A trainer whose rows are the numbers of examples."""

            def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
                return dataset

            def compute_loss(
                self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
            ) -> Any:
                return examples.loss(learner, inputs["example"].tolist())

        return PackedTrainer(
            args=SFTConfig(remove_unused_columns=False, **common),
            train_dataset=Dataset.from_dict({"example": list(map(int, drawn))}),
            data_collator=lambda rows: {"example": torch.tensor([row["example"] for row in rows])},
            **given,
        )


class Prompted(Packed):
    """Examples that are prompts.

    Prompts of one presentation are drawn together, up to ``TOGETHER``: a packed pass reads what they share once.

    Args:
        model: tokenises and reads the prompts.
        shown: whose prompts are numbered in turn.
    """

    part: ClassVar[type[Part]]

    def __init__(self, model: LanguageModel, shown: Sequence[Presentation]) -> None:
        self.model = model
        self._parts = [self.part.of(model, each) for each in shown]
        self._places = [(at, row) for at, part in enumerate(self._parts) for row in range(len(part.prompts))]

    def __len__(self) -> int:
        return len(self._places)

    def draw(self, steps: int, batch: int, rng: np.random.Generator) -> list[int]:
        """Draw every presentation equally often, and as many of its prompts together as a step has room for."""
        size = _together(batch)
        parts = in_batches(len(self._parts), steps * batch // size, rng)
        first = np.cumsum([0, *(len(part.prompts) for part in self._parts)])
        groups = np.empty((len(parts), size), dtype=int)
        for at in np.unique(parts):
            of_part = parts == at
            rows = in_batches(len(self._parts[at].prompts), size * int(of_part.sum()), rng)
            groups[of_part] = first[at] + rows.reshape(-1, size)
        return groups.ravel().tolist()

    def in_one_pass(self, drawn: Sequence[int], batch: int) -> int:
        """Return as many of one presentation as ``MICRO_TOKENS`` permit in every pass, or 1."""
        for size in reversed(_divisors(_together(batch))):
            passes = (drawn[start : start + size] for start in range(0, len(drawn), size))
            if all(self.tokens(one) <= PASSES * MICRO_TOKENS for one in passes):
                return size
        return 1

    def tokens(self, examples: Sequence[int]) -> int:
        """Return the tokens of the packed passes, three times."""
        return PASSES * sum(self.model.cost_of(part.encoded(rows)) for part, rows in self._by_part(examples))

    def loss(self, learner: LanguageModel, examples: Sequence[int]) -> Any:
        """Compute the mean loss of the examples, a scalar with its graph."""
        read = [(part, rows, learner.logprobs_of(part.encoded(rows))) for part, rows in self._by_part(examples)]
        return sum(part.losses(np.array(rows), logs).sum() for part, rows, logs in read) / len(examples)

    def _by_part(self, examples: Sequence[int]) -> list[tuple[Part, list[int]]]:
        rows: dict[int, list[int]] = {}
        for example in examples:
            at, row = self._places[example]
            rows.setdefault(at, []).append(row)
        return [(self._parts[at], of_part) for at, of_part in rows.items()]


@dataclass(frozen=True, eq=False)
class Part(ABC):
    """The prompts of a presentation with their tokens and what is to be learned."""

    prompts: Prompts
    tokenised: Encoded

    @classmethod
    @abstractmethod
    def of(cls, model: LanguageModel, shown: Presentation) -> Part:
        """Return the prompts of a presentation that something is known of."""

    @abstractmethod
    def losses(self, rows: np.ndarray, logs: Any) -> Any:
        """Compute the losses (1, prompts) of some prompts, from the model's log-probabilities of their options."""

    def encoded(self, rows: Sequence[int]) -> Encoded:
        """Return the tokens of some prompts."""
        whole = self.tokenised
        return Encoded([whole.contexts[row] for row in rows], [whole.options[row] for row in rows])


@dataclass(frozen=True, eq=False)
class _Labelled(Part):
    places: np.ndarray  # (prompts,) of the nearest option among the prompt's options

    @classmethod
    def of(cls, model: LanguageModel, shown: Presentation) -> _Labelled:
        known = nearest_and_farthest(shown.objective)
        prompts = shown.objective.prompts.take(known.rows)
        return cls(prompts, model.tokenised(prompts, shown.preamble), known.near)

    def losses(self, rows: np.ndarray, logs: Any) -> Any:
        return -logs[:, np.arange(len(rows)), self.places[rows]]


@dataclass(frozen=True, eq=False)
class _Distributed(Part):
    target: TargetDistributions

    @classmethod
    def of(cls, model: LanguageModel, shown: Presentation) -> _Distributed:
        distributions = shown.objective.distributions
        prompts = shown.objective.prompts.take(distributions.known)
        return cls(prompts, model.tokenised(prompts, shown.preamble), distributions.take(distributions.known))

    def losses(self, rows: np.ndarray, logs: Any) -> Any:
        read = self.prompts.take(rows).read_logs(logs)
        return self.target.take(rows).divergence(read.softmax(-1).double())


class Labels(Prompted):
    """The nearest option; the loss is the cross-entropy of its tokens."""

    part: ClassVar = _Labelled


class SoftLabels(Prompted):
    """The people's answer distributions over the options.

    The loss is the divergence of the option probabilities that answers hold (``TargetDistributions.divergence``), which
    has the gradient of the cross-entropy of soft labels. Questions that were not asked in the country are left out.
    """

    part: ClassVar = _Distributed


class Whole(Packed):
    """Examples that are whole presentations; the loss is that of the objective, as for a soft prompt (``penalised``).

    Args:
        model: tokenises and reads the prompts.
        shown: the presentations.
        off_options: weight of the probability off the options.
    """

    def __init__(self, model: LanguageModel, shown: Sequence[Presentation], off_options: float) -> None:
        self.model, self._off_options = model, off_options
        self._shown = [(one.objective, model.tokenised(one.objective.prompts, one.preamble)) for one in shown]

    def __len__(self) -> int:
        return len(self._shown)

    def in_one_pass(self, drawn: Sequence[int], batch: int) -> int:
        """Return 1."""
        return 1

    def tokens(self, examples: Sequence[int]) -> int:
        """Return the tokens of the packed passes, three times."""
        return PASSES * sum(self.model.cost_of(self._shown[at][1]) for at in examples)

    def loss(self, learner: LanguageModel, examples: Sequence[int]) -> Any:
        """Compute the mean loss of the presentations, a scalar with its graph."""
        losses = []
        for objective, tokenised in (self._shown[at] for at in examples):
            logs = objective.prompts.read_logs(learner.logprobs_of(tokenised))
            losses.append(penalised(objective, logs, self._off_options))
        return sum(losses) / len(losses)


def _together(batch: int) -> int:
    return max(size for size in _divisors(batch) if size <= TOGETHER)


def _divisors(number: int) -> list[int]:
    return [one for one in range(1, number + 1) if number % one == 0]
