"""The adapter in training: LoRA beside the frozen weights, optionally with head and embeddings in full."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field

from ...errors import RunError
from ...harness.util.atomic_io import replacing, write_json

SIZE = "size.json"  # beside the adapter's own files
ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
_NAME = "default"  # peft's default name of an adapter


class LoraSettings(Protocol):
    """The settings of an adapter: LoRA of ``rank`` and ``alpha`` with ``dropout`` on ``modules``.

    With ``save_embeddings`` head and embeddings are trained in full too.
    """

    @property
    def rank(self) -> int: ...

    @property
    def alpha(self) -> float: ...

    @property
    def dropout(self) -> float: ...

    @property
    def modules(self) -> tuple[str, ...]: ...

    @property
    def save_embeddings(self) -> bool: ...


def attached(base: Any, settings: LoraSettings) -> Any:
    """Attach a new adapter to a transformers model with peft; all trained weights are in float32.

    Raises:
        RunError: the model has no such modules.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # annotated as int, but used as a factor
        lora_dropout=settings.dropout,
        target_modules=list(settings.modules),
        modules_to_save=["lm_head", "embed_tokens"] if settings.save_embeddings else None,
        task_type="CAUSAL_LM",
    )
    dtype = base.dtype
    try:
        tuned = get_peft_model(base, config)  # LoRA is in float32, but copies of whole modules are in the model's dtype
    except ValueError as error:
        raise RunError(f"{str(error).splitlines()[0][:200]} (`settings` modules).") from None
    for _, copy in _whole(tuned):
        _to_float32(copy, dtype)
    return tuned


def save(tuned: Any, folder: Path) -> None:
    """Write the folder of a PEFT adapter atomically, whole modules in the model's dtype; ``SIZE`` records its size."""
    size = sizes(tuned)
    for original, copy in _whole(tuned):
        copy.to(original.weight.dtype)
    with replacing(folder) as temporary:
        tuned.save_pretrained(str(temporary), selected_adapters=[_NAME])  # without the reference of a trainer
        write_json(temporary / SIZE, size)


def sizes(tuned: Any) -> dict[str, float]:
    """Compute the relative size of the learned change: the quotient of the Frobenius norms over all modules.

    ``lora``: the product of LoRA's matrices, scaled; ``in full``: the change of head and embeddings, if trained. A step
    of bfloat16 is 0.004 of a number: a change far below it leaves most of the model's numbers unchanged.
    """
    from peft.tuners.lora import LoraLayer

    pairs = {"lora": [0.0, 0.0], "in full": [0.0, 0.0]}  # squares of update and weight
    layers: list[Any] = [module for module in tuned.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        down, up = (part[_NAME].weight.detach().double() for part in (layer.lora_A, layer.lora_B))
        # The squared norm of up @ down, without a matrix of the weight's size.
        square = layer.scaling[_NAME] ** 2 * ((up.T @ up) * (down @ down.T)).sum()
        pairs["lora"][0] += float(square)
        pairs["lora"][1] += float(layer.get_base_layer().weight.detach().float().square().sum())
    for original, copy in _whole(tuned):
        before, after = original.weight.detach().float(), copy.weight.detach().float()
        pairs["in full"][0] += float((after - before).square().sum())
        pairs["in full"][1] += float(before.square().sum())
    return {name: (update / weight) ** 0.5 for name, (update, weight) in pairs.items() if weight}


def size_of(folder: Path) -> dict[str, float]:
    """Return ``sizes`` of a saved adapter to two digits; empty if they were not recorded."""
    path = folder / SIZE
    noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: float(f"{size:.2g}") for name, size in noted.items()}


def _whole(tuned: Any) -> Iterator[tuple[Any, Any]]:
    """Return the modules that are trained in full: the frozen one and the copy."""
    from peft.utils import ModulesToSaveWrapper

    for module in tuned.modules():
        if isinstance(module, ModulesToSaveWrapper):
            yield module.original_module, module.modules_to_save[_NAME]


def _to_float32(copy: Any, dtype: Any) -> None:
    """Train a module in float32 among layers of ``dtype``: in bfloat16 most of the optimiser's steps round away."""
    import torch

    copy.float()
    if isinstance(copy, torch.nn.Embedding):
        copy.register_forward_hook(lambda module, given, found: found.to(dtype))
    else:
        copy.register_forward_pre_hook(lambda module, given: (given[0].float(), *given[1:]))
