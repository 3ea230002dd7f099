"""The model ``culteval`` of lm-eval: packed forward passes for any task that ``hf`` runs, with the same numbers.

Importing this module registers the model; ``python -m culteval.harness.integrations.lm_eval_model run --model culteval
...`` runs lm-eval's own command line with it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import lm_eval.models  # noqa: F401  registers lm-eval's built-in models
import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from ..engine.model_config import steady_length, text_config
from ..engine.packed import Engine, PackedForward
from ..engine.select import engine_for, hooked_module
from ..engine.soft_prompt import prepend
from ..engine.tokenize import Encoded

Request = tuple[Any, list[int], list[int]]  # key of lm-eval's cache, tokens of the context, of the continuation

FEW_NODES = 2048  # per chunk, which is one pass
MOST_NODES = 4096  # per chunk whose requests share most of their text, as after few-shot examples
MOST_LOGITS = 1 << 27  # maximum number of float32 logits per chunk

log = logging.getLogger("lm_eval")


@register_model("culteval")
class CultevalLM(HFLM):
    """``hf`` with packed log-likelihoods, and with soft prompts that are correct in batches.

    It has the arguments of ``hf``. A ``peft`` folder may hold a soft prompt (prompt tuning) or LoRA. The argument
    ``max_length`` is the context length with virtual tokens; the property ``max_length`` is the length without them.

    Raises:
        ValueError: the virtual tokens fill the model's context.
    """

    _virtual = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        adapter = getattr(self.model, "active_peft_config", None)
        self._virtual = getattr(adapter, "num_virtual_tokens", 0)
        if self.max_length < 1:
            raise ValueError(f"{self._virtual} virtual tokens leave no room for text in the model's context")
        self._base = self.model.get_base_model() if adapter else self.model
        self._soft: torch.Tensor | None = None
        if adapter and adapter.peft_type == "PROMPT_TUNING":
            # From here on the model has no adapter, and this class inserts the soft prompt.
            self._soft, self._model = self.model.get_prompt(1).detach(), self._base
        self._engine = self._engine_for(adapter)

    @property
    def max_length(self) -> int:
        """Context length in tokens without the virtual tokens."""
        return super().max_length - self._virtual

    def _engine_for(self, adapter: Any) -> Engine | None:
        """Return the engine if packed log-likelihoods match; else None, with the reason in lm-eval's log."""
        reason = ""
        if self.backend != "causal":
            reason = "it is not a causal model"
        elif self.mixed_precision_dtype is not None:
            reason = "mixed precision is requested"
        elif adapter and adapter.peft_type not in ("PROMPT_TUNING", "LORA"):
            reason = f"its adapter is of kind {adapter.peft_type.value!s}"
        elif getattr(adapter, "alora_invocation_tokens", None):
            reason = "its adapter is activated by tokens"
        elif hooked := hooked_module(self._base):
            reason = f"{hooked} has a hook or a forward of its own"
        name = getattr(self._base, "name_or_path", "") or "the model"
        engine = None
        if not reason:
            engine, reason = engine_for(self._base, self.tokenizer)
        if reason:
            log.warning(f"packing is off for {name}: {reason}; using lm-eval's own forward passes")
        return engine

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Compute (log-probability, whether greedy) per request; lm-eval scores requests that cannot be packed."""
        if self._engine is None:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        packed = [i for i, request in enumerate(requests) if self._fits(*request)]
        rest = sorted(set(range(len(requests))) - set(packed))
        answers = dict(zip(packed, self._pack([requests[i] for i in packed], disable_tqdm), strict=True))
        if rest:
            # With a fixed batch size, since the search for one waits for processes that may have no such request.
            others = super()._loglikelihood_tokens([requests[i] for i in rest], disable_tqdm, override_bs or 1)
            answers.update(zip(rest, others, strict=True))
        return [answers[i] for i in range(len(requests))]

    def _fits(self, key: Any, context: list[int], continuation: list[int]) -> bool:
        # A request without a key is a window of a long text, all of whose tokens are scored: it shares nothing.
        # lm-eval truncates long requests from the left, and rejects empty ones.
        length = steady_length(text_config(self._base))
        steady = MOST_NODES if length is None else length - self._virtual
        limit = min(self.max_length + 1, MOST_NODES, steady)
        return key is not None and 0 < len(continuation) < len(context) + len(continuation) <= limit

    @torch.inference_mode()
    def _pack(self, requests: list[Request], disable_tqdm: bool) -> list[tuple[float, bool]]:
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        most_reads = MOST_LOGITS // self._base.get_output_embeddings().weight.shape[0]
        quiet = disable_tqdm or self.rank != 0
        with tqdm(total=len(requests), disable=quiet, desc="Running loglikelihood requests") as bar:
            for chunk in chunks(requests, most_reads):
                for i, answer in zip(chunk, self._read([requests[i] for i in chunk]), strict=True):
                    answers[i] = answer
                    self.cache_hook.add_partial("loglikelihood", requests[i][0], answer)
                bar.update(len(chunk))
        return answers

    def _read(self, requests: list[Request]) -> list[tuple[float, bool]]:
        """Score the requests of one chunk with one prefix tree."""
        options: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
        for _, context, continuation in requests:
            row = options.setdefault(tuple(context), {})
            row.setdefault(tuple(continuation), len(row))
        encoded = Encoded([list(context) for context in options], [[list(o) for o in row] for row in options.values()])
        assert self._engine is not None
        packed = PackedForward(self._engine, encoded, MOST_NODES).read(self._soft)
        at = {context: p for p, context in enumerate(options)}
        logs, greedy = (values[0].tolist() for values in packed)
        cells = [(at[tuple(c)], options[tuple(c)][tuple(o)]) for _, c, o in requests]
        return [(logs[p][o], greedy[p][o]) for p, o in cells]

    def _model_call(self, inps: torch.Tensor, attn_mask: Any = None, labels: Any = None) -> torch.Tensor:
        """Compute logits (batch, length, vocabulary) of right-padded tokens (batch, length) after the soft prompt."""
        if self._soft is None:
            return super()._model_call(inps, attn_mask, labels)
        text = self.model.get_input_embeddings()(inps)
        embeds = prepend(self._soft, text)
        kind, enabled = self.mixed_precision_dtype, self.mixed_precision_dtype is not None
        with torch.no_grad(), torch.autocast(self.device.type, kind, enabled):
            return self.model(inputs_embeds=embeds).logits[:, self._virtual :]

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **generation_kwargs: Any
    ) -> torch.Tensor:
        """Generate after left-padded tokens (batch, length) and the soft prompt; return prompt and new tokens."""
        if self._soft is None:
            return super()._model_generate(context, max_length, stop, **generation_kwargs)
        real = generation_kwargs.pop("attention_mask")
        text = self.model.get_input_embeddings()(context)
        embeds = prepend(self._soft, text, padding=(real == 0).sum(1).tolist())
        # The ids only keep lm-eval's number of columns; the last one is repeated because repetition penalties read it.
        ids = torch.cat([context[:, -1:].expand(-1, self._virtual), context], dim=1)
        generated = super()._model_generate(
            ids,
            max_length + self._virtual,
            stop,
            attention_mask=torch.nn.functional.pad(real, (0, self._virtual), value=1),
            inputs_embeds=embeds,
            **generation_kwargs,
        )
        return generated[:, self._virtual :]


def chunks(requests: Sequence[Request], most_reads: int) -> Iterator[list[int]]:
    """Yield indices of requests in chunks of bounded nodes and logits, keeping shared prefixes together."""
    chunk: list[int] = []
    nodes = reads = 0
    last: list[int] = []
    for i in sorted(range(len(requests)), key=lambda i: requests[i][1:]):
        _, context, continuation = requests[i]
        path = context + continuation[:-1]
        new = len(path) - _shared(path, last)
        limit = FEW_NODES if 2 * new > len(path) else MOST_NODES
        if chunk and (nodes + new > limit or reads + len(continuation) > most_reads):
            yield chunk
            chunk, nodes, reads, new = [], 0, 0, len(path)
        chunk.append(i)
        nodes, reads, last = nodes + new, reads + len(continuation), path
    if chunk:
        yield chunk


def _shared(one: list[int], other: list[int]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
