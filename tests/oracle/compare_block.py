"""Judges one pruned block against float64: masks, weights and errors, each within what float32 may change."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Dict, List, Optional

import torch
from torch import Tensor

import sparsegpt
from checkpoint import PRUNED_MODULES, ModelConfig
from decoder import BlockTensors
from masks import inexact_groups
from method import (
    RMSPROP_DECAY,
    RMSPROP_EPSILON,
    SPARSEGPT_STAGES,
    GradientEntry,
    PrunedBlock,
    PruneOptions,
    gram_matrix,
    linear_inputs,
    prune_block,
    relative_error,
)

UNIT_ROUNDOFF = 2.0**-24  # float32
MANTISSA_BITS = {"F32": 24, "F16": 11, "BF16": 8}
ERROR_TOLERANCE = 1e-3

# A GPU computes 16-bit checkpoints in their type: between two matrix products every value is rounded to 8 or 11 bits.
ON_GPU = os.environ.get("ESPALIER_TEST_DEVICE") == "cuda"
SIXTEEN_BIT_ROUNDINGS = 4.0  # of a norm or a gradient, in units of the last place
SIXTEEN_BIT_ERROR_TOLERANCE = 5e-2

# Regional optimisation: an RMSprop step moves a weight by at most 10 learning rates, by rate * g / sqrt(v). Float32
# rounding perturbs g by a small part of the gradient's rms, which matters only where all gradients so far were tiny
# themselves: there the step keeps its size but not its value. So nearly all weights must follow the oracle to a small
# part of the longest possible way, and none may differ by more than going that way in the opposite direction.
# "Nearly all" holds for the weights with such a gradient alone. Their neighbours follow them: one first step of ten
# learning rates the other way, of one weight of up_proj, changes what 0.5 % of an MLP's weights do by more than that
# part, since it changes the output that all of them optimise. So where too few follow, the oracle repeats the
# optimisation once for each such step, turned as float32 may turn it, and a weight may be off by what they change.
FOLLOWED_PART = 0.001
FOLLOWED_SHARE = 0.999
DOUBTFUL_STEP = 1.0  # in learning rates: how far float32 rounding moves a step whose consequences are looked at


@dataclass
class Comparison:
    """What was compared and found. `problems` is empty when the run agrees with the oracle."""

    problems: List[str] = field(default_factory=list)
    decisions: int = 0
    disagreements: int = 0
    worst_margin: float = 0.0  # of decisions that differ, in parts of what is allowed
    worst_weight_difference: float = 0.0
    least_followed_share: float = 1.0
    worst_error_difference: float = 0.0

    @property
    def agreement(self) -> float:
        return 1.0 - self.disagreements / max(self.decisions, 1)

    def summary(self) -> str:
        return (
            f"{self.decisions} decisions, {self.disagreements} differ (agreement {self.agreement:.6f}, "
            f"largest margin {self.worst_margin:.2g} of what is allowed); "
            f"largest weight difference {self.worst_weight_difference:.2e}, followed {self.least_followed_share:.6f}; "
            f"largest relative difference of an error {self.worst_error_difference:.2e}; {len(self.problems)} problems"
        )


@dataclass(frozen=True)
class BlockCase:
    """One block under comparison: dense and written tensors, oracle input hidden states and the run's masks."""

    index: int
    config: ModelConfig
    options: PruneOptions
    dtype: str
    dense: BlockTensors
    written: BlockTensors
    masks: Dict[str, Tensor]
    samples: Tensor

    def name(self, module: str) -> str:
        return f"block {self.index} {module}"

    @property
    def in_sixteen_bits(self) -> bool:
        """Whether the program computed this block with 16-bit activations."""
        return ON_GPU and self.dtype != "F32"


def forward_sum_length(config: ModelConfig, tokens: int) -> int:
    """Number of terms of all sums that a value passes, one after the other, on its way through a block."""
    attention_width = config.head_count * config.head_dim
    norms = 2 * config.hidden_size
    attention = config.hidden_size + config.head_dim + 2 * tokens + attention_width
    return norms + attention + config.hidden_size + config.intermediate_size


def value_tolerance(case: BlockCase) -> float:
    """Bound on the relative float32 error of an input norm or gradient of this block.

    A float32 sum of n terms is off by at most n u times the sum of the terms' magnitudes, about sqrt(n) u for random
    roundings; terms of random signs cancel to about 1 / sqrt(n) of that sum, so n u covers both. Errors of sums passed
    one after the other add up: those of this block and of all before it, and the sum over tokens of the norm itself.
    A gradient passes every sum forwards, back towards the weight, and once more over tokens for dW.
    """
    if case.in_sixteen_bits:
        return SIXTEEN_BIT_ROUNDINGS * 2.0 ** -MANTISSA_BITS[case.dtype]
    tokens = case.samples.shape[-2]
    once = forward_sum_length(case.config, tokens)
    backward = 2 * once + tokens if case.options.uses_gradient else 0
    return UNIT_ROUNDOFF * (once * (case.index + 1) + tokens + backward)


