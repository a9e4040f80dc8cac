"""The oracle's methods: what must hold whatever the model is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from checkpoint import PRUNED_MODULES, calibration_samples, read_config, read_model_folder
from masks import inexact_groups
from method import METHODS, matrices_of, prune_block, prune_model
from random_model import ModelRequest, make_model, random_tokens
from small_models import DRAWS, PATTERNS, SAMPLES, TOKENS, load, make_options

torch.set_num_threads(1)


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


@pytest.mark.parametrize("method", [*METHODS, "magnitude+ro", "rgs+sparsegpt", "sparsegpt+ro"])
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
    free = prune_block(make_options("wanda++"), config, model.block(0), samples, DRAWS, "F32")
    held = prune_block(make_options("wanda++", hold_mask=True), config, model.block(0), samples, DRAWS, "F32")
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
    optimised = prune_block(options, config, model.block(0), samples, [[0, 1, 2, 3]], "F32")
    once = prune_block(make_options("rgs"), config, model.block(0), samples, [], "F32")
    for module, matrix in matrices_of(once.weights).items():
        assert torch.equal(optimised.prunes[0].selections[module].mask, once.masks[module])
        assert torch.equal(optimised.masks[module], once.masks[module])
        assert torch.equal(optimised.weights[f"{module}.weight"], matrix)
