"""The oracle against finite differences, brute force and its own invariants."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Dict, List

import numpy
import pytest
import torch
from torch import Tensor

import sparsegpt
from checkpoint import (
    PRUNED_MODULES,
    Model,
    ModelConfig,
    RopeSettings,
    calibration_samples,
    read_config,
    read_model_folder,
    read_tokens,
)
from compare import BlockCase, Comparison, check_optimised, doubtful_steps
from decoder import BlockTensors, apply_rope, attention, block_forward, embed, perplexity, rms_norm, rope_frequencies
from masks import Pattern, inexact_groups, select
from method import (
    METHODS,
    GradientEntry,
    PrunedBlock,
    PruneOptions,
    matrices_of,
    output_loss_gradients,
    prune_block,
    prune_model,
    regional_gradient,
    regional_loss_gradients,
    regional_optimisation,
    rmsprop_step,
    with_matrices,
)
from random_model import FAMILIES, LLAMA3_SCALING, ModelRequest, make_model, random_tokens, write_tokens
from safetensors_file import StoredTensor

torch.set_num_threads(1)

PATTERNS = ["2:4", "4:8", "3:8", "1:4", "unstructured"]
SAMPLES, TOKENS = 4, 12


def load(folder: Path, family: str, **request: object) -> "tuple[ModelConfig, Model, Tensor]":
    """A small model of a family and the hidden states [N, T, H] of its calibration samples."""
    make_model(folder, ModelRequest(family, **request))
    config, model = read_config(folder), read_model_folder(folder)
    tokens = calibration_samples(random_tokens(SAMPLES, TOKENS), SAMPLES, TOKENS)
    return config, model, embed(model, tokens)


def make_options(method: str, pattern: str = "2:4", **changes: object) -> PruneOptions:
    settings: Dict[str, object] = dict(ro_samples=3, ro_rounds=2, ro_learning_rate=1e-4)
    settings.update(changes)
    return PruneOptions(method, Pattern.parse(pattern), SAMPLES, TOKENS, **settings)


DRAWS = [[2, 0, 3], [1, 2, 0]]


# ---- files ----


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


# ---- decoder ----


def test_llama3_frequencies_band_by_band() -> None:
    rope = RopeSettings("llama3", 500000.0, LLAMA3_SCALING, 256)
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    factor, low, high, original = (LLAMA3_SCALING[key] for key in keys)
    found, scale = rope_frequencies(rope, 16)
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
    default, _ = rope_frequencies(RopeSettings("default", 10000.0, {}, 256), 16)
    linear, _ = rope_frequencies(RopeSettings("linear", 10000.0, {"factor": 4.0}, 256), 16)
    assert torch.allclose(linear * 4.0, default, rtol=1e-14)
    scaling = {"factor": 4.0, "original_max_position_embeddings": 64}
    yarn, scale = rope_frequencies(RopeSettings("yarn", 10000.0, scaling, 256), 16)
    # By hand: the dimension of 32 turns is below 0, of one turn ceil(16 ln(64 / 2 pi) / (2 ln 10000)) = 3.
    ramp = torch.tensor([0.0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1], dtype=torch.float64)
    assert torch.allclose(yarn, default * (1.0 - ramp) + default / 4.0 * ramp, rtol=1e-14)
    assert scale == pytest.approx(1.0 + 0.1 * math.log(4.0))


def test_rope_is_a_complex_rotation() -> None:
    x = torch.randn(2, 7, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    rotated = apply_rope(x, RopeSettings("default", 10000.0, {}, 256))
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


# ---- gradients and steps ----


def central_difference(function, weights: BlockTensors, module: str, row: int, column: int, step: float) -> float:
    values = []
    for sign in (1.0, -1.0):
        matrix = weights[f"{module}.weight"].clone()
        matrix[row, column] += sign * step
        values.append(float(function(with_matrices(weights, {module: matrix}))))
    return (values[0] - values[1]) / (2.0 * step)


@pytest.mark.parametrize("family", ["llama2", "llama3", "llama-bias", "llama-yarn", "qwen3"])
def test_gradients_against_central_differences(tmp_path: Path, family: str) -> None:
    config, model, samples = load(tmp_path, family)
    weights, sample = model.block(0), samples[1]
    target = block_forward(config, model.block(1), sample)
    cases = [
        (
            lambda w: torch.linalg.vector_norm(block_forward(config, w, sample)),
            regional_loss_gradients(config, weights, sample),
        ),
        (
            lambda w: (block_forward(config, w, sample) - target).square().sum(),
            output_loss_gradients(config, weights, sample, target),
        ),
    ]
    generator = numpy.random.default_rng(0)
    for function, gradients in cases:
        for module in PRUNED_MODULES:
            scale = float(gradients[module].abs().max())
            for _ in range(4):
                row, column = (int(generator.integers(size)) for size in gradients[module].shape)
                numeric = central_difference(function, weights, module, row, column, 1e-5)
                assert float(gradients[module][row, column]) == pytest.approx(numeric, rel=1e-6, abs=1e-7 * scale)


def test_regional_gradient_squares_sample_by_sample(tmp_path: Path) -> None:
    config, model, samples = load(tmp_path, "llama1")
    single = [regional_loss_gradients(config, model.block(0), sample) for sample in samples]
    combined = regional_gradient(config, model.block(0), samples)
    for module in PRUNED_MODULES:
        expected = torch.stack([gradient[module] for gradient in single]).square().mean(0).sqrt()
        assert torch.allclose(combined[module], expected, rtol=1e-12)


def test_mini_batch_gradient_is_the_sum_of_single_ones(tmp_path: Path) -> None:
    config, model, samples = load(tmp_path, "qwen2")
    targets = block_forward(config, model.block(1), samples)
    batch = output_loss_gradients(config, model.block(0), samples, targets)
    for module in PRUNED_MODULES:
        single = [output_loss_gradients(config, model.block(0), x, y)[module] for x, y in zip(samples, targets)]
        assert torch.allclose(batch[module], sum(single), rtol=1e-9, atol=1e-12)


def test_first_rmsprop_step_is_ten_rates_along_the_sign() -> None:
    options = make_options("ro")
    gradients = {"m": torch.tensor([[3.0, -0.2], [1e-3, -50.0]], dtype=torch.float64)}
    matrices = {"m": torch.ones(2, 2, dtype=torch.float64)}
    moments = {"m": torch.zeros(2, 2, dtype=torch.float64)}
    step = rmsprop_step(options, matrices, moments, gradients, {})["m"] - 1.0
    assert torch.allclose(step, -10.0 * options.ro_learning_rate * gradients["m"].sign(), rtol=2e-4)
    # Second step by hand for one weight: v = 0.99 * 0.01 * 9 + 0.01 * 16.
    second = rmsprop_step(options, matrices, moments, {"m": torch.full((2, 2), 4.0, dtype=torch.float64)}, {})["m"]
    expected = 1.0 - options.ro_learning_rate * 4.0 / (math.sqrt(0.99 * 0.09 + 0.16) + 1e-8)
    assert float(second[0, 0]) == pytest.approx(expected, rel=1e-14)


def judge_turned_step(optimised: PrunedBlock, case: BlockCase, entry: GradientEntry) -> Comparison:
    """Judges what a run would write whose gradient at `entry` is another one."""
    run = prune_block(case.options, case.config, case.dense, case.samples, DRAWS, "F32", [entry])
    result = Comparison()
    check_optimised(replace(case, written=run.weights, masks=run.masks), optimised, DRAWS, result)
    return result


def test_a_step_in_doubt_and_what_follows_from_it_are_allowed(tmp_path: Path) -> None:
    """And a step of the same length that is not in doubt is found."""
    options = make_options("ro")
    config, model, samples = load(tmp_path, "qwen2")
    dense = model.block(1)
    optimised = prune_block(options, config, dense, samples, DRAWS, "F32")
    case = BlockCase(1, config, options, "F32", dense, optimised.weights, optimised.masks, samples)
    doubtful = doubtful_steps(case, optimised)
    assert 0 < len(doubtful) < 10
    for entry in doubtful:
        result = judge_turned_step(optimised, case, entry)
        assert not result.problems, (entry, result.problems)
    gradient = optimised.gradients[0]["mlp.up_proj"]
    row, column = divmod(int(gradient.abs().argmax()), gradient.shape[1])
    clear = GradientEntry(0, "mlp.up_proj", row, column, -float(gradient[row, column]))
    problems = judge_turned_step(optimised, case, clear).problems
    assert any("follow" in problem for problem in problems), problems


# ---- masks ----


def brute_force_mask(scores: Tensor, pattern: Pattern) -> Tensor:
    """Removes one weight after the other, each time the lowest score, the lower column of equals."""
    mask = torch.ones_like(scores, dtype=torch.bool)
    rows, columns = scores.shape
    width = pattern.group_width(columns)
    for row, first in itertools.product(range(rows), range(0, columns, width)):
        for _ in range(pattern.removed_per_group(columns)):
            left = [column for column in range(first, first + width) if mask[row, column]]
            mask[row, min(left, key=lambda column: (float(scores[row, column]), column))] = False
    return mask


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("levels", [2, 5, 10**6])
def test_masks_against_brute_force_with_ties_and_zeros(pattern: str, levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(0, levels, (9, 24), generator=generator).double()
    parsed = Pattern.parse(pattern, "0.7")
    selection = select(scores, parsed)
    assert torch.equal(selection.mask, brute_force_mask(scores, parsed))
    assert inexact_groups(selection.mask, parsed) == 0
    broken = selection.mask.clone()
    broken[3, 5] ^= True
    assert inexact_groups(broken, parsed) == 1


def test_margin_is_the_distance_to_the_other_side_of_the_cut() -> None:
    margin = select(torch.tensor([[4.0, 1.0, 5.0, 2.0]], dtype=torch.float64), Pattern.parse("2:4")).margin
    assert margin.tolist() == [[0.5, 0.75, 0.6, 0.5]]


def test_sparsity_is_an_exact_decimal() -> None:
    assert Pattern.parse("unstructured", "0.29").removed_per_group(100) == 29
    assert Pattern.parse("unstructured", "0.7").removed_per_group(160) == 112
    assert Pattern.parse("unstructured", "0.7").removed_per_group(64) == 44


def brute_force_sweep(weight: Tensor, gram: Tensor, pattern: Pattern) -> Tensor:
    """SparseGPT's recursion with an explicit inverse of each trailing block instead of a Cholesky factor."""
    weight, gram = sparsegpt.prepare(weight, gram)
    columns = weight.shape[1]
    inverses = [torch.linalg.inv(gram[column:, column:]) for column in range(columns)]
    starts: List[int] = list(range(0, columns, pattern.group if pattern.structured else 128))
    for first, end in zip(starts, starts[1:] + [columns]):
        removed = pattern.group - pattern.kept
        if not pattern.structured:
            removed = int(end * pattern.sparsity) - int(first * pattern.sparsity)
        factors = torch.stack([inverses[column][0, 0] for column in range(first, end)])
        order = (weight[:, first:end].square() / factors).argsort(dim=1, stable=True)
        for column in range(first, end):
            gone = (order[:, :removed] == column - first).any(1)
            change = weight[gone, column, None] / inverses[column][0, 0] * inverses[column][0]
            weight[gone, column:] -= change
            weight[gone, column] = 0.0
    return weight


