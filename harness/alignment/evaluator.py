"""Evaluate the losses of candidates for an aligner and charge them to its budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...errors import RunError, UnreadableError, UsageError
from ...tasks.answers import chosen
from ...tasks.prompts import Prompts
from ..models.base import PASSES
from .budget import Budget
from .objective import Objective
from .racing import RaceSchedule

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.local import LanguageModel

HEAT = 4  # least batch size of a race: fewer read the weights too often, more need more memory for the KV cache


class TextLoss(NamedTuple):
    """The loss of a text, and the number of prompts without a readable answer."""

    loss: float
    unread: int


DescentStep = Callable[[Callable[["Tensor"], "Tensor"]], None]
"""One step of gradient descent of a torch optimizer, which calls the loss as a function of the parameter."""


def require_budget(cost: int, what: str, budget: Budget) -> None:
    """Raise UsageError where an unspent budget is less than the ``cost`` in item forwards of one ``what``."""
    if not budget.affordable(cost) and not budget.spent:
        least = -(-cost // budget.per_survey)
        raise UsageError(f"`budget`: one {what} costs {least} survey evaluations here. Give at least {least}.")


def require_readable(unread: Iterable[int], objective: Objective) -> None:
    """Raise UnreadableError where no text got a single readable answer, given the unread answers of each text."""
    unread = list(unread)
    if min(unread) == objective.cost:
        read = "no option is among the first tokens" if not objective.most_tokens else "no option or share is named"
        raise UnreadableError(
            f"no answer of {len(unread)} texts to {objective.task} can be read: {read}. Turn reasoning off, use "
            "another model, or fit a task that is answered in another form, such as vsm13_text with `scoring` text."
        )


class Evaluator:
    """Evaluator of candidates under one objective: spends the budget, counts tokens and seconds, rejects NaN."""

    def __init__(self, model: LanguageModel, objective: Objective, budget: Budget, *, racing: bool = False) -> None:
        """Set up an evaluator; ``racing`` drops candidates early where limits are given and the loss is separable."""
        self.model, self.objective, self.budget = model, objective, budget
        self.schedule = RaceSchedule.of(objective.loss) if racing else None

    @property
    def affordable(self) -> int:
        """Return how many candidates the budget still pays for."""
        return self.budget.affordable(self.objective.cost)

    def losses(self, soft: np.ndarray, limits: np.ndarray | None = None) -> np.ndarray:
        """Return the losses (m,) float64 of the first m soft prompts (n, T, dim) that the budget pays for.

        Args:
            limits: (n,) losses that candidates must not exceed; the loss of a candidate dropped early is +inf.

        Raises:
            RunError: the budget pays for no candidate, or a loss is NaN.
        """
        if self.schedule is not None and limits is not None:
            self._require_one()
            return self._race(self.schedule, soft, limits)
        return self.answers(soft)[1]

    def answers(self, soft: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return option probabilities (m, prompts, options) and losses (m,) of the first m soft prompts (n, T, dim).

        Raises:
            RunError: as ``losses``.
        """
        self._require_one()
        soft = soft[: self.affordable]
        with self._paying(len(soft) * self.objective.cost):
            probs = self.model.answer(self.objective.prompts, soft).probs
            losses: np.ndarray = self.objective.loss(probs)
        return probs, _numbers(losses)

    def _require_one(self) -> None:
        if not self.affordable:
            raise RunError(f"budget: a candidate is {self.objective.cost} item forwards, {self.budget.left} left.")

    def loss_of_text(self, preamble: str) -> TextLoss:
        """Return the loss of the model with a text before every prompt, and how many answers could not be read.

        An answer that cannot be read counts as the worst option for the loss, so that a text gains nothing by it.

        Raises:
            RunError: too little budget, or the loss is NaN.
        """
        with self._paying(self.objective.cost):
            probs, unread = self._read(preamble)
            losses = self.objective.loss(self._worst(probs, unread)[None])
        return TextLoss(float(_numbers(losses)[0]), len(unread))

    def _worst(self, probs: np.ndarray, unread: np.ndarray) -> np.ndarray:
        """Return option probabilities in which each unread answer is the worst option for the loss, one after another.

        An answer without information would be a gain: it may lose far less than a wrong one.
        """
        for row in unread.tolist():
            options = np.flatnonzero(self.objective.prompts.layout.inside[row])
            tried = np.repeat(probs[None], len(options), axis=0)
            tried[:, row] = np.eye(probs.shape[1])[options]
            probs = tried[int(np.argmax(self.objective.loss(tried)))]
        return probs

    def _read(self, preamble: str) -> tuple[np.ndarray, np.ndarray]:
        """Return option probabilities (prompts, options), uniform for answers that cannot be read, and their rows.

        Every answer of a model in memory has option probabilities.
        """
        objective, prompts = self.objective, self.objective.prompts
        spread = np.zeros(prompts.layout.codes.shape)
        if objective.most_tokens:
            answers = self.model.generate(prompts, None, preamble, objective.most_tokens, weighed=False)
            spread = chosen(answers, objective.scoring)
        else:
            with suppress(UnreadableError):
                answers = self.model.answer(prompts, None, preamble)
                if self.model.has_weights:
                    return answers.probs[0], np.zeros(0, dtype=np.int64)
                spread = answers.probs[0] * answers.stated[:, None]
        inside = prompts.layout.inside
        read = np.asarray(spread.any(1))
        probs: np.ndarray = np.where(read[:, None], spread, inside / inside.sum(1, keepdims=True))
        return probs, np.flatnonzero(~read)

    def descend(
        self,
        step: DescentStep,
        prompts: Prompts,
        loss_of: Callable[[Tensor], Tensor],
        candidates: Callable[[Tensor], Tensor] = lambda parameter: parameter,
    ) -> float:
        """Take one step of gradient descent over some prompts and return the loss before the step.

        A step costs three item forwards a prompt and candidate.

        Args:
            step: receives the loss as a function of the parameter, and calls it once.
            loss_of: returns the loss, a scalar with its graph, of log-probabilities (n, prompts, options).
            candidates: returns the soft prompts (n, T, dim) of a parameter.

        Raises:
            RunError: too little budget, or a loss that is not finite; no step is taken then.
        """
        values = []

        def loss(parameter: Tensor) -> Tensor:
            soft = candidates(parameter)
            self.budget.spend(PASSES * len(soft) * len(prompts))
            logs = self.model.logprobs(prompts, soft)
            value = loss_of(logs)
            values.append(float(value.detach()))
            if not np.isfinite(values[-1]):
                raise RunError("the loss is not a number. Try `dtype` float32, or a lower rate.")
            return value

        with self._paying(0), self.model.at_work():
            step(loss)
        return values[0]

    def state(self) -> dict[str, np.ndarray]:
        """Return the statistics of racing as plain arrays, for a checkpoint."""
        return {} if self.schedule is None else self.schedule.state()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore the statistics of a checkpoint."""
        if self.schedule is not None:
            self.schedule.restore(state)

    @contextmanager
    def _paying(self, item_forwards: int) -> Iterator[None]:
        """Spend item forwards before the block, and record its tokens and seconds after it."""
        self.budget.spend(item_forwards)
        started, tokens = time.perf_counter(), self.model.tokens
        yield
        self.budget.record(self.model.tokens - tokens, started)

    def _race(self, schedule: RaceSchedule, soft: np.ndarray, limits: np.ndarray) -> np.ndarray:
        groups = schedule.groups(self.model.remembers)
        most = len(soft) if len(groups) == 1 else self._together(soft.shape[1])
        losses, ended, start = [np.zeros(0)], [np.zeros(0)], 0
        while start < len(soft) and (count := min(most, len(soft) - start, self.affordable)):
            chunk = slice(start, start + count)
            chunk_losses, chunk_ended = self._heat(schedule, groups, soft[chunk], limits[chunk])
            losses.append(chunk_losses)
            ended.append(chunk_ended)
            start += count
        schedule.learn_ends(np.concatenate(ended))
        return np.concatenate(losses)

    def _heat(
        self, schedule: RaceSchedule, groups: list[np.ndarray], soft: np.ndarray, limits: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Race some candidates; return their losses and after how many terms each was dropped (terms + 1: never)."""
        steps, parts = schedule.steps(groups, len(self.objective.prompts)), len(schedule.parts)
        losses, ended = np.zeros(len(soft)), np.full(len(soft), parts + 1)
        alive, known = np.arange(len(soft)), np.zeros(parts, dtype=bool)
        with self._paying(0):
            passes = self.model.stepwise(self.objective.prompts, steps, soft)
            for new, step in zip(groups, steps, strict=True):
                self.budget.spend(len(alive) * len(step))
                terms = schedule.loss.terms(passes.advance())
                schedule.learn_terms(terms[ended[alive] > parts], new)
                for part in new:
                    known[part] = True
                    losses[alive] = schedule.loss.total(np.where(known, terms, 0))
                    ended = np.where(losses > limits, np.minimum(ended, known.sum()), ended)
                going = self._going(ended[alive] <= parts)
                if not len(going):
                    break
                if len(going) < len(alive):
                    alive = alive[going]
                    passes.keep(going)
        return np.where(ended <= parts, np.inf, _numbers(losses)), ended

    def _together(self, soft_tokens: int) -> int:
        """Return the batch size of a race."""
        return max(HEAT, self.model.batch(self.objective.prompts, soft_tokens))

    def _going(self, lost: np.ndarray) -> np.ndarray:
        """Return the indices of the candidates that stay in the race."""
        return np.flatnonzero(~lost)


def _numbers(losses: np.ndarray) -> np.ndarray:
    """Return the losses; raise RunError where one is NaN."""
    if np.isnan(losses).any():
        raise RunError("a candidate's loss is not a number. Try `dtype` float32.")
    return losses
