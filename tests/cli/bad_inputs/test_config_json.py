"""config.json that cannot be used, or contradicts the tensors."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Sequence

import pytest

from world import ABSENT, World, write_config
from random_model import ModelRequest, make_model

LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """Fields of config.json that are changed, and words of the refusal."""

    fields: Mapping[str, Any]
    words: Sequence[str]
    family: str = "llama1"


EDITS: Dict[str, Edit] = {
    "model_type gemma": Edit({"model_type": "gemma2"}, ["model_type", "gemma2", "llama, mistral, qwen2"]),
    "model_type absent": Edit({"model_type": ABSENT}, ["model_type", "missing"]),
    "model_type number": Edit({"model_type": 3}, ["model_type", "string"]),
    "model_type qwen2 of a llama": Edit({"model_type": "qwen2"}, ["q_proj.bias", "missing", "config.json"]),
    "model_type qwen3 without head_dim": Edit({"model_type": "qwen3"}, ["q_norm", "missing"]),
    "model_type qwen3 of a llama": Edit({"model_type": "qwen3", "head_dim": 16}, ["q_norm", "missing"]),
    "model_type llama of a qwen3": Edit({"model_type": "llama"}, ["k_norm"], "qwen3"),
    "model_type llama of a qwen2": Edit({"model_type": "llama"}, ["k_proj.bias"], "qwen2"),
    "partial rotary": Edit({"partial_rotary_factor": 0.5}, ["'partial_rotary_factor' is 0.5", "only 1 is supported"]),
    "partial rotary as transformers 5 writes it": Edit(
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
        ["rope_parameters: 'partial_rotary_factor' is 0.5"],
    ),
    "quantised": Edit({"quantization_config": {"bits": 4}}, ["quantization_config", "original model"]),
    "heads 3": Edit({"num_attention_heads": 3, "num_key_value_heads": 3}, ["num_attention_heads", "64"]),
    "heads 0": Edit({"num_attention_heads": 0}, ["num_attention_heads", "positive integer"]),
    "heads -4": Edit({"num_attention_heads": -4}, ["num_attention_heads", "-4"]),
    "heads text": Edit({"num_attention_heads": "4"}, ["num_attention_heads", '"4"']),
    "heads 4.0": Edit({"num_attention_heads": 4.0}, ["num_attention_heads", "4.0"]),
    "heads absent": Edit({"num_attention_heads": ABSENT}, ["num_attention_heads", "missing"]),
    "heads 8 of 4": Edit({"num_attention_heads": 8}, ["k_proj", "[64, 64]", "[32, 64]"]),
    "kv heads 3": Edit({"num_key_value_heads": 3}, ["num_key_value_heads", "3", "divisor", "4"]),
    "kv heads 8": Edit({"num_key_value_heads": 8}, ["num_key_value_heads", "8", "divisor"]),
    "kv heads 2 of 4": Edit({"num_key_value_heads": 2}, ["k_proj", "[64, 64]", "[32, 64]"]),
    "kv heads absent in mistral": Edit({"num_key_value_heads": ABSENT}, ["num_key_value_heads", "Mistral"], "mistral"),
    "kv heads absent with GQA": Edit({"num_key_value_heads": ABSENT}, ["k_proj"], "llama3"),
    "head_dim 8 of 16": Edit({"head_dim": 8}, ["q_proj", "[64, 64]", "[32, 64]"]),
    "head_dim 15": Edit({"head_dim": 15}, ["head_dim", "15", "even"]),
    "head_dim 2^31": Edit({"head_dim": 2**31}, ["q_proj", "config.json"]),
    "hidden 32": Edit({"hidden_size": 32, "head_dim": 16}, ["q_proj", "[64, 64]", "[64, 32]"]),
    "hidden 2^32": Edit({"hidden_size": 2**32}, ["hidden_size", "positive integer"]),
    "intermediate 161": Edit({"intermediate_size": 161}, ["gate_proj", "[160, 64]", "[161, 64]"]),
    "vocab 255": Edit({"vocab_size": 255}, ["embed_tokens", "[256, 64]", "[255, 64]"]),
    "blocks 1 of 2": Edit({"num_hidden_layers": 1}, ["layers.1.", "1 blocks"]),
    "blocks 3 of 2": Edit({"num_hidden_layers": 3}, ["layers.2.", "missing"]),
    "blocks 0": Edit({"num_hidden_layers": 0}, ["num_hidden_layers"]),
    "blocks 2^31": Edit({"num_hidden_layers": 2**31}, ["num_hidden_layers", "at most 100000"]),
    "hidden_act": Edit({"hidden_act": "gelu"}, ["hidden_act", "gelu", "silu"]),
    "epsilon 0": Edit({"rms_norm_eps": 0}, ["rms_norm_eps", "positive number"]),
    "epsilon text": Edit({"rms_norm_eps": "1e-5"}, ["rms_norm_eps", "positive number"]),
    "epsilon absent": Edit({"rms_norm_eps": ABSENT}, ["rms_norm_eps", "missing"]),
    "epsilon too small for float32": Edit({"rms_norm_eps": 1e-60}, ["rms_norm_eps"]),
    "epsilon too large for float32": Edit({"rms_norm_eps": 1e60}, ["rms_norm_eps"]),
    "rope theta 0": Edit({"rope_theta": 0}, ["rope_theta", "positive number"]),
    "rope list": Edit({"rope_scaling": [1]}, ["rope_scaling", "object"]),
    "rope longrope": Edit({"rope_scaling": {"type": "longrope"}}, ["short_factor", "rope_scaling"]),
    "rope unknown": Edit({"rope_scaling": {"type": "proportional"}}, ["proportional", "rope_scaling"]),
    "rope unknown, transformers 5": Edit({"rope_parameters": {"rope_type": "x"}}, ["'x'", "rope_parameters"]),
    "rope linear without factor": Edit({"rope_scaling": {"type": "linear"}}, ["factor", "rope_scaling"]),
    "rope llama3 turned": Edit({"rope_scaling": {**LLAMA3_ROPE, "high_freq_factor": 0.5}}, ["high_freq_factor"]),
    "rope llama3 without original": Edit(
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4}},
        ["original_max_position_embeddings"],
    ),
    "sequence > positions": Edit({"max_position_embeddings": 16}, ["32", "max_position_embeddings", "16"]),
    "sequence > window": Edit({"sliding_window": 16}, ["32", "sliding window", "16"], "mistral"),
    "window text": Edit({"sliding_window": "wide"}, ["sliding_window", "wide"], "mistral"),
    "bias text": Edit({"attention_bias": "yes"}, ["attention_bias", "true or false"]),
    "attention bias without tensors": Edit({"attention_bias": True}, ["q_proj.bias", "missing", "config.json"]),
    "mlp bias without tensors": Edit({"mlp_bias": True}, ["gate_proj.bias", "missing", "config.json"]),
    "attention bias denied": Edit({"attention_bias": False}, ["k_proj.bias", "config.json"], "llama-bias"),
    "mlp bias denied": Edit({"mlp_bias": False}, ["down_proj.bias", "config.json"], "llama-bias"),
    "untied without head": Edit({"tie_word_embeddings": False}, ["lm_head.weight", "missing"], "llama3"),
}


@pytest.mark.parametrize("name", EDITS)
def test_config_edit(world: World, name: str) -> None:
    edit = EDITS[name]
    if edit.family != "llama1":
        shutil.rmtree(world.model)
        make_model(world.model, ModelRequest(edit.family))
    write_config(world.model, edit.fields)
    world.refused(world.prune("--method=wanda"), *edit.words)


CONFIG_TEXTS = {
    "empty": ("", ["config.json", "JSON"]),
    "not JSON": ("model_type: llama\n", ["config.json", "JSON"]),
    "an array": ("[]", ["config.json", "object"]),
    "key twice": ('{"model_type": "llama", "model_type": "qwen2"}', ["config.json", "model_type", "twice"]),
    "deep": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", ["config.json", "deeper"]),
    "number too large": ('{"model_type": "llama", "rope_theta": 1e999}', ["config.json", "JSON"]),
    "trailing text": ('{"model_type": "llama"} x', ["config.json", "JSON"]),
    "20 MB": ('{"a": "' + "x" * 20_000_000 + '"}', ["config.json", "bytes"]),
    "unterminated megabyte": ('{"a": "' + "x" * 1_000_000, ["config.json", "JSON"]),
}


@pytest.mark.parametrize("name", CONFIG_TEXTS)
def test_config_text(world: World, name: str) -> None:
    text, words = CONFIG_TEXTS[name]
    (world.model / "config.json").write_text(text)
    world.refused(world.prune(), *words)