def margin_tolerance(case: BlockCase) -> float:
    """Largest relative distance of two scores that float32 may order differently: both may be off."""
    return 0.0 if case.options.score == "magnitude" else 2.0 * value_tolerance(case)


def compare_masks(
    case: BlockCase, module: str, expected: Tensor, margin: Tensor, allowed: float, result: Comparison
) -> None:
    """Counts decisions that differ and demands that each was a near-tie: `margin` at most `allowed`."""
    differs = expected != case.masks[module]
    result.decisions += differs.numel()
    result.disagreements += int(differs.sum())
    if not bool(differs.any()):
        return
    worst = float(margin[differs].max()) / max(allowed, 1e-300)
    result.worst_margin = max(result.worst_margin, worst)
    beyond = differs & ~(margin <= allowed)
    if bool(beyond.any()):
        row, column = beyond.nonzero()[0].tolist()
        result.problems.append(
            f"{case.name(module)}: {int(differs.sum())} decisions differ, {int(beyond.sum())} beyond a near-tie, first "
            f"[{row}, {column}], kept by the {'run' if case.masks[module][row, column] else 'oracle'}; largest margin "
            f"{worst:.3g} times what is allowed"
        )


def check_form(case: BlockCase, result: Comparison) -> None:
    """Exact groups or rows, removed weights +0.0, and nothing that is not finite."""
    for module in PRUNED_MODULES:
        mask, weight = case.masks[module], case.written[f"{module}.weight"]
        inexact = inexact_groups(mask, case.options.pattern)
        if inexact:
            result.problems.append(f"{case.name(module)}: {inexact} groups without the exact count")
        removed = weight[~mask]
        if bool((removed != 0).any()) or bool(torch.signbit(removed).any()):
            result.problems.append(f"{case.name(module)}: a removed weight is not +0.0")
        if not bool(torch.isfinite(weight).all()):
            result.problems.append(f"{case.name(module)}: a weight is not finite")


def check_kept_untouched(case: BlockCase, result: Comparison) -> None:
    """Magnitude, Wanda and RGS leave the kept weights as they were."""
    for module in PRUNED_MODULES:
        changed = (case.written[f"{module}.weight"] != case.dense[f"{module}.weight"]) & case.masks[module]
        if bool(changed.any()):
            result.problems.append(f"{case.name(module)}: {int(changed.sum())} kept weights changed")


def half_spacing(values: Tensor, dtype: str) -> Tensor:
    """Half the distance of neighbouring numbers of `dtype` at `values` (never below float16's subnormal half step)."""
    exponent = torch.frexp(values).exponent.to(torch.float64)
    spacing = torch.exp2(exponent - MANTISSA_BITS[dtype])
    if dtype == "F16":
        spacing = spacing.clamp_min(2.0**-24)
    return 0.5 * spacing


def sweep_tolerance(case: BlockCase, condition: float) -> float:
    """Bound on a row's compensated weights, relative to its Euclidean norm (check_sweeps says why)."""
    unit = 2.0 ** -MANTISSA_BITS[case.dtype] if case.in_sixteen_bits else UNIT_ROUNDOFF
    return math.sqrt(condition * value_tolerance(case) * unit)


def check_sweeps(case: BlockCase, result: Comparison) -> None:
    """Replays every sweep with the run's own mask forced, so each decision and the weights can be judged singly. Where
    scores choose the mask, its decisions are judged elsewhere.

    Inputs of later stages come from the run's written earlier matrices. Inputs X come with float32 errors E of relative
    size d = sqrt(n) u (random roundings of n-term sums); the Gram matrix H = X^T X then changes by X^T E + E^T X, and
    H^-1/2 (X^T E) H^-1/2 is at most d sqrt(k) for a damped H of condition k, since X H^-1/2 is orthonormal. So
    corrections are off by about d sqrt(k), scores (squares) by twice that on either side of the cut. Factorisation and
    sweep themselves must be better than float32. A weight collects corrections from all columns before it, so its
    error is measured against the row's Euclidean norm.
    """
    current = dict(case.dense)
    for stage in SPARSEGPT_STAGES:
        inputs = linear_inputs(case.config, current, case.samples)
        for module in stage:
            gram = gram_matrix(inputs[module])
            swept = sparsegpt.sweep(case.dense[f"{module}.weight"], gram, case.options.pattern, case.masks[module])
            relative = sweep_tolerance(case, swept.condition)
            if case.options.score == "sparsegpt":
                compare_masks(case, module, swept.selection.mask, swept.selection.margin, 4.0 * relative, result)
            written = case.written[f"{module}.weight"]
            size = case.dense[f"{module}.weight"].norm(dim=1, keepdim=True)
            worst = float((((written - swept.weight).abs() - half_spacing(swept.weight, case.dtype)) / size).max())
            result.worst_weight_difference = max(result.worst_weight_difference, worst)
            if not worst <= relative:
                result.problems.append(
                    f"{case.name(module)}: weights differ by {worst:.2e} > {relative:.2e} of a row's norm"
                )
        current.update({f"{module}.weight": case.written[f"{module}.weight"] for module in stage})