@pytest.mark.parametrize("pattern", ["2:4", "3:8", "5:12", "unstructured"])
def test_sparsegpt_against_explicit_inverses(pattern: str) -> None:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(6, 144, dtype=torch.float64, generator=generator)
    inputs = torch.randn(400, 144, dtype=torch.float64, generator=generator)
    inputs[:, 17] = 0.0
    parsed = Pattern.parse(pattern, "0.6")
    swept = sparsegpt.sweep(weight, inputs.T @ inputs, parsed)
    assert torch.allclose(swept.weight, brute_force_sweep(weight, inputs.T @ inputs, parsed), atol=1e-10)
    assert torch.equal(swept.weight != 0, swept.selection.mask) and not swept.selection.mask[:, 17].any()
    assert inexact_groups(swept.selection.mask, parsed) == 0
    forced = sparsegpt.sweep(weight, inputs.T @ inputs, parsed, swept.selection.mask)
    assert torch.equal(forced.weight, swept.weight) and torch.equal(forced.selection.mask, swept.selection.mask)


def test_sparsegpt_column_blocks_are_multiples_of_m() -> None:
    widths = {"2:4": 128, "3:8": 128, "5:12": 120, "64:256": 256, "unstructured": 128}
    assert {text: sparsegpt.column_block_width(Pattern.parse(text)) for text in widths} == widths


