"""The oracle's files and decoder, against their definitions."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from checkpoint import RopeSettings, read_config, read_model_folder, read_tokens
from decoder import apply_rope, attention, block_forward, perplexity, rms_norm, rope_frequencies
from random_model import FAMILIES, LLAMA3_SCALING, ModelRequest, make_model, random_tokens, write_tokens
from safetensors_file import StoredTensor
from small_models import TOKENS, load

torch.set_num_threads(1)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_folders_read_back_the_same_in_every_spelling(tmp_path: Path, family: str) -> None:
    make_model(tmp_path / "single", ModelRequest(family, "bf16", config_style=4))
    make_model(tmp_path / "sharded", ModelRequest(family, "bf16", shards=3, config_style=5))
    single, sharded = read_model_folder(tmp_path / "single"), read_model_folder(tmp_path / "sharded")
    assert single.tensors == sharded.tensors
    assert read_config(tmp_path / "single") == read_config(tmp_path / "sharded")


def test_token_files_read_back(tmp_path: Path) -> None:
    tokens = random_tokens(3, 20)
    for name, dtype in itertools.product(("t.npy", "t.h5"), ("int32", "int64", "uint16")):
        assert (read_tokens(write_tokens(tmp_path / name, tokens, dtype)) == tokens).all()


def test_stored_values_round_as_torch_rounds() -> None:
    values = torch.randn(10000, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).float()
    for dtype, torch_dtype in (("BF16", torch.bfloat16), ("F16", torch.float16), ("F32", torch.float32)):
        decoded = StoredTensor.encode(values.numpy(), dtype).decode()
        assert (torch.from_numpy(decoded) == values.to(torch_dtype).double()).all()


def test_llama3_frequencies_band_by_band() -> None:
    rope = RopeSettings("llama3", 500000.0, LLAMA3_SCALING, 256, 16)
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    factor, low, high, original = (LLAMA3_SCALING[key] for key in keys)
    found, scale = rope_frequencies(rope, 32)
    bands = set()
    for index in range(8):
        frequency = 500000.0 ** (-2 * index / 16)
        wavelength = 2 * math.pi / frequency
        if wavelength < original / high:
            band, expected = "kept", frequency
        elif wavelength > original / low:
            band, expected = "divided", frequency / factor
        else:
            share = (original / wavelength - low) / (high - low)
            band, expected = "blended", (1 - share) * frequency / factor + share * frequency
        bands.add(band)
        assert float(found[index]) == pytest.approx(expected, rel=1e-14)
    assert bands == {"kept", "divided", "blended"} and scale == 1.0


def test_linear_and_yarn_frequencies() -> None:
    default, _ = rope_frequencies(RopeSettings("default", 10000.0, {}, 256, 16), 32)
    linear, _ = rope_frequencies(RopeSettings("linear", 10000.0, {"factor": 4.0}, 256, 16), 32)
    assert torch.allclose(linear * 4.0, default, rtol=1e-14)
    scaling = {"factor": 4.0, "original_max_position_embeddings": 64}
    yarn, scale = rope_frequencies(RopeSettings("yarn", 10000.0, scaling, 256, 16), 32)
    # By hand: the dimension of 32 turns is below 0, of one turn ceil(16 ln(64 / 2 pi) / (2 ln 10000)) = 3.
    ramp = torch.tensor([0.0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1], dtype=torch.float64)
    assert torch.allclose(yarn, default * (1.0 - ramp) + default / 4.0 * ramp, rtol=1e-14)
    assert scale == pytest.approx(1.0 + 0.1 * math.log(4.0))


def test_rope_is_a_complex_rotation() -> None:
    x = torch.randn(2, 7, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    rotated = apply_rope(x, RopeSettings("default", 10000.0, {}, 256, 16))
    for token, index in itertools.product(range(7), range(8)):
        angle = token * 10000.0 ** (-2 * index / 16)
        expected = torch.complex(x[:, token, index], x[:, token, index + 8]) * complex(math.cos(angle), math.sin(angle))
        assert torch.allclose(rotated[:, token, index], expected.real, atol=1e-14)
        assert torch.allclose(rotated[:, token, index + 8], expected.imag, atol=1e-14)


@pytest.mark.parametrize("family", ["llama1", "llama2", "qwen2", "qwen3"])
def test_attention_head_by_head_and_token_by_token(tmp_path: Path, family: str) -> None:
    config, model, samples = load(tmp_path, family)
    weights, x = model.block(0), samples[0]
    found = attention(config, weights, x)

    def head(kind: str, index: int) -> Tensor:
        rows = slice(index * config.head_dim, (index + 1) * config.head_dim)
        y = x @ weights[f"self_attn.{kind}_proj.weight"][rows].T
        if f"self_attn.{kind}_proj.bias" in weights:
            y = y + weights[f"self_attn.{kind}_proj.bias"][rows]
        if kind != "v" and f"self_attn.{kind}_norm.weight" in weights:
            y = rms_norm(y, weights[f"self_attn.{kind}_norm.weight"], config.norm_epsilon)
        return y if kind == "v" else apply_rope(y, config.rope)

    for query_head in range(config.head_count):
        kv_head = query_head // (config.head_count // config.kv_head_count)
        q, k, v = head("q", query_head), head("k", kv_head), head("v", kv_head)
        for token in range(TOKENS):
            weight = torch.softmax(k[: token + 1] @ q[token] / config.head_dim**0.5, 0)
            columns = slice(query_head * config.head_dim, (query_head + 1) * config.head_dim)
            assert torch.allclose(found[token, columns], weight @ v[: token + 1], atol=1e-13)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_later_tokens_do_not_reach_earlier_ones(tmp_path: Path, family: str) -> None:
    config, model, samples = load(tmp_path, family)
    changed = samples.clone()
    changed[:, 8:] += 1.0
    before, after = (block_forward(config, model.block(0), x) for x in (samples, changed))
    assert torch.equal(before[:, :8], after[:, :8]) and not torch.allclose(before[:, 8:], after[:, 8:])


def test_perplexity_of_a_model_that_knows_nothing(tmp_path: Path) -> None:
    config, model, _ = load(tmp_path, "llama1")
    model.tensors["lm_head.weight"] = StoredTensor.encode(numpy.zeros((256, 64)), "F32")
    value, windows = perplexity(config, model, torch.arange(3 * 12 + 11).reshape(1, -1), 12)
    assert value == pytest.approx(256.0) and windows == 3