def optimised_margins(case: BlockCase, pruned: PrunedBlock, module: str, weight_tolerance: float) -> Tensor:
    """The smallest margin of each weight over all prunes of a block, in parts of what is allowed at that prune.

    A weight removed in an early round stays far below the cut later, so a flip is excused by the prune where it arose.
    After optimiser steps a score may be off by the weights' tolerance too, relative to a weight near the cut; half the
    matrix' rms stands for that.
    """
    score_tolerance = margin_tolerance(case)
    size = 0.5 * float(case.dense[f"{module}.weight"].square().mean().sqrt())
    parts = []
    for prune_index, prune in enumerate(pruned.prunes):
        allowed = score_tolerance + (2.0 * weight_tolerance / size if prune_index else 0.0)
        if case.options.score == "sparsegpt":
            allowed = 4.0 * sweep_tolerance(case, pruned.conditions[module])
        parts.append(prune.selections[module].margin / allowed)
    return torch.stack(parts).amin(0)


def doubtful_steps(case: BlockCase, pruned: PrunedBlock) -> List[GradientEntry]:
    """The steps that float32 rounding may change by DOUBTFUL_STEP or more, with the gradient that changes each most.

    A gradient is the end of sums of n terms, forwards, back, and over the tokens; random roundings move it by about
    sqrt(n) u of the gradients' rms. A gradient of exactly 0 is no rounding: nothing reaches that weight.
    """
    tokens = case.samples.shape[-2]
    terms = forward_sum_length(case.config, tokens) * (case.index + 3) + tokens
    found: List[GradientEntry] = []
    for module in PRUNED_MODULES:
        moment = torch.zeros_like(pruned.gradients[0][module])
        for step, gradients in enumerate(pruned.gradients):
            gradient = gradients[module]
            before = RMSPROP_DECAY * moment
            moment = before + (1.0 - RMSPROP_DECAY) * gradient.square()
            error = math.sqrt(terms) * UNIT_ROUNDOFF * gradient.square().mean().sqrt()

            def length(value: Tensor) -> Tensor:
                return value / ((before + (1.0 - RMSPROP_DECAY) * value.square()).sqrt() + RMSPROP_EPSILON)

            above, below = gradient + error, gradient - error
            up, down = ((length(other) - length(gradient)).abs() for other in (above, below))
            doubtful = (torch.maximum(up, down) >= DOUBTFUL_STEP) & (gradient != 0.0)
            for row, column in doubtful.nonzero().tolist():
                turned = above if up[row, column] > down[row, column] else below
                found.append(GradientEntry(step, module, row, column, float(turned[row, column])))
    return found


def consequences_of_doubt(case: BlockCase, pruned: PrunedBlock, draws: List[List[int]]) -> Dict[str, Tensor]:
    """By module how far each weight that stays may be off because of the doubtful steps, its own and others'."""
    total = {module: torch.zeros_like(pruned.weights[f"{module}.weight"]) for module in PRUNED_MODULES}
    for entry in doubtful_steps(case, pruned):
        turned = prune_block(
            case.options, case.config, case.dense, case.samples, draws, case.dtype, [entry], case.masks
        )
        for module, sum_of_changes in total.items():
            both = turned.masks[module] & pruned.masks[module]
            change = (turned.weights[f"{module}.weight"] - pruned.weights[f"{module}.weight"]).abs()
            sum_of_changes += torch.where(both, change, 0.0)
    return total


