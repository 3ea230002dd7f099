"""Write GGUF files of tiny models as llama.cpp's converter would, by the package gguf alone."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import gguf
import numpy as np

TOKEN = {"normal": 1, "control": 3, "byte": 6}


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Order the rows of each head by pairs, as convert_hf_to_gguf.py does for Llama (``LlamaModel.permute``)."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def stored(name: str, weight: np.ndarray, architecture: str, config) -> np.ndarray:
    """Return the values that a GGUF file has of a weight of transformers."""
    if architecture == "llama" and "q_proj" in name:
        return permute(weight, config.num_attention_heads)
    if architecture == "llama" and "k_proj" in name:
        return permute(weight, config.num_key_value_heads)
    return weight + 1 if architecture.startswith("gemma") and name.endswith("norm.weight") else weight


def write_gguf(
    path: Path, architecture: str, model, tokenizer, *, kind="F32", settings=(), tensors=(), pre="smollm", spaced=False
) -> Path:
    """Write a model of transformers and its tokenizer, byte-level or a list of SentencePiece tokens, as a GGUF file.

    ``kind`` is the type of all matrices; ``settings`` and ``tensors`` replace or add some, None leaves a setting out.
    """
    path.parent.mkdir(exist_ok=True)
    config, writer = model.config, gguf.GGUFWriter(path, architecture)
    number = next(number for number, known in gguf.MODEL_ARCH_NAMES.items() if known == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    writer.add_name("tiny")
    own = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
    }
    floats = {"attention.layer_norm_rms_epsilon": config.rms_norm_eps, "rope.freq_base": 1e4}
    for setting, value in (own | floats | dict(settings)).items():
        if value is not None:
            adds = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
            whole = setting.startswith(("split.", "general."))
            adds[type(value)](setting if whole else f"{architecture}.{setting}", value)
    if isinstance(tokenizer, list):
        _pieces(writer, tokenizer, spaced)
    else:
        _byte_level(writer, tokenizer, pre)
    for full, weight in model.state_dict().items():
        if full == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, suffix = full.rpartition(".")
        values = stored(full, weight.float().numpy(), architecture, config)
        chosen = gguf.GGMLQuantizationType[kind if values.ndim > 1 else "F32"]
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", gguf.quantize(values, chosen), raw_dtype=chosen)
    for full, values in dict(tensors).items():
        writer.add_tensor(full, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _byte_level(writer, tokenizer, pre: str) -> None:
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(core["model"]["vocab"], key=core["model"]["vocab"].get)
    special = {token["content"] for token in core["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([TOKEN["control" if token in special else "normal"] for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in core["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)


CHAT_OF_TURNS = (
    "{{ bos_token }}{% for m in messages %}"
    "<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def pieces(texts: list[str], size: int) -> list[str]:
    """Return tokens of a SentencePiece vocabulary like Gemma's, the best first after special tokens and bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    core.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    known = core.get_vocab()
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    return special + [f"<0x{byte:02X}>" for byte in range(256)] + sorted(known, key=known.get)


def split(text: str, tokens: list[str]) -> list[str]:
    """Split a text as SentencePiece does: the two neighbours that make the best token are joined first."""
    rank = {token: number for number, token in enumerate(tokens)}
    parts = list(text.replace(" ", "\u2581"))
    while True:
        pairs = [(rank[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in rank]
        if not pairs:
            return parts
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def _pieces(writer, tokens: list[str], spaced: bool) -> None:
    names = ["byte" if token[:3] == "<0x" else "control" if token[0] == "<" else "normal" for token in tokens]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(number) for number in range(len(tokens))])
    writer.add_token_types([TOKEN[name] for name in names])
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_eot_token_id(5)
    writer.add_add_space_prefix(spaced)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_OF_TURNS)