# ---- methods ----


@pytest.mark.parametrize("pattern", PATTERNS)
def test_alpha_zero_is_wanda(tmp_path: Path, pattern: str) -> None:
    config, model, samples = load(tmp_path, "llama2")
    wanda = prune_block(make_options("wanda", pattern), config, model.block(0), samples, [], "F32")
    rgs = prune_block(make_options("rgs", pattern, alpha=0.0), config, model.block(0), samples, [], "F32")
    regular = prune_block(make_options("rgs", pattern), config, model.block(0), samples, [], "F32")
    assert all(torch.equal(wanda.masks[module], rgs.masks[module]) for module in PRUNED_MODULES)
    assert any(not torch.equal(wanda.masks[module], regular.masks[module]) for module in PRUNED_MODULES)


def test_mean_input_norm_changes_the_weight_of_the_gradient_by_root_n(tmp_path: Path) -> None:
    config, model, samples = load(tmp_path, "llama2")
    mean = make_options("rgs", input_norm="mean", alpha=100.0)
    total = make_options("rgs", input_norm="sum", alpha=100.0 * math.sqrt(SAMPLES))
    masks = [prune_block(options, config, model.block(0), samples, [], "F32").masks for options in (mean, total)]
    assert all(torch.equal(masks[0][module], masks[1][module]) for module in PRUNED_MODULES)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_group_is_exact_and_zeros_are_positive(tmp_path: Path, method: str, pattern: str) -> None:
    config, model, samples = load(tmp_path, "llama-dead", blocks=1)
    options = make_options(method, pattern)
    pruned = prune_block(options, config, model.block(0), samples, DRAWS, "F32")
    for module, mask in pruned.masks.items():
        assert inexact_groups(mask, options.pattern) == 0
        removed = pruned.weights[f"{module}.weight"][~mask]
        assert bool((removed == 0).all()) and not bool(torch.signbit(removed).any())