def check_optimised(case: BlockCase, pruned: PrunedBlock, draws: List[List[int]], result: Comparison) -> None:
    """Masks and final weights of a block after regional optimisation."""
    longest_way = 10.0 * case.options.step_rate * pruned.steps
    in_doubt: Optional[Dict[str, Tensor]] = None
    for module in PRUNED_MODULES:
        # 16-bit activations turn small gradients around: weights and masks are only bound by the longest way.
        followed_part = 1.0 if case.in_sixteen_bits else FOLLOWED_PART
        margins = optimised_margins(case, pruned, module, followed_part * longest_way)
        compare_masks(case, module, pruned.masks[module], margins, 1.0, result)
        both = pruned.masks[module] & case.masks[module]
        expected, written = pruned.weights[f"{module}.weight"][both], case.written[f"{module}.weight"][both]
        rounding = half_spacing(expected, case.dtype) + (pruned.steps + 1) * UNIT_ROUNDOFF * expected.abs()
        if pruned.conditions:
            # What the compensation may have left is there at the end, too.
            norms = case.dense[f"{module}.weight"].norm(dim=1, keepdim=True).expand(both.shape)
            rounding = rounding + sweep_tolerance(case, pruned.conditions[module]) * norms[both]
        difference = (written - expected).abs() - rounding
        followed = float((difference <= FOLLOWED_PART * longest_way).double().mean())
        if followed < FOLLOWED_SHARE and not case.in_sixteen_bits:
            in_doubt = in_doubt or consequences_of_doubt(case, pruned, draws)
            allowed = FOLLOWED_PART * longest_way + in_doubt[module][both]
            followed = float((difference <= allowed).double().mean())
        result.worst_weight_difference = max(result.worst_weight_difference, float(difference.max()))
        result.least_followed_share = min(result.least_followed_share, followed)
        if followed < FOLLOWED_SHARE and not case.in_sixteen_bits:
            result.problems.append(f"{case.name(module)}: only {followed:.4%} of the weights follow the oracle's steps")
        if float(difference.max()) > 2.0 * longest_way:
            result.problems.append(f"{case.name(module)}: a weight is {float(difference.max()):.2e} off the oracle")


def check_errors(
    case: BlockCase,
    first: Optional[BlockTensors],
    first_draw: Optional[List[int]],
    metrics: Dict[str, float],
    result: Comparison,
) -> None:
    """The block's entry of metrics.json against errors recomputed from the written weights and the first mask.

    Where a block is optimised, the error after the first mask is over the samples drawn first.
    """
    drawn = case.samples if first_draw is None else case.samples[sorted(first_draw)]
    compared = {"error_final": (case.written, case.samples)}
    if first is not None:
        compared["error_after_first_mask"] = (first, drawn)
    if first_draw is not None:
        compared["error_final_first_draw"] = (case.written, drawn)
    for key, (weights, samples) in compared.items():
        expected = relative_error(case.config, case.dense, weights, samples)
        found = metrics.get(key)
        if found is None:
            result.problems.append(f"block {case.index}: metrics.json has no {key}")
            continue
        difference = abs(found - expected) / max(expected, 1e-30)
        result.worst_error_difference = max(result.worst_error_difference, difference)
        if not difference <= (SIXTEEN_BIT_ERROR_TOLERANCE if case.in_sixteen_bits else ERROR_TOLERANCE):
            result.problems.append(f"block {case.index}: {key} is {found:.8e}, the oracle says {expected:.8e}")


def compare_block(
    case: BlockCase, draws: Dict[int, List[List[int]]], metrics: Dict[str, float], result: Comparison
) -> None:
    """All comparisons of one block."""
    check_form(case, result)
    if case.options.compensates and not case.options.optimises:
        check_sweeps(case, result)
        if case.options.score == "sparsegpt":
            check_errors(case, None, None, metrics, result)
            return
    if case.options.optimises and not draws_valid(case, draws.get(case.index), result):
        return
    pruned = prune_block(
        case.options, case.config, case.dense, case.samples, draws.get(case.index, []), case.dtype,
        forced_masks=case.masks,
    )  # fmt: skip
    if case.options.optimises:
        check_optimised(case, pruned, draws[case.index], result)
    else:
        if not case.options.compensates:
            check_kept_untouched(case, result)
        for module in PRUNED_MODULES:
            selection = pruned.prunes[0].selections[module]
            compare_masks(case, module, selection.mask, selection.margin, margin_tolerance(case), result)
    first_draw = draws[case.index][0] if case.options.optimises else None
    # Without optimisation the first weights are the last ones.
    check_errors(case, pruned.first if case.options.optimises else case.written, first_draw, metrics, result)


def draws_valid(case: BlockCase, draws: Optional[List[List[int]]], result: Comparison) -> bool:
    """The run's draws: as many rounds as asked, each of distinct samples in range."""
    options = case.options
    valid = draws is not None and len(draws) == options.ro_rounds
    for drawn in draws or []:
        valid = valid and len(drawn) == len(set(drawn)) == min(options.ro_samples, options.samples)
        valid = valid and all(0 <= sample < options.samples for sample in drawn)
    if not valid:
        result.problems.append(f"block {case.index}: events.jsonl has draws {draws}")
    return valid
