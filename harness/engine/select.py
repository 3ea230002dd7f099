"""Select the fastest backend of a model whose log-likelihoods match those of padded passes."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .int8 import dtype_of
from .model_config import other_window, reads_ids, sliding_window, text_config
from .onednn import in_pieces
from .packed import Engine, PackedForward
from .padded import PlainForward
from .tokenize import Encoded

# Packed against padded: log-likelihoods (root mean square: bfloat16 may round one unlikely option's by more) and shares
# of the options (largest difference).
TOLERANCE = {
    "float32": (1e-4, 5e-5),
    "float16": (0.05, 0.02),
    "bfloat16": (0.4, 0.06),
    "int8": (0.8, 0.12),
}
CHECKED_WINDOW = 8  # tokens, during the check: shorter than its prompts, which are short to be fast


def engine_for(model: Any, tokenizer: Any) -> tuple[Engine | None, str]:
    """Return the fastest engine that matches padded passes on three prompts, or None and the reason.

    Two prompts share a prefix, one option has two tokens, and all are scored with and without a soft prompt. Padded
    passes run first, on the model as loaded. During the check sliding windows are shorter than the prompts.
    """
    config = text_config(model)
    if name := other_window(config):
        return None, f"its attention is limited by {name}, which accepts no custom mask"
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
            apart = _apart(torch.stack(packed), torch.stack(plain))
            if all(map(operator.le, apart, TOLERANCE.get(dtype_of(model), TOLERANCE["float32"]))):
                return engine, ""
            problem = f"packed and plain log-likelihoods differ by {apart[0]:.1g}, shares of options by {apart[1]:.1g}"
    return None, problem


def _apart(packed: torch.Tensor, plain: torch.Tensor) -> tuple[float, float]:
    """Compute how far log-likelihoods (..., options) are apart, and the shares of the options they give."""
    shares = (packed.softmax(-1) - plain.softmax(-1)).abs().max()
    return float((packed - plain).square().mean().sqrt()), float(shares)


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
