"""Scaling of the cost of answering with items, paraphrases, personas, population, soft tokens and width."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from culteval.harness.models.load import DTYPES
from culteval.harness.models.local import LanguageModel
from culteval.harness.registry import spec_of
from culteval.tasks.prompts import Prompts, ProtocolOptions, render
from culteval.tasks.schema import Split

from .common import Row, Settings, alternate, say
from .packing import VIRTUAL, fit_prompts, loaded, soft_prompts

SIZES = {
    "items": (3, 6, 12, 24),
    "paraphrases": (1, 2, 4),
    "personas": (1, 2, 4),
    "population": (1, 2, 4, 8),
    "soft tokens": (0, 1, 10, 30, 60),
    "width": (256, 512, 1024, 2048),
}
Curves = dict[tuple[str, str], dict[int, float]]  # (factor, dtype): seconds by size


def measure(settings: Settings, sizes: Mapping[str, Sequence[int]] = SIZES) -> list[Row]:
    """Measure one row per point and one per curve, whose note is the exponent.

    The plot is written to ``settings.out``.
    """
    curves: Curves = {}
    for dtype in settings.dtypes:
        model = loaded(settings, dtype)
        for factor, values in sizes.items():
            say(f"scaling, {dtype}: {factor} {', '.join(map(str, values))}")
            works = {str(value): WORKS[factor](model, value) for value in values}
            times = alternate(works, settings.repeats)
            curves[factor, dtype] = {int(value): statistics.median(seconds) for value, seconds in times.items()}
    if settings.out:
        _plot(curves, settings)
    return [row for (factor, dtype), curve in curves.items() for row in _rows(factor, dtype, curve)]


def exponent(curve: Mapping[int, float]) -> float:
    """Compute the slope of log seconds over log size by least squares; size 0 is left out."""
    sizes = [size for size in curve if size > 0]
    return float(np.polyfit(np.log(sizes), np.log([curve[size] for size in sizes]), 1)[0])


def _rows(factor: str, dtype: str, curve: Mapping[int, float]) -> list[Row]:
    points = [Row(name=f"{factor} {size}", dtype=dtype, seconds=seconds) for size, seconds in curve.items()]
    return [*points, Row(name=f"{factor} exponent", dtype=dtype, note=f"{exponent(curve):.2f}")]


# ---------------------------------------------------------------- one factor each, the rest as in a fit on VSM13


def _answering(model: LanguageModel, prompts: Prompts, population: int = 1, virtual: int = VIRTUAL) -> Callable:
    soft = soft_prompts(model, population, virtual) if virtual else None
    return lambda: model.answer(prompts, soft)


def _items(model: LanguageModel, count: int) -> Callable:
    prompts = fit_prompts()
    return _answering(model, prompts.take(prompts.layout.item < count))


def _paraphrases(model: LanguageModel, count: int) -> Callable:
    spec = spec_of("vsm13")
    every = Split(paraphrases=spec.paraphrases[:count], orders=("natural",))
    metadata = spec.metadata.model_copy(update={"splits": spec.metadata.splits.model_copy(update={"fit": every})})
    return _answering(model, render(replace(spec, metadata=metadata), "fit"))


def _personas(model: LanguageModel, count: int) -> Callable:
    spec = spec_of("vsm13")
    return _answering(model, render(spec, "fit", ProtocolOptions(count)))


def _width(model: LanguageModel, width: int) -> Callable:
    """Build a random Llama of two layers and this hidden width, with the model's own tokenizer."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=len(model.tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=max(1, width // 64),
        max_position_embeddings=model.context_length,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config, dtype=DTYPES[model.info.dtype], attn_implementation="sdpa")
    wide = LanguageModel(
        made.to(model.model.device).requires_grad_(False), model.chat, f"random {width}", "seed 0", say
    )
    return _answering(wide, fit_prompts())


WORKS: dict[str, Callable[[LanguageModel, int], Callable[[], Any]]] = {
    "items": _items,
    "paraphrases": _paraphrases,
    "personas": _personas,
    "population": lambda model, count: _answering(model, fit_prompts(), population=count),
    "soft tokens": lambda model, count: _answering(model, fit_prompts(), virtual=count),
    "width": _width,
}


def _plot(curves: Curves, settings: Settings) -> None:
    """Plot one small log-log panel per factor, all of one height, one line per dtype, the exponents in the title."""
    from matplotlib.figure import Figure

    factors = list(dict.fromkeys(factor for factor, _ in curves))
    figure = Figure(figsize=(9, 2.7 * -(-len(factors) // 3)), layout="constrained")
    panels = figure.subplots(-(-len(factors) // 3), 3, squeeze=False, sharey=True).flat
    for panel_of, factor in zip(panels, factors, strict=False):
        slopes = []
        for dtype in settings.dtypes:
            curve = {size: seconds for size, seconds in curves[factor, dtype].items() if size > 0}
            panel_of.loglog(list(curve), list(curve.values()), "o-", label=dtype)
            slopes.append(f"{exponent(curve):.2f}")
        panel_of.set_title(f"{factor}: slope {', '.join(slopes)}", fontsize=9)
        panel_of.set_xticks(list(curve), [str(size) for size in curve])
        panel_of.xaxis.minorticks_off()
        panel_of.tick_params(labelsize=8)
    for empty in list(panels):
        empty.remove()
    figure.axes[0].legend(fontsize=8)
    figure.supylabel("seconds", fontsize=9)
    figure.savefig(settings.out, dpi=150)
