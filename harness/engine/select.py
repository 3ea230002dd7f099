"""Select the fastest backend of a model whose log-likelihoods match those of padded passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .int8 import dtype_of
from .model_config import other_kind, other_window, reads_ids, sliding_window, text_config
from .onednn import in_pieces
from .packed import Engine, PackedForward
from .padded import PlainForward
from .tokenize import Encoded

TOLERANCE = {
    "float32": 1e-4,
    "float16": 0.05,
    "bfloat16": 0.4,
    "int8": 0.8,
}  # of log-likelihoods, packed against padded
# Rounding may move the log-likelihood of one unlikely option by more. Then the tolerance is that of the root mean
# square, and the shares of the options may differ by this at most.
SHARES = {"float16": 0.02, "bfloat16": 0.06, "int8": 0.12}
# Libraries whose hooks change no answer: they move tensors between devices, capture outputs, run quantised layers.
LIBRARIES = ("accelerate", "compressed_tensors", "peft", "torch", "transformers")
CHECKED_WINDOW = 8  # tokens, during the check: shorter than its prompts, which are short to be fast


def engine_for(model: Any, tokenizer: Any) -> tuple[Engine | None, str]:
    """Return the fastest engine that matches padded passes on three prompts, or None and the reason.

    Two prompts share a prefix, one option has two tokens, and all are scored with and without a soft prompt. Padded
    passes run first, on the model as loaded. During the check sliding windows are shorter than the prompts.
    """
    config = text_config(model)
    if name := other_window(config):
        return None, f"its attention is limited by {name}, which accepts no custom mask"
    if kind := other_kind(config):
        return None, f"it has {kind} layers, which accept no custom mask"
    # Ordinary text without a chat template: text unlike the training data is too ill-conditioned to compare.
    yes, no = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("1", "2"))
    texts = [f"Reply with a number.\n1 = yes\n2 = no\n{question}" for question in ("Is it so?", "Or not?")]
    contexts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (*texts, "Well?")]
    encoded = Encoded(contexts, [[yes, no], [yes, no + yes], [no, yes]])
    with torch.no_grad(), _short_window(config):
        softs: list[Any] = [None]
        if not reads_ids(config):
            softs.append(model.get_input_embeddings()(torch.tensor([contexts[2]], device=model.device)))
        with in_pieces(model):
            plain = [PlainForward(model, encoded).logprobs(soft) for soft in softs]
        problem = ""
        for fused in (True, False):
            engine = Engine(model, fused)
            try:
                packed = [PackedForward(engine, encoded).logprobs(soft) for soft in softs]
            except (
                AttributeError,
                IndexError,
                KeyError,
                NotImplementedError,
                RuntimeError,
                TypeError,
                ValueError,
            ) as error:
                problem = f"its forward pass refuses a packed mask ({type(error).__name__})"
                continue
            if _equal(torch.stack(packed), torch.stack(plain), dtype_of(model)):
                return engine, ""
            worst = float((torch.stack(packed) - torch.stack(plain)).abs().max())
            problem = f"packed and plain log-likelihoods differ by {worst:.1g}"
    return None, problem


def hooked_module(model: Any) -> str | None:
    """Return the name of a module with a forward hook or a replaced ``forward``, None without one.

    Neither weights nor configuration tell of those, and fused layers do not run them. Those of libraries do not count.
    """
    for name, module in model.named_modules():
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        hooks += [own for own in (vars(module).get("forward"), getattr(module, "_hf_hook", None)) if own is not None]
        if any(_origin(hook) not in LIBRARIES for hook in hooks):
            return name or type(module).__name__
    return None


def _origin(hook: Any) -> str:
    """Return the package of a hook: of a function that of its code, since a wrapper has the name of what it wraps.

    What a library's decorator wraps, such as that of ``torch.no_grad``, is judged by itself.
    """
    hook = getattr(hook, "func", hook)  # of a partial
    inner = getattr(hook, "__wrapped__", None)
    if inner is not None and (origin := _origin(inner)) not in LIBRARIES:
        return origin
    module = getattr(hook, "__globals__", {}).get("__name__") or type(hook).__module__
    return str(module).partition(".")[0]


def _equal(packed: torch.Tensor, plain: torch.Tensor, dtype: str) -> bool:
    """Return whether log-likelihoods (..., options) are the same up to the rounding of ``dtype``."""
    off, most = (packed - plain).abs(), TOLERANCE.get(dtype, 1e-4)
    if float(off.max()) <= most:
        return True
    shares = (packed.softmax(-1) - plain.softmax(-1)).abs().max()
    return dtype in SHARES and float(off.square().mean().sqrt()) <= most and float(shares) <= SHARES[dtype]


@contextmanager
def _short_window(config: Any) -> Iterator[None]:
    """Shorten sliding windows inside the context. Each pass makes its masks from the configuration."""
    window = sliding_window(config)
    if window is None:
        yield
        return
    config.sliding_window = min(window, CHECKED_WINDOW)
    try:
        yield
    finally:
        config.sliding_window = window
