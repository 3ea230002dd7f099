"""Convert a GGUF file into a folder that transformers loads: configuration, safetensors in one dtype, tokenizer.

Run as ``python -m culteval.harness.models.convert FILE.gguf FOLDER``, in a process of its own: libraries print progress
bars and draw random numbers. Weights are written in shards, of which one is in memory at a time.

Values are those of the package gguf, float32. Rounded to bfloat16, as some loaders do, the answers of
Qwen2.5-Coder-0.5B to vsm13 move by up to 0.005 in probability, and one in 144 changes its most probable option.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...errors import InputError
from .converted import weight_bytes
from .gguf import Header, Tensor, head_size, read_header, require_supported

if TYPE_CHECKING:
    import numpy as np
    import torch

MOST_SINGLE: Final = 1 << 30  # bytes of a model in one file
SHARD: Final = 1 << 28  # bytes; what is in memory while converting, and mapped until its layers have been packed
CHUNK: Final = 1 << 24  # weights de-quantised at once

_COMMON = {
    "attn_k": "self_attn.k_proj",
    "attn_norm": "input_layernorm",
    "attn_output": "self_attn.o_proj",
    "attn_q": "self_attn.q_proj",
    "attn_v": "self_attn.v_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.up_proj",
}
_HEAD_NORMS = {"attn_k_norm": "self_attn.k_norm", "attn_q_norm": "self_attn.q_norm"}
_GEMMA = {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_LAYER_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "llama": _COMMON,
    "qwen2": _COMMON,
    "qwen3": _COMMON | _HEAD_NORMS,
    "gemma2": _COMMON | _GEMMA,
    "gemma3": _COMMON | _GEMMA | _HEAD_NORMS,
    "phi3": _COMMON | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
}
_OUTER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ROPE_FREQUENCIES: Final = "rope_freqs.weight"  # of Llama 3: no weight but part of the configuration


def write_folder(path: Path, out: Path) -> None:
    """Convert a GGUF file into the folder ``out``, which exists and is empty.

    Raises:
        InputError: the file is damaged or cannot be answered with exactly.
    """
    header = read_header(path)
    require_supported(header)
    config = configuration(header)
    config.dtype = _write_weights(header, config, out)
    config.save_pretrained(out)
    _generation(header, config).save_pretrained(out)
    tokenizer_of(header).save_pretrained(out)


def configuration(header: Header) -> Any:
    """Make transformers' configuration of a supported file."""
    from transformers import AutoConfig

    values, get = header.values, header.setting
    architecture, heads = header.architecture, get("attention.head_count")
    window = get("attention.sliding_window")
    kind = {"gemma3": "gemma3_text", "llama": "mistral" if window else "llama"}.get(architecture, architecture)
    given: dict[str, Any] = {
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "max_position_embeddings": get("context_length"),
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon", 1e-5),
        "rope_theta": get("rope.freq_base", 1e4),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "_model_name_or_path": str(values.get("general.name", "")),
    }
    if architecture not in ("qwen2", "phi3"):  # of which heads have the size hidden_size / heads
        given["head_dim"] = head_size(header)
    if window:
        given["sliding_window"] = window
    if architecture.startswith("gemma"):
        # The largest of each family divides by the width for each head (llama.cpp: gemma2.cpp, gemma3.cpp).
        largest = get("block_count") == {"gemma2": 46, "gemma3": 62}[architecture]
        given["query_pre_attn_scalar"] = get("embedding_length") // heads if largest else head_size(header)
        # Without the keys, as in the first files of Gemma 2, the architecture's own caps hold (llama.cpp: gemma2.cpp).
        caps = ("attn_logit_softcapping", "final_logit_softcapping")
        given |= {key: get(key) or None for key in caps if get(key) is not None}
    if scaling := _scaling(header):
        given["rope_scaling"] = scaling
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        number = values.get(f"tokenizer.ggml.{key}_token_id")
        if number is not None or name != "unk":
            given[f"{name}_token_id"] = number
    return AutoConfig.for_model(kind, **given)


