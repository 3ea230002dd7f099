"""Language models in memory, which score prompts in packed forward passes."""

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
from ...tasks.answers import Answers, Layout, shares, unweighed
from ...tasks.prompts import Prompts
from ...tasks.verbalized import stated_answers
from ..adapters.lora import require_rows, tokenizer_for, with_lora
from ..adapters.peft_files import carried_hash, lora_hash
from ..engine.chat import Chat
from ..engine.incremental import RememberedSteps, RereadSteps, Steps
from ..engine.int8 import dtype_of
from ..engine.model_config import context_of, reads_ids, steady_length, text_config
from ..engine.onednn import MappedFiles, lacking, may_pack
from ..engine.packed import PackedForward
from ..engine.padded import PlainForward
from ..engine.select import engine_for
from ..engine.tokenize import Encoded, encode
from ..model_info import ModelInfo
from ..util.at_work import quiet, use_threads
from ..util.display import Done
from .base import PASSES
from .context import refuse_long, refuse_soft
from .greedy import end_tokens, take_defaults, write


class LanguageModel:
    """A frozen causal language model that answers prompts, with or without soft prompts; made by ``load_model``.

    ``dim`` is the width of its embeddings, ``context_length`` its context length in tokens, None if its configuration
    does not give one; ``tokens`` is the number of tokens read so far. ``steady`` is the length in tokens up to which
    positions do not depend on prompt length, None if they never do. Soft prompts are a population (n, T, dim) float32.
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
        self.model, self.chat, self.tokenizer = model.eval(), chat, chat.tokenizer
        self.dim = model.get_input_embeddings().weight.shape[1]
        self.tokens = 0
        self._done: Done | None = None
        config = text_config(model)
        self.context_length, self.steady = context_of(config.to_dict()), steady_length(config)
        self._reads_ids = reads_ids(config)
        self.tokenised = lru_cache(maxsize=16)(partial(encode, chat))
        self._encoded = lru_cache(maxsize=16)(self._forward_of)
        self._steps = lru_cache(maxsize=4)(self._steps_of)
        self.engine, problem = engine_for(self.model, self.tokenizer)
        if problem:
            notify(f"packing is off for {name}: {problem}; using plain padded batches, which are slower")
        if may_pack(self.model) and (why := lacking()):
            notify(f"torch {torch.__version__} lacks the oneDNN products used here ({why}); using slower ones")
        ignored = take_defaults(self.model)
        if ignored:
            settings = ", ".join(f"{key}={value}" for key, value in ignored.items())
            notify(f"{name} is published with {settings}, which is ignored: text is generated greedily")
        template = self.tokenizer.chat_template
        self.info = ModelInfo(
            name=name,
            revision=revision,
            dtype=dtype_of(model),
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
    def watched(self, done: Done | None) -> Iterator[None]:
        """Tell ``done`` of prompts as they are answered inside the context; None tells nobody."""
        before, self._done = self._done, done
        try:
            yield
        finally:
            self._done = before

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Set torch's number of threads to the model's, and silence transformers, inside the context.

        The methods of this class use it; other code that runs the model or computes a gradient must.
        """
        with use_threads(self.info.threads), quiet():
            yield

    def fresh(self) -> Any:
        """Load the same transformers model again, to train it or to add an adapter.

        Raises:
            UsageError: the model has an adapter, or is in int8. RunError: it was not made by ``load_model``.
        """
        if self.info.dtype == "int8":
            raise UsageError("`dtype` int8 supports neither training nor adapters. Use float32 or bfloat16.")
        if self.info.adapter_sha256:
            raise UsageError("`adapter`: the model already has an adapter, and takes no second one.")
        if self._again is None:
            raise RunError(f"{self.info.name}: its origin is unknown, so it cannot be loaded again. Use load_model.")
        gc.collect()  # adapted models have reference cycles; free unused ones before the next is loaded
        return self._again()

    @property
    def ends(self) -> tuple[int, ...]:
        """Ids of the end tokens."""
        return end_tokens(self.model, self.tokenizer)

    def adapted(self, lora: Path, carried: bool = False) -> LanguageModel:
        """Return the model with a PEFT LoRA adapter, unmerged: merging would lose precision in bfloat16.

        Args:
            carried: whether the user gave it as ``adapter``; a tokenizer in its folder is then used too.

        Raises:
            InputError: the adapter is damaged or made for another model.
        """
        base = self.fresh()
        rows = base.get_input_embeddings().weight.shape[0]
        with self.at_work():
            tuned = with_lora(base, lora)
            tokenizer = tokenizer_for(lora, tuned, self.tokenizer) if carried else self.tokenizer
        if tuned.get_input_embeddings().weight.shape[0] < rows:
            require_rows(tuned, tokenizer, lora, "Add the tokenizer that it was trained with to the folder.")
        digest = carried_hash(lora) if carried else lora_hash(lora).hex()
        return self._with(tuned.requires_grad_(False), tokenizer, digest)

    def learner(self, tuned: Any) -> LanguageModel:
        """Return the model of a PEFT adapter in training, whose log-probabilities have the graph of its weights.

        Its layers that are not trained are replaced by faster ones with the same weights, in ``tuned`` too.

        Args:
            tuned: a PEFT model around ``fresh()``.
        """
        return self._with(tuned.get_base_model(), self.tokenizer, None)

    def speaking(self, tokenizer: Any) -> LanguageModel:
        """Return a model with the same weights, another tokenizer and its chat template."""
        return self._with(self.model, tokenizer, self.info.adapter_sha256)

    def _with(self, model: Any, tokenizer: Any, adapter: str | None) -> LanguageModel:
        name, revision, chat = self.info.name, self.info.revision, self.chat.of(tokenizer)
        content = self.info.content_sha256
        with self.at_work():
            return LanguageModel(model, chat, name, revision, self._notify, content=content, adapter=adapter)

    def _forward_of(self, prompts: Prompts, preamble: str, virtual: int) -> PackedForward | PlainForward:
        encoded = self.tokenised(prompts, preamble)
        refuse_long(encoded.longest, virtual, self.context_length, bool(preamble))
        return self._forward(encoded, virtual)

    def _forward(self, encoded: Encoded, virtual: int) -> PackedForward | PlainForward:
        if self.steady is not None and encoded.longest + virtual >= self.steady:
            return PlainForward(self.model, encoded, alone=True)
        return PackedForward(self.engine, encoded) if self.engine else PlainForward(self.model, encoded)

    def longest(self, prompts: Prompts, preamble: str = "", most: int = 0) -> int:
        """Return the tokens of the longest prompt and its longest answer, without soft tokens; see ``Model``."""
        encoded = self.tokenised(prompts, preamble)
        written = most + self.chat.most_thoughts if most else 0
        return max(encoded.longest, max(map(len, encoded.contexts)) + written)

    def cost(self, prompts: Prompts, virtual: int = 0, preamble: str = "") -> int:
        """Return the number of tokens read to answer prompts once."""
        return self._encoded(prompts, preamble, virtual).tokens(virtual)

    def cost_of(self, encoded: Encoded) -> int:
        """Return the number of tokens read to answer tokenised prompts once."""
        return self._forward(encoded, 0).tokens(0)

    def logprobs(self, prompts: Prompts, soft: torch.Tensor | None = None, preamble: str = "") -> torch.Tensor:
        """Compute log-probabilities (population, prompts, options) as a torch tensor with its graph.

        Of cloze prompts they are those of ``Prompts.read_logs``.
        Tokens are counted three times if ``soft`` requires a gradient, for the forward and the backward pass.

        Raises:
            UsageError: as ``answer``.
        """
        virtual = 0 if soft is None else soft.shape[1]
        if soft is not None and self._reads_ids:
            refuse_soft(self.info.name, self.model.config)
        with self.at_work():
            forward = self._encoded(prompts, preamble, virtual)
            logs = prompts.read_logs(forward.logprobs(soft, self._done))
            absent = prompts.layout.codes.shape[1] - logs.shape[-1]  # options of wider prompts than these
            logs = torch.nn.functional.pad(logs, (0, absent), value=-torch.inf)
        self.tokens += forward.tokens(virtual) * len(logs) * (PASSES if logs.requires_grad else 1)
        return logs

    def answer(self, prompts: Prompts, soft: np.ndarray | None = None, preamble: str = "") -> Answers:
        """Compute option probabilities of all prompts under each soft prompt (population, T, dim), or without.

        Raises:
            UsageError: a prompt is longer than the model's context; nothing is computed.
            RunError: the model gives NaN or no probability at all.
        """
        if (open_ := prompts.layout.widths == 0).any():
            return self._answer_closed(prompts, ~open_, soft, preamble)
        with torch.no_grad():  # not inference mode: tensors cached here are used with gradients too
            tensor = None if soft is None else torch.from_numpy(np.asarray(soft)).to(self.model.device)
            logs = self.logprobs(prompts, tensor, preamble).cpu().double().numpy()
        return as_answers(prompts.layout, logs)

    def logprobs_of(self, encoded: Encoded) -> torch.Tensor:
        """Compute ``logprobs`` of tokenised prompts, without a soft prompt; nothing is cached."""
        with self.at_work():
            forward = self._forward(encoded, 0)
            logs = forward.logprobs(None)
        self.tokens += forward.tokens(0) * (PASSES if logs.requires_grad else 1)
        return logs

    def weigh(self, encoded: Encoded, layout: Layout) -> Answers:
        """Compute option probabilities of tokenised prompts, without a soft prompt; nothing is cached.

        Raises:
            RunError: the model gives NaN or no probability at all.
        """
        with torch.no_grad():
            logs = self.logprobs_of(encoded).cpu().double().numpy()
        return as_answers(layout, logs)

    def _answer_closed(self, prompts: Prompts, closed: np.ndarray, soft: np.ndarray | None, preamble: str) -> Answers:
        """Answer prompts with options; open questions have none: their rows are zero, and all mass lies outside."""
        size = 1 if soft is None else len(soft)
        probs = np.zeros((size, *prompts.layout.codes.shape))
        outside = np.ones((size, len(prompts)))
        if closed.any():
            answers = self.answer(prompts.take(closed), soft, preamble)
            probs[:, closed], outside[:, closed] = answers.probs, answers.off_options
        return Answers(prompts.layout, probs, outside)

    def activations(self, prompts: Prompts, preamble: str = "", options: np.ndarray | None = None) -> np.ndarray:
        """Compute the outputs of all layers (layers, prompts, dim) float32 at the last token of each prompt.

        Args:
            options: places (prompts,) of options in their rows, whose text follows the prompts.
        """
        encoded = self.tokenised(prompts, preamble)
        rows = encoded.contexts
        if options is not None:
            rows = [row + given[at] for row, given, at in zip(rows, encoded.options, options, strict=True)]
        refuse_long(max(map(len, rows)), 0, self.context_length, bool(preamble))
        read = []
        with torch.no_grad(), self.at_work():
            for row in rows:
                ids = torch.tensor([row], device=self.model.device)
                states = self.model.get_decoder()(input_ids=ids, output_hidden_states=True, use_cache=False)
                read.append(torch.stack([state[0, -1].float() for state in states.hidden_states[1:]]).cpu())
        self.tokens += sum(map(len, rows))
        outputs: np.ndarray = torch.stack(read, dim=1).numpy()
        return outputs

    @property
    def remembers(self) -> bool:
        """Whether the steps of ``stepwise`` share a KV cache."""
        return self.engine is not None and self.engine.decoder is not None

    def stepwise(self, prompts: Prompts, steps: Steps, soft: np.ndarray) -> Asked:
        """Begin to score soft prompts (population, T, dim) on prompts, step by step.

        A single step is the same packed pass as in ``answer``.
        """
        plan = self._steps(prompts, steps, soft.shape[1])
        return Asked(self, plan, torch.from_numpy(soft).to(self.model.device), prompts)

    def batch(self, prompts: Prompts, virtual: int) -> int:
        """Return the number of candidates per pass."""
        forward = self._encoded(prompts, "", virtual)
        return max(1, forward.most_tokens // forward.tokens(virtual))

    def _steps_of(self, prompts: Prompts, steps: Steps, virtual: int) -> RememberedSteps | RereadSteps:
        forward = self._encoded(prompts, "", virtual)
        if len(steps) == 1:
            return RereadSteps([forward], (tuple(range(len(prompts))),), virtual)
        if self.remembers and isinstance(forward, PackedForward) and len(forward.passes) == 1:
            return RememberedSteps(forward.engine, forward.passes[0].tree, forward.options, steps, virtual)
        return RereadSteps([self._encoded(prompts.take(np.array(step)), "", virtual) for step in steps], steps, virtual)

    def generate(
        self,
        prompts: Prompts,
        soft: np.ndarray | None = None,
        preamble: str = "",
        most: int = 8,
        *,
        weighed: bool = True,
    ) -> Answers:
        """Compute option probabilities and generate text greedily (population 1).

        Args:
            soft: one soft prompt (1, T, dim) or None.
            most: maximum number of generated tokens; text ends at the first line break, but not that of ``verbalized``
                prompts, whose option probabilities are the shares that it states.
            weighed: whether option probabilities are computed.
        """
        with self.watched(None):  # told of their texts
            answers = self.answer(prompts, soft, preamble) if weighed and not prompts.verbalized else None
        with self.at_work():
            rendered = [self.chat.render_prompt(f"{preamble}{text}") for text in prompts.texts]
            texts = write(self, rendered, soft, most, self._done)
        if prompts.verbalized:
            return stated_answers(prompts.layout, texts)
        texts = [text.partition("\n")[0] for text in texts]
        probs, outside = (answers.probs, answers.off_options) if answers else unweighed(prompts.layout)
        return Answers(prompts.layout, probs, outside, tuple(texts), prompts.parse(texts))

    def token_vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return input embeddings (..., dim) in float32 of token ids."""
        with torch.no_grad():
            vectors = self.model.get_input_embeddings()(torch.from_numpy(np.asarray(ids)).to(self.model.device))
        return vectors.float().cpu().numpy()

    def vocabulary_parts(self, rows: int = 4096) -> Iterator[np.ndarray]:
        """Yield the embeddings (up to rows, dim) float32 of all ordinary tokens, in parts: together they are large.

        Pages of the embedding matrix that are mapped from a file are given back after each part.
        """
        ids, files = self.ordinary_tokens(), MappedFiles()
        for start in range(0, len(ids), rows):
            yield self.token_vectors(ids[start : start + rows])
            files.give_back(self.model.get_input_embeddings().weight)

    def ordinary_tokens(self) -> np.ndarray:
        """Return the ids of the vocabulary without special and added tokens."""
        size = self.model.get_input_embeddings().weight.shape[0]
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        return np.array([i for i in range(min(size, len(self.tokenizer))) if i not in special])


class Asked:
    """The scoring of candidates in steps; made by ``LanguageModel.stepwise``."""

    def __init__(
        self, model: LanguageModel, plan: RememberedSteps | RereadSteps, soft: torch.Tensor, prompts: Prompts
    ) -> None:
        self._model, self._prompts, self._count = model, prompts, len(soft)
        self._asking = plan.begin(soft)
        self._tokens = iter(plan.tokens)

    def advance(self) -> np.ndarray:
        """Score the next step; return option probabilities (candidates, prompts, options), valid for prompts so far.

        Raises:
            RunError: the model gives NaN or no probability at all.
        """
        with torch.no_grad(), self._model.at_work():
            logs = self._asking.advance().cpu().double().numpy()
        self._model.tokens += next(self._tokens) * self._count
        return as_answers(self._prompts.layout, self._prompts.read_logs(logs)).probs

    def keep(self, rows: np.ndarray) -> None:
        """Continue with some candidates only (indices)."""
        self._count = len(rows)
        with torch.no_grad():
            self._asking.keep(torch.from_numpy(rows).to(self._model.model.device))


def as_answers(layout: Layout, logs: np.ndarray) -> Answers:
    """Return answers with log-probabilities (population, prompts, options), of as many options as some prompt has.

    Raises:
        RunError: a prompt has no finite one.
    """
    logs = np.pad(logs, ((0, 0), (0, 0), (0, layout.codes.shape[1] - logs.shape[-1])), constant_values=-np.inf)
    top = logs.max(-1, keepdims=True)
    if not np.isfinite(top).all():
        raise RunError("the model gave no finite probability for some prompt. Try `dtype` float32.")
    probs, _ = shares(np.exp(logs - top))
    _, outside = shares(np.exp(logs))
    return Answers(layout, probs, outside)
