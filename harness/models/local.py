"""Language models in memory, asked through one packed forward pass."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import RunError, UsageError
from ...tasks.answers import Answers, Layout, shares
from ...tasks.prompts import Prompts
from ..adapters.lora import require_rows, tokenizer_for, with_lora
from ..adapters.peft_files import carried_hash, lora_hash
from ..engine.at_work import quiet, use_threads
from ..engine.chat import Chat
from ..engine.incremental import RememberedSteps, RereadSteps, Steps
from ..engine.model_config import context_of, reads_ids, steady_length, text_config
from ..engine.onednn import lacking, may_pack
from ..engine.packed import PackedForward
from ..engine.padded import PlainForward
from ..engine.select import engine_for
from ..engine.tokenize import Encoded, encode
from ..model_info import ModelInfo
from .base import PASSES
from .context import refuse_long, refuse_soft
from .greedy import take_defaults, write


class LanguageModel:
    """A frozen causal language model that answers prompts, alone or behind soft prompts.

    ``dim`` is the width of its embeddings, ``context_length`` the tokens that it reads at most, None where its
    configuration does not say; ``tokens`` counts what it has read so far. ``steady`` is how long prompts may be before
    their length moves positions, None where it never does. Soft prompts are a population (n, T, dim) float32.
    """

    has_weights = True

    def __init__(
        self,
        model: Any,
        chat: Chat,
        name: str,
        revision: str,
        notify: Callable[[str], None],
        again: Callable[[], Any] | None = None,
        content: str | None = None,
        adapter: str | None = None,
    ) -> None:
        self._again, self._notify = again, notify
        self.model, self.chat, self.tokenizer = model.eval().requires_grad_(False), chat, chat.tokenizer
        self.dim = model.get_input_embeddings().weight.shape[1]
        self.tokens = 0
        config = text_config(model)
        self.context_length, self.steady = context_of(config.to_dict()), steady_length(config)
        self._reads_ids = reads_ids(config)
        self._tokenised = lru_cache(maxsize=16)(partial(encode, chat))
        self._encoded = lru_cache(maxsize=16)(self._forward_of)
        self._steps = lru_cache(maxsize=4)(self._steps_of)
        self.engine, problem = engine_for(self.model, self.tokenizer)
        if problem:
            notify(f"packing is off for {name}: {problem}; using plain padded batches, which are slower")
        if may_pack(self.model) and (why := lacking()):
            notify(f"torch {torch.__version__} has no products of oneDNN as used here ({why}); others are slower")
        ignored = take_defaults(self.model)
        if ignored:
            said = ", ".join(f"{key}={value}" for key, value in ignored.items())
            notify(f"{name} is published with {said}, which is not used: text is written greedily")
        template = self.tokenizer.chat_template
        self.info = ModelInfo(
            name=name,
            revision=revision,
            dtype=str(model.dtype).removeprefix("torch."),
            device=str(model.device),
            threads=torch.get_num_threads(),
            chat_template=hashlib.sha256(str(template).encode()).hexdigest()[:16] if template else None,
            forward=self.engine.kind if self.engine else "plain",
            adapter_sha256=adapter,
            content_sha256=content,
            chat=chat.recorded,
            generation_ignored=ignored,
        )

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Give torch the model's number of threads, and keep transformers quiet, for now.

        The methods here do so by themselves; what else reads with the model, or takes a gradient, has to.
        """
        with use_threads(self.info.threads), quiet():
            yield

    def fresh(self) -> Any:
        """The same model loaded once more, as transformers has it: to be trained, or to carry an adapter.

        Raises:
            UsageError: it carries an adapter. RunError: it was not made by ``load_model``.
        """
        if self.info.adapter_sha256:
            raise UsageError("`adapter`: the model carries an adapter already, and takes no second one.")
        if self._again is None:
            raise RunError(f"{self.info.name}: nobody knows where it was loaded from. Use load_model.")
        gc.collect()  # adapted models hold themselves in cycles; what was given up goes before the next one comes
        return self._again()

    @property
    def ends(self) -> tuple[int, ...]:
        """Ids of the tokens that end a text."""
        given = getattr(self.model.generation_config, "eos_token_id", None)
        own = given if isinstance(given, list) else [given]
        return tuple(dict.fromkeys(i for i in (*own, self.tokenizer.eos_token_id) if i is not None))

    def adapted(self, lora: Path, carried: bool = False) -> LanguageModel:
        """The model with a PEFT LoRA adapter that stays beside its weights, where bfloat16 would swallow it.

        Args:
            carried: it is one given with ``adapter``, of which a tokenizer beside it is part.

        Raises:
            InputError: the adapter is damaged or made for another model.
        """
        base = self.fresh()
        rows = base.get_input_embeddings().weight.shape[0]
        with self.at_work():
            tuned = with_lora(base, lora)
            tokenizer = tokenizer_for(lora, tuned, self.tokenizer) if carried else self.tokenizer
        if tuned.get_input_embeddings().weight.shape[0] < rows:
            require_rows(tuned, tokenizer, lora, "Put the tokenizer that it was trained with beside it.")
        return self._with(tuned, tokenizer, carried_hash(lora) if carried else lora_hash(lora).hex())

    def speaking(self, tokenizer: Any) -> LanguageModel:
        """The same weights behind another tokenizer and its chat template."""
        return self._with(self.model, tokenizer, self.info.adapter_sha256)

    def _with(self, model: Any, tokenizer: Any, adapter: str | None) -> LanguageModel:
        name, revision, chat = self.info.name, self.info.revision, self.chat.of(tokenizer)
        content = self.info.content_sha256
        with self.at_work():
            return LanguageModel(model, chat, name, revision, self._notify, content=content, adapter=adapter)

    def _forward_of(self, prompts: Prompts, preamble: str, virtual: int) -> PackedForward | PlainForward:
        encoded = self._tokenised(prompts, preamble)
        refuse_long(encoded.longest, virtual, self.context_length, bool(preamble))
        return self._forward(encoded, virtual)

    def _forward(self, encoded: Encoded, virtual: int) -> PackedForward | PlainForward:
        if self.steady is not None and encoded.longest + virtual >= self.steady:
            return PlainForward(self.model, encoded, alone=True)
        return PackedForward(self.engine, encoded) if self.engine else PlainForward(self.model, encoded)

    def longest(self, prompts: Prompts, preamble: str = "") -> int:
        """Tokens of the longest prompt with its longest option, soft tokens not counted."""
        return self._tokenised(prompts, preamble).longest

    def cost(self, prompts: Prompts, virtual: int = 0, preamble: str = "") -> int:
        """Tokens read to answer these prompts once."""
        return self._encoded(prompts, preamble, virtual).tokens(virtual)

    def logprobs(self, prompts: Prompts, soft: torch.Tensor | None = None, preamble: str = "") -> torch.Tensor:
        """Log-probabilities (population, prompts, options) of the options, as a torch tensor with its graph.

        Tokens are counted three times where ``soft`` wants a gradient: for the forward and the backward pass.

        Raises:
            UsageError: as ``answer``.
        """
        virtual = 0 if soft is None else soft.shape[1]
        if soft is not None and self._reads_ids:
            refuse_soft(self.info.name, self.model.config)
        with self.at_work():
            forward = self._encoded(prompts, preamble, virtual)
            logs = forward.logprobs(soft)
        self.tokens += forward.tokens(virtual) * len(logs) * (PASSES if logs.requires_grad else 1)
        return logs

    def answer(self, prompts: Prompts, soft: np.ndarray | None = None, preamble: str = "") -> Answers:
        """Option probabilities of all prompts under each soft prompt (population, T, dim), or of the bare model.

        Raises:
            UsageError: a prompt is longer than the model's context; nothing is computed.
            RunError: the model gives NaN or no probability at all.
        """
        if (open_ := prompts.layout.widths == 0).any():
            return self._answer_closed(prompts, ~open_, soft, preamble)
        with torch.no_grad():  # not inference mode: what is made here is used with gradients too
            tensor = None if soft is None else torch.from_numpy(np.asarray(soft)).to(self.model.device)
            logs = self.logprobs(prompts, tensor, preamble).cpu().double().numpy()
        return _as_answers(prompts.layout, logs)

    def weigh(self, encoded: Encoded, layout: Layout) -> Answers:
        """Option probabilities of prompts in any words, given as tokens, by the bare model; nothing is kept of them.

        Raises:
            RunError: the model gives NaN or no probability at all.
        """
        with torch.no_grad(), self.at_work():
            forward = self._forward(encoded, 0)
            logs = forward.logprobs(None).cpu().double().numpy()
        self.tokens += forward.tokens(0)
        return _as_answers(layout, logs)

    def _answer_closed(self, prompts: Prompts, closed: np.ndarray, soft: np.ndarray | None, preamble: str) -> Answers:
        """Open questions have no options: their rows stay zero, and all mass lies outside."""
        size = 1 if soft is None else len(soft)
        probs = np.zeros((size, *prompts.layout.codes.shape))
        outside = np.ones((size, len(prompts)))
        if closed.any():
            answers = self.answer(prompts.take(closed), soft, preamble)
            probs[:, closed], outside[:, closed] = answers.probs, answers.outside
        return Answers(prompts.layout, probs, outside)

    @property
    def remembers(self) -> bool:
        """Whether steps of one asking share what they read."""
        return self.engine is not None and self.engine.decoder is not None

    def stepwise(self, prompts: Prompts, steps: Steps, soft: np.ndarray) -> Asked:
        """Ask soft prompts (population, T, dim) one step of the prompts after another.

        A single step is a packed pass as ``answer`` makes it.
        """
        plan = self._steps(prompts, steps, soft.shape[1])
        return Asked(self, plan, torch.from_numpy(soft).to(self.model.device), prompts.layout)

    def batch(self, prompts: Prompts, virtual: int) -> int:
        """Candidates that one pass takes."""
        forward = self._encoded(prompts, "", virtual)
        return max(1, forward.most_tokens // forward.tokens(virtual))

    def _steps_of(self, prompts: Prompts, steps: Steps, virtual: int) -> RememberedSteps | RereadSteps:
        forward = self._encoded(prompts, "", virtual)
        if len(steps) == 1:
            return RereadSteps([forward], (tuple(range(len(prompts))),), virtual)
        if self.remembers and isinstance(forward, PackedForward) and len(forward.passes) == 1:
            return RememberedSteps(forward.engine, forward.passes[0].tree, forward.options, steps, virtual)
        return RereadSteps([self._encoded(prompts.take(np.array(step)), "", virtual) for step in steps], steps, virtual)

    def generate(self, prompts: Prompts, soft: np.ndarray | None = None, preamble: str = "", most: int = 8) -> Answers:
        """The same answers with greedily generated text beside the probabilities (population 1).

        Args:
            soft: one soft prompt (1, T, dim) or None.
            most: tokens generated at most; text ends at the first line break.
        """
        answers = self.answer(prompts, soft, preamble)
        with self.at_work():
            texts = write(self, [self.chat.asked(f"{preamble}{text}") for text in prompts.texts], soft, most)
        return Answers(answers.layout, answers.probs, answers.outside, tuple(texts), prompts.parse(texts))

    def token_vectors(self, ids: np.ndarray) -> np.ndarray:
        """Input embeddings (..., dim) in float32 of token ids."""
        with torch.no_grad():
            found = self.model.get_input_embeddings()(torch.from_numpy(np.asarray(ids)).to(self.model.device))
        return found.float().cpu().numpy()

    def ordinary_tokens(self) -> np.ndarray:
        """Ids of the vocabulary without special and added tokens."""
        size = self.model.get_input_embeddings().weight.shape[0]
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        return np.array([i for i in range(min(size, len(self.tokenizer))) if i not in special])


class Asked:
    """Candidates being asked in steps; ``LanguageModel.stepwise`` makes one."""

    def __init__(
        self, model: LanguageModel, plan: RememberedSteps | RereadSteps, soft: torch.Tensor, layout: Layout
    ) -> None:
        self._model, self._layout, self._count = model, layout, len(soft)
        self._asking = plan.begin(soft)
        self._tokens = iter(plan.tokens)

    def advance(self) -> np.ndarray:
        """Ask the next step: option probabilities (candidates, prompts, options) of the prompts asked so far.

        Raises:
            RunError: the model gives NaN or no probability at all.
        """
        with torch.no_grad(), self._model.at_work():
            logs = self._asking.advance().cpu().double().numpy()
        self._model.tokens += next(self._tokens) * self._count
        return _as_answers(self._layout, logs).probs

    def keep(self, rows: np.ndarray) -> None:
        """Go on with some candidates only (indices)."""
        self._count = len(rows)
        with torch.no_grad():
            self._asking.keep(torch.from_numpy(rows).to(self._model.model.device))


def _as_answers(layout: Layout, logs: np.ndarray) -> Answers:
    top = logs.max(-1, keepdims=True)
    if not np.isfinite(top).all():
        raise RunError("the model gave no finite probability for some prompt. Try `dtype` float32.")
    probs, _ = shares(np.exp(logs - top))
    _, outside = shares(np.exp(logs))
    return Answers(layout, probs, outside)
