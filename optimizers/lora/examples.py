"""What LoRA is trained on: the prompts of an objective with the options to learn, and trl's trainer of each kind.

An example is a fitted prompt. Labels are its option nearest to the country's figure, soft labels the people's answer
distribution over all options, preferences its nearest above its farthest option.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...harness.alignment.objective import Objective
from ...harness.engine.tokenize import Encoded
from ...harness.models.base import PASSES
from ..preferences import Pair

if TYPE_CHECKING:
    from ...harness.engine.padded import PlainForward
    from ...harness.models.local import LanguageModel
    from ...tasks.metrics.target_distributions import TargetDistributions
    from ...tasks.prompts import Prompts


class Presentation(NamedTuple):
    """The prompts of an objective, and the text before each."""

    objective: Objective
    preamble: str = ""


class Examples(ABC):
    """Training examples, each by its number."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    @abstractmethod
    def length(self, example: int) -> int:
        """Return the tokens of the longest text of an example."""

    @abstractmethod
    def tokens(self, example: int) -> int:
        """Return the tokens read for an example in one step, forward and backward."""

    @abstractmethod
    def trainer(self, drawn: Sequence[int], common: dict[str, Any], **given: Any) -> Any:
        """Return the trainer of the examples ``drawn``, in this order.

        Args:
            common: arguments of every trainer's configuration.
            given: model and tokenizer.
        """


@dataclass(frozen=True)
class _Paired(Examples):
    """Examples of the nearest and the farthest option of every prompt."""

    pairs: list[Pair]

    def __len__(self) -> int:
        return len(self.pairs)

    def length(self, example: int) -> int:
        """Return the tokens of the prompt with the longer option."""
        pair = self.pairs[example]
        return len(pair.prompt) + max(len(pair.chosen), len(pair.rejected))


class Labels(_Paired):
    """The nearest option; the loss is the cross-entropy of its tokens."""

    def tokens(self, example: int) -> int:
        """Return the tokens of prompt and option, three times."""
        pair = self.pairs[example]
        return PASSES * (len(pair.prompt) + len(pair.chosen))

    def trainer(self, drawn: Sequence[int], common: dict[str, Any], **given: Any) -> Any:
        """Return trl's ``SFTTrainer``."""
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        pairs = [self.pairs[number] for number in drawn]
        rows = [
            {"input_ids": one.prompt + one.chosen, "labels": [-100] * len(one.prompt) + one.chosen} for one in pairs
        ]
        return SFTTrainer(args=SFTConfig(**common), train_dataset=Dataset.from_list(rows), **given)


@dataclass(frozen=True)
class Preferences(_Paired):
    """The nearest option above the farthest one; ``beta`` is the weight of staying near the model as it was."""

    beta: float

    def tokens(self, example: int) -> int:
        """Return the tokens of both texts, each read four times."""
        pair = self.pairs[example]
        return (PASSES + 1) * (2 * len(pair.prompt) + len(pair.chosen) + len(pair.rejected))

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


class SoftLabels(Examples):
    """The people's answer distributions over the options.

    The loss is the divergence of the option probabilities that answers hold (``TargetDistributions.divergence``), which
    has the gradient of the cross-entropy of soft labels. Questions that were not asked in the country are left out.

    Args:
        model: tokenises and reads the prompts.
        shown: whose prompts are numbered in turn.
    """

    def __init__(self, model: LanguageModel, shown: Sequence[Presentation]) -> None:
        self.model = model
        self._parts = [_Distributed.of(model, each) for each in shown]
        self._places = [(at, row) for at, part in enumerate(self._parts) for row in range(len(part.prompts))]

    def __len__(self) -> int:
        return len(self._places)

    def length(self, example: int) -> int:
        """Return the tokens of the prompt with its longest option."""
        at, row = self._places[example]
        return self._parts[at].encoded([row]).longest

    def tokens(self, example: int) -> int:
        """Return the tokens of the prompt and of options of several tokens, three times."""
        at, row = self._places[example]
        return PASSES * self._forward(self.model.model, self._parts[at], [row]).tokens(0)

    def loss(self, tuned: Any, examples: Sequence[int]) -> Any:
        """Compute the mean divergence, a scalar with its graph, of a model in training."""
        rows: dict[int, list[int]] = {}
        for example in examples:
            at, row = self._places[example]
            rows.setdefault(at, []).append(row)
        return sum(self._divergence(tuned, self._parts[at], of_part) for at, of_part in rows.items()) / len(examples)

    def _divergence(self, tuned: Any, part: _Distributed, rows: list[int]) -> Any:
        """Compute the sum of the divergences of some prompts of a part."""
        taken = np.array(rows)
        logs = part.prompts.take(taken).read_logs(self._forward(tuned, part, rows).logprobs(None))
        return part.target.take(taken).divergence(logs.softmax(-1).double()).sum()

    def _forward(self, model: Any, part: _Distributed, rows: Sequence[int]) -> PlainForward:
        from ...harness.engine.padded import PlainForward

        return PlainForward(model, part.encoded(rows), alone=self.model.steady is not None)

    def trainer(self, drawn: Sequence[int], common: dict[str, Any], **given: Any) -> Any:
        """Return trl's ``SFTTrainer`` with this loss."""
        import torch
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        examples = self

        class SoftLabelTrainer(SFTTrainer):
            """A trainer whose rows are the numbers of examples."""

            def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
                return dataset

            def compute_loss(
                self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
            ) -> Any:
                return examples.loss(model, inputs["example"].tolist())

        return SoftLabelTrainer(
            args=SFTConfig(remove_unused_columns=False, **common),
            train_dataset=Dataset.from_dict({"example": list(map(int, drawn))}),
            data_collator=lambda rows: {"example": torch.tensor([row["example"] for row in rows])},
            **given,
        )


@dataclass(frozen=True, eq=False)
class _Distributed:
    """Prompts with their tokens and the people's answers to them."""

    prompts: Prompts
    tokenised: Encoded
    target: TargetDistributions

    @classmethod
    def of(cls, model: LanguageModel, shown: Presentation) -> _Distributed:
        distributions = shown.objective.distributions
        prompts = shown.objective.prompts.take(distributions.known)
        return cls(prompts, model.tokenised(prompts, shown.preamble), distributions.take(distributions.known))

    def encoded(self, rows: Sequence[int]) -> Encoded:
        """Return the tokens of some prompts."""
        whole = self.tokenised
        return Encoded([whole.contexts[row] for row in rows], [whole.options[row] for row in rows])