def test_optimisation_revives_weights_only_without_hold(tmp_path: Path) -> None:
    config, model, samples = load(tmp_path, "llama2")
    free = regional_optimisation(make_options("wanda++"), config, model.block(0), samples, DRAWS)
    held = regional_optimisation(make_options("wanda++", hold_mask=True), config, model.block(0), samples, DRAWS)
    for module in PRUNED_MODULES:
        assert bool((free.prunes[1].weights[module] != 0).all())
        assert torch.equal(held.prunes[1].weights[module] != 0, held.prunes[0].selections[module].mask)
    assert free.steps == held.steps == 6


@pytest.mark.parametrize("family", ["llama1", "qwen3"])
@pytest.mark.parametrize("method", ["ro", "wanda++"])
def test_optimisation_lowers_the_error(tmp_path: Path, family: str, method: str) -> None:
    make_model(tmp_path, ModelRequest(family, "bf16"))
    config, model = read_config(tmp_path), read_model_folder(tmp_path)
    tokens = calibration_samples(random_tokens(SAMPLES, TOKENS), SAMPLES, TOKENS)
    options = make_options(method, ro_learning_rate=3e-4)
    pruned = prune_model(options, config, model, tokens, {0: DRAWS, 1: DRAWS})
    assert all(final < first for first, final in zip(pruned.first_mask_errors, pruned.final_errors))


def test_optimisation_with_a_rate_of_zero_is_the_mask_of_all_samples(tmp_path: Path) -> None:
    config, model, samples = load(tmp_path, "llama1")
    options = make_options("wanda++", ro_learning_rate=0.0)
    optimised = regional_optimisation(options, config, model.block(0), samples, [[0, 1, 2, 3]])
    once = prune_block(make_options("rgs"), config, model.block(0), samples, [], "F32")
    for module, matrix in matrices_of(once.weights).items():
        assert torch.equal(optimised.prunes[0].selections[module].mask, once.masks[module])
        assert torch.equal(optimised.masks[module], once.masks[module])
        assert torch.equal(optimised.weights[f"{module}.weight"], matrix)