def _scaling(header: Header) -> dict[str, Any] | None:
    """Return how positions are scaled: linearly, as in Llama 3, or not at all.

    Raises:
        InputError: the file's frequencies are not those of Llama 3.
    """
    factor = header.setting("rope.scaling.factor") or 1.0
    linear = header.setting("rope.scaling.type", "linear") == "linear" and factor != 1.0
    if ROPE_FREQUENCIES not in header.tensors:
        return {"rope_type": "linear", "factor": factor} if linear else None
    import numpy as np

    found = next(iter(_rows(header, header.tensors[ROPE_FREQUENCIES]))).reshape(-1)
    size, base = head_size(header), header.setting("rope.freq_base", 1e4)
    result: dict[str, Any] = {"rope_type": "llama3", "original_max_position_embeddings": 8192}
    result |= {"factor": float(found.max()), "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    # Llama 3.1's formula: long waves are slowed by the factor, short ones kept, those between interpolated.
    turns = 8192 / (2 * np.pi * base ** (np.arange(0, size, 2) / size))
    smooth = np.clip((turns - 1.0) / (4.0 - 1.0), 0, 1)
    expected = 1 / ((1 - smooth) / result["factor"] + smooth)
    if linear or len(found) != size // 2 or not np.allclose(found, expected, rtol=1e-3):
        raise InputError(
            f"`model` {header.path}: its rope_freqs are not those of Llama 3. Use a folder of safetensors."
        )
    return result


def _generation(header: Header, config: Any) -> Any:
    """Make the generation configuration, which ends at the end of a text and, where the file has one, of a turn."""
    from transformers import GenerationConfig

    result = GenerationConfig.from_model_config(config)
    turn = header.values.get("tokenizer.ggml.eot_token_id")
    if turn is not None and turn != result.eos_token_id:
        result.eos_token_id = [result.eos_token_id, turn]
    return result


def tokenizer_of(header: Header) -> Any:
    """Load the tokenizer with its chat template, and let it split text as llama.cpp does (llama-vocab.cpp)."""
    from tokenizers import Regex, pre_tokenizers
    from transformers import AutoTokenizer

    pre = header.values.get("tokenizer.ggml.pre")
    llama3 = pre in ("llama3", "llama-v3", "llama-bpe")
    given = {"add_bos_token": True} if llama3 and "tokenizer.ggml.add_bos_token" not in header.values else {}
    tokenizer = AutoTokenizer.from_pretrained(header.path.parent, gguf_file=header.path.name, **given)
    if header.values["tokenizer.ggml.model"] != "gpt2":
        return tokenizer
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre in ("smollm", "gpt-2"))
    if pre == "smollm":
        # Single digits first; without it "\n\n 1." gets other tokens than the model was trained on.
        parts = [pre_tokenizers.Digits(individual_digits=True), plain]
    elif pre == "gpt-2":
        parts = [plain]
    else:
        digits = "{1,3}" if llama3 or pre == "dbrx" else ""
        split = (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        parts = [pre_tokenizers.Split(Regex(split), behavior="isolated"), plain]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    return tokenizer


def _write_weights(header: Header, config: Any, out: Path) -> str:
    """Write the weights as safetensors, and return their dtype.

    Raises:
        InputError: the tensors are not those of the architecture.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in tied}
    places = {_renamed(header, name): tensor for name, tensor in header.tensors.items() if name != ROPE_FREQUENCIES}
    found = {name: tensor.shape for name, tensor in places.items()}
    if apart := sorted(found.items() ^ wanted.items()):
        first = places[apart[0][0]].name if apart[0][0] in places else apart[0][0]
        raise InputError(
            f"`model` {header.path}: {first} is missing, unknown or of a shape that {config.architectures[0]} has not."
        )
    dtype = torch.float32 if weight_bytes(header.parameters) == 4 * header.parameters else torch.bfloat16
    shards = list(_shards(wanted, dtype.itemsize))
    index: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        weights = {name: _weight(header, config, places[name], dtype) for name in names}
        save_file(weights, out / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(map(prod, wanted.values())) * dtype.itemsize
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2, sort_keys=True)
        (out / "model.safetensors.index.json").write_text(text + "\n", encoding="utf-8")
    return str(dtype).removeprefix("torch.")


def _renamed(header: Header, name: str) -> str:
    """Return the name in transformers of a tensor; the given one if it is unknown."""
    stem, _, suffix = name.rpartition(".")
    if stem in _OUTER_NAMES:
        return f"{_OUTER_NAMES[stem]}.{suffix}"
    block, _, rest = stem.partition(".")
    number, _, part = rest.partition(".")
    leaf = _LAYER_NAMES[header.architecture].get(part)
    return f"model.layers.{number}.{leaf}.{suffix}" if block == "blk" and leaf else name


def _shards(shapes: Mapping[str, tuple[int, ...]], width: int) -> Iterator[list[str]]:
    """Cut the weights, in the order of the layers, into files of about ``SHARD`` bytes; one file of a small model."""
    most = MOST_SINGLE if sum(map(prod, shapes.values())) * width <= MOST_SINGLE else SHARD
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        if names and size + prod(shape) * width > most:
            yield names
            names, size = [], 0
        names.append(name)
        size += prod(shape) * width
    yield names


def _weight(header: Header, config: Any, tensor: Tensor, dtype: torch.dtype) -> torch.Tensor:
    """De-quantise a tensor and undo what llama.cpp's converter did to it."""
    import torch

    result = torch.empty(tensor.shape, dtype=dtype)
    flat, begin = result.view(-1), 0
    for rows in _rows(header, tensor):
        if header.architecture.startswith("gemma") and tensor.name.endswith("norm.weight"):
            rows = rows - 1  # stored as 1 + weight
        flat[begin : begin + rows.size] = torch.from_numpy(rows.reshape(-1))
        begin += rows.size
    if header.architecture == "llama" and ".attn_q." in tensor.name:
        return _halves(result, config.num_attention_heads)
    if header.architecture == "llama" and ".attn_k." in tensor.name:
        return _halves(result, config.num_key_value_heads)
    return result


def _halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Order the rows of each head by halves, as transformers rotates them, not by pairs (``LlamaModel.permute``)."""
    pairs = weight.view(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape).contiguous()


def _rows(header: Header, tensor: Tensor) -> Iterable[np.ndarray]:
    """De-quantise a tensor (..., columns) into float32, some rows at a time."""
    import numpy as np
    from gguf import GGMLQuantizationType, dequantize

    kind = GGMLQuantizationType(tensor.kind)
    count = prod(tensor.shape[:-1])
    step = max(1, CHUNK // tensor.shape[-1])
    data = np.memmap(header.path, np.uint8, "r", tensor.start, (count, tensor.size // count))
    for begin in range(0, count, step):
        yield np.asarray(dequantize(np.array(data[begin : begin + step]), kind), np.float32)


if __name__ == "__main__":
    from ...errors import CultevalError

    try:
        write_folder(Path(sys.argv[1]), Path(sys.argv[2]))
    except CultevalError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
