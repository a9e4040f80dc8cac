"""The oracle's gradients and steps, against finite differences."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

from checkpoint import PRUNED_MODULES
from compare_block import BlockCase, Comparison, check_optimised, doubtful_steps
from decoder import BlockTensors, block_forward
from method import (
    GradientEntry,
    PrunedBlock,
    output_loss_gradients,
    prune_block,
    regional_gradient,
    regional_loss_gradients,
    rmsprop_step,
    with_matrices,
)
from small_models import DRAWS, load, make_options

torch.set_num_threads(1)


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
