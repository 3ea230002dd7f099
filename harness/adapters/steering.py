"""Write steering vectors as a LoRA adapter: constants added to the residual stream after some layers.

The last product of a layer's feed-forward part is added to the residual stream as it is. A bias of that product is
therefore a vector added to the output of the layer, and peft's ``lora_bias`` adds one: with A and B zero the adapter
changes nothing else. peft, lm-eval and the packed engine run it without knowing what it is for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UsageError
from .peft_files import CONFIG, LORA, WEIGHTS

OUTPUTS = ("mlp.down_proj", "mlp.dense_4h_to_h", "mlp.fc2")  # last product of a layer's feed-forward part
_NORMED = "post_feedforward_layernorm"  # of layers that change the product before they add it


def output_modules(model: Any) -> dict[int, tuple[str, Any]]:
    """Return by number of layer the name and module of the product that a layer adds to the residual stream.

    Raises:
        UsageError: the layers of this architecture have none that can be steered.
    """
    found: dict[int, tuple[str, Any]] = {}
    for name, module in model.named_modules():
        stem, _, last = name.rpartition(".mlp.")
        number = stem.rpartition(".")[2]
        if stem and f"mlp.{last}" in OUTPUTS and number.isdigit():
            found[int(number)] = (name, module)
    normed = any(name.endswith(_NORMED) for name, _ in model.named_modules())
    if not found or normed:
        raise UsageError(
            f"aligner steer: layers of {model.config.model_type} cannot be steered: "
            f"{'their output is normalised' if normed else 'none of ' + ', '.join(OUTPUTS) + ' in them'}."
        )
    return found


def write_steering(folder: Path, model: Any, name: str, vectors: Mapping[int, np.ndarray]) -> None:
    """Write the adapter that adds ``vectors`` (dim,) to the outputs of layers, by their numbers from 0.

    Args:
        model: the transformers model that is steered.
        name: that of the base model, for the adapter's configuration.

    Raises:
        UsageError: the architecture cannot be steered.
    """
    import torch
    from safetensors.torch import save_file

    modules, tensors = output_modules(model), {}
    for number, vector in vectors.items():
        path, module = modules[number]
        prefix = f"base_model.model.{path}.lora_"
        tensors[f"{prefix}A.weight"] = torch.zeros(1, module.in_features)
        tensors[f"{prefix}B.weight"] = torch.zeros(module.out_features, 1)
        tensors[f"{prefix}B.bias"] = torch.from_numpy(np.array(vector, dtype=np.float32))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        "peft_type": LORA,
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "base_model_name_or_path": name,
        "r": 1,
        "lora_alpha": 1,
        "lora_bias": True,
        "target_modules": [modules[min(vectors)][0].rpartition(".")[2]],
        "layers_to_transform": sorted(vectors),
    }
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")


def set_steering(tuned: Any, vectors: Mapping[int, np.ndarray]) -> None:
    """Set the vectors of a model that has such an adapter; layers without one get zero."""
    import torch

    for number, (_, module) in output_modules(tuned).items():
        for one in getattr(module, "lora_B", {}).values():
            one.bias.copy_(torch.from_numpy(np.array(vectors.get(number, 0.0), dtype=np.float32)))
