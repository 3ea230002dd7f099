"""Tiny random models of many architectures, each with what is peculiar to it: windows, scaled logits, recurrences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

BASE = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048, "initializer_range": 0.25,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
_MOE = {"num_experts": 4, "num_experts_per_tok": 2}
_QWEN_MOE = _MOE | {"moe_intermediate_size": 32}
_GEMMA = {"initializer_range": 0.1, "sliding_window": 32}
_KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
_VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
           "image_size": 28, "patch_size": 14}  # fmt: skip
_LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
             "original_max_position_embeddings": 64, "partial_rotary_factor": 1.0}  # fmt: skip
DROP = "DROP"  # a field of BASE that the architecture has not

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama_bias": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama_tied": {"model_type": "llama", "tie_word_embeddings": True, "initializer_range": 0.1},
    "llama_wide_vocabulary": {"model_type": "llama", "padded": 64},
    "phi3_longrope": {"model_type": "phi3", "max_position_embeddings": 4096, "original_max_position_embeddings": 64,
                      "partial_rotary_factor": 1.0, "rope_parameters": _LONGROPE},
    "mistral_window": {"model_type": "mistral", "sliding_window": 32},
    "mixtral": {"num_local_experts": 4},
    "qwen2_window": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1},
    "qwen2_moe": _QWEN_MOE | {"shared_expert_intermediate_size": 32},
    "qwen3": {},
    "qwen3_moe": _QWEN_MOE,
    "qwen3_next": _QWEN_MOE | {"shared_expert_intermediate_size": 32, "linear_num_value_heads": 4,
                  "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
                  "layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    "gemma": {"initializer_range": 0.1},
    "gemma2": _GEMMA | {"query_pre_attn_scalar": 16},
    "gemma3_text": _GEMMA | {"query_pre_attn_scalar": 16, "sliding_window_pattern": 2},
    "gemma3n_text": _GEMMA | {"num_hidden_layers": 5, "hidden_size_per_layer_input": 16, "laurel_rank": 8,
                    "num_kv_shared_layers": 0, "altup_num_inputs": 2, "activation_sparsity_pattern": [0.0] * 5,
                    "intermediate_size": [128] * 5, "layer_types": ["sliding_attention"] * 4 + ["full_attention"]},
    "gemma4_text": _GEMMA | {"num_hidden_layers": 6, "hidden_size_per_layer_input": 16, "num_kv_shared_layers": 0,
                   "global_head_dim": 16},
    "gemma3_images": {"model_type": "gemma3", "vision_config": _VISION, "mm_tokens_per_image": 4, "text_config":
                      _GEMMA | {"query_pre_attn_scalar": 16, "layer_types": _KINDS}},
    "phi3_window": {"model_type": "phi3", "sliding_window": 32},
    "phi": {"partial_rotary_factor": 0.5},
    "granite": {"logits_scaling": 4.0, "residual_multiplier": 0.5, "embedding_multiplier": 3.0,
                "attention_multiplier": 0.1},
    "cohere": {"logit_scale": 0.5},
    "cohere2": {"logit_scale": 0.5, "sliding_window": 32},
    "olmo2": {},
    "smollm3": {"no_rope_layers": [1, 0, 1]},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 32},
    "gpt2": {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 2048},
    "gpt_neo": {"num_hidden_layers": DROP, "num_layers": 2, "num_heads": 4,
                "window_size": 32, "attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "bloom": {"n_layer": 3, "n_head": 4},
    "falcon": {"head_dim": DROP},
    "falcon_alibi": {"model_type": "falcon", "alibi": True, "head_dim": DROP},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 3, "max_seq_len": 2048},
    "mamba": {"state_size": 8},
    "jamba": _MOE | {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False,
              "mamba_d_state": 8},
    "starcoder2": {"sliding_window": 32},
    "stablelm": {"partial_rotary_factor": 0.5},
    "glm4": {"partial_rotary_factor": 0.5},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "nemotron": {},
    "exaone4": {"sliding_window": 32, "sliding_window_pattern": 3},
    "llama4_text": {"attention_chunk_size": 32, "num_local_experts": 2, "intermediate_size_mlp": 128},
    "deepseek_v3": {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
                    "qk_nope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2,
                    "n_group": 1, "topk_group": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1,
                    "head_dim": DROP},
}  # fmt: skip


def make(name: str, tokenizer: Any, folder: Path) -> Path:
    """Write a tiny random model of an architecture, in float32, with a tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    given = dict(ARCHITECTURES[name])
    kind, size = given.pop("model_type", name), len(tokenizer) + given.pop("padded", 0)
    torch.manual_seed(0)
    if "text_config" in given:
        given["text_config"] = _whole(given["text_config"], size)
    else:
        given = _whole(given, size)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given)).float()
    for part, weight in model.named_parameters():  # these start at 0 and 1, which would hide a mistake
        if part.endswith(("bias", "norm.weight", "layernorm.weight")) and weight.ndim == 1:
            torch.nn.init.normal_(weight, mean=float(weight.mean().detach().round()), std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _whole(own: Mapping[str, Any], vocabulary: int) -> dict[str, Any]:
    given = {**BASE, "vocab_size": vocabulary, **own}
    if "hidden_size_per_layer_input" in given:
        given["vocab_size_per_layer_input"] = vocabulary
    return {key: value for key, value in given.items() if value != DROP}
