"""GPU utilisation: whole populations on SmolLM2 and on random weights of Llama-3-8B's shape, against stock lm-eval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from culteval.errors import UsageError
from culteval.harness.engine.chat import Chat
from culteval.harness.models.local import LanguageModel

from .common import Row, Settings, say, source_of, wall
from .packing import Peer, compare, fit_prompts, soft_prompts

VIRTUAL = (10, 60)
POPULATIONS = (16, 64)

Maker = Callable[[Settings, torch.dtype], tuple[Any, Any]]


def smollm2(settings: Settings, dtype: torch.dtype) -> tuple[Any, Any]:
    """Load the embedded model and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = source_of("smollm2")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    return model.to(settings.device), AutoTokenizer.from_pretrained(folder)


def llama_8b(settings: Settings, dtype: torch.dtype) -> tuple[Any, Any]:
    """Build random weights of the shape of Llama-3-8B (arXiv 2407.21783, table 3), with the embedded tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig

    shape = LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )
    return from_config(shape, settings, dtype), AutoTokenizer.from_pretrained(source_of("smollm2"))


def from_config(config: Any, settings: Settings, dtype: torch.dtype) -> Any:
    """Build random weights on the device."""
    from transformers import AutoModelForCausalLM

    with torch.device(settings.device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")


MODELS: dict[str, Maker] = {"smollm2": smollm2, "llama-3-8b shape": llama_8b}


def measure(
    settings: Settings,
    models: dict[str, Maker] = MODELS,
    virtual: tuple[int, ...] = VIRTUAL,
    populations: tuple[int, ...] = POPULATIONS,
) -> list[Row]:
    """Measure rows of each model, dtype, length of the soft prompt and population."""
    if models is MODELS and settings.device != "cuda":
        raise UsageError("gpu: an 8B model is too slow on a processor. Use --device cuda.")
    rows = []
    for name, make in models.items():
        for dtype in settings.dtypes:
            say(f"gpu, {name}, {dtype}")
            kind = getattr(torch, dtype)
            ceiling = matrix_ceiling(kind, settings.device, 8192 if settings.device == "cuda" else 256)
            for length in virtual:
                rows += _measure(settings, name, make(settings, kind), length, populations, ceiling)
    return rows


def matrix_ceiling(dtype: torch.dtype, device: str, size: int) -> float:
    """Measure the operations per second of a square matrix product of this size, the best of five."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * size**3 / min(wall(lambda: torch.mm(a, b)) for _ in range(5))


def _measure(
    settings: Settings, name: str, made: tuple[Any, Any], length: int, populations: tuple[int, ...], ceiling: float
) -> list[Row]:
    from lm_eval.models.huggingface import HFLM
    from peft import PromptTuningConfig, get_peft_model

    raw, tokenizer = made
    weights = sum(p.numel() for p in raw.base_model.layers.parameters())
    model, prompts = LanguageModel(raw.requires_grad_(False), Chat(tokenizer), name, "random", say), fit_prompts()
    soft = soft_prompts(model, max(populations), length)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
    prompted = get_peft_model(raw, config).eval()
    with torch.no_grad():
        prompted.prompt_encoder["default"].embedding.weight.copy_(torch.from_numpy(soft[0]))
    peer = Peer.of(HFLM(pretrained=prompted, tokenizer=tokenizer, batch_size=1), tokenizer, prompts)
    work = 2 * weights * model.cost(prompts, length)
    rows = []
    for size in populations:
        for row in compare(model, peer, prompts, {f"population {size}": soft[:size]}, settings):
            share = work / row.seconds / ceiling
            about = f"{share:.0%} of {ceiling / 1e12:,.1f} T operations/s; {model.info.forward}; {row.note}"
            rows.append(row.model_copy(update={"name": f"{name}, T {length}, {row.name}", "note": about}))
    return rows
