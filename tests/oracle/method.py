"""The pruning methods in float64: norms, regional gradient, scores, regional optimisation, whole models.

Names follow the method's formulas: X_n sample n as it enters the block, f the block, f0 the block with dense weights,
G the regional gradient, c the input norms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

import sparsegpt
from checkpoint import PRUNED_MODULES, Model, ModelConfig, round_to_dtype
from decoder import INPUT_OF_MODULE, BlockTensors, block_forward, embed
from masks import Pattern, Selection, select

METHODS = ("magnitude", "wanda", "sparsegpt", "rgs", "ro", "wanda++")
COMPOSITIONS = {"sparsegpt": ("sparsegpt", True, False), "ro": ("wanda", False, True), "wanda++": ("rgs", False, True)}
RMSPROP_DECAY = 0.99
RMSPROP_EPSILON = 1e-8

Matrices = Dict[str, Tensor]


@dataclass(frozen=True)
class PruneOptions:
    """What a pruning run was asked to do; names and defaults are those of the command line."""

    method: str
    pattern: Pattern
    samples: int
    sequence_length: int
    alpha: float = 100.0
    input_norm: str = "sum"
    ro_samples: int = 32
    ro_rounds: int = 5
    ro_learning_rate: float = 3e-7
    ro_batch: int = 1
    ro_lr_scaling: str = "sqrt"
    hold_mask: bool = False

    @property
    def composition(self) -> Tuple[str, bool, bool]:
        """Score, whether SparseGPT compensates for what goes, whether regional optimisation follows."""
        if self.method in COMPOSITIONS:
            return COMPOSITIONS[self.method]
        score, *added = self.method.split("+")
        return score, score == "sparsegpt" or "sparsegpt" in added, "ro" in added

    @property
    def score(self) -> str:
        return self.composition[0]

    @property
    def compensates(self) -> bool:
        return self.composition[1]

    @property
    def optimises(self) -> bool:
        return self.composition[2]

    @property
    def uses_gradient(self) -> bool:
        return self.score == "rgs"

    @property
    def holds_mask(self) -> bool:
        """SparseGPT's own mask is chosen once, from dense weights."""
        return self.hold_mask or self.score == "sparsegpt"

    @property
    def step_rate(self) -> float:
        """The learning rate of every step, scaled by the nominal mini-batch size (a smaller last one included)."""
        growth = {"none": 1.0, "sqrt": math.sqrt(self.ro_batch), "linear": float(self.ro_batch)}
        return self.ro_learning_rate * growth[self.ro_lr_scaling]


@dataclass
class Prune:
    """One pruning of a block's seven matrices: the weights that were scored, the scores' decisions and margins."""

    weights: Matrices
    selections: Dict[str, Selection]


@dataclass(frozen=True)
class GradientEntry:
    """One weight's gradient in one step of regional optimisation."""

    step: int
    module: str
    row: int
    column: int
    value: float


@dataclass
class PrunedBlock:
    """`weights`: every tensor of the block, before rounding; `first`: as they were first masked, and compensated where
    that is done, before any optimisation. `prunes`: every mask selection in order, last = final.
    `applied`: the masks of a compensation, which differ from its own choice where a run's are forced; `conditions`: of
    its Gram matrices. `gradients`: those of every optimiser step."""

    weights: BlockTensors
    first: BlockTensors = field(default_factory=dict)
    prunes: List[Prune] = field(default_factory=list)
    applied: Dict[str, Tensor] = field(default_factory=dict)
    conditions: Dict[str, float] = field(default_factory=dict)
    gradients: List[Matrices] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return len(self.gradients)

    @property
    def masks(self) -> Dict[str, Tensor]:
        return {module: selection.mask for module, selection in self.prunes[-1].selections.items()}


def matrices_of(weights: BlockTensors) -> Matrices:
    """The seven pruned matrices by module."""
    return {module: weights[f"{module}.weight"] for module in PRUNED_MODULES}


def with_matrices(weights: BlockTensors, matrices: Matrices) -> BlockTensors:
    """The block with its seven matrices replaced."""
    return {**weights, **{f"{module}.weight": matrix for module, matrix in matrices.items()}}


def linear_inputs(config: ModelConfig, weights: BlockTensors, samples: Tensor) -> Matrices:
    """What feeds each pruned matrix: [N, T, in] by module, from one pass."""
    inputs: Dict[str, Tensor] = {}
    with torch.no_grad():
        block_forward(config, weights, samples, inputs)
    return {module: inputs[INPUT_OF_MODULE[module]] for module in PRUNED_MODULES}


def input_norms(inputs: Tensor, kind: str) -> Tensor:
    """c_j of [N, T, in]: root of the sum of squares over samples and tokens, `mean`: divided by N inside the root."""
    total = inputs.square().sum((0, 1))
    return (total / inputs.shape[0] if kind == "mean" else total).sqrt()


def regional_loss_gradients(config: ModelConfig, weights: BlockTensors, sample: Tensor) -> Matrices:
    """dL/dW of L = || f(X) ||_F for one sample [T, H]."""
    matrices = {module: matrix.detach().requires_grad_() for module, matrix in matrices_of(weights).items()}
    loss = torch.linalg.vector_norm(block_forward(config, with_matrices(weights, matrices), sample))
    return dict(zip(matrices, torch.autograd.grad(loss, list(matrices.values()))))


def regional_gradient(config: ModelConfig, weights: BlockTensors, samples: Tensor) -> Matrices:
    """G = sqrt of the mean over samples of the squared gradients of each sample's own loss."""
    total = {module: torch.zeros_like(matrix) for module, matrix in matrices_of(weights).items()}
    for sample in samples:
        for module, gradient in regional_loss_gradients(config, weights, sample).items():
            total[module] += gradient.square()
    return {module: (value / len(samples)).sqrt() for module, value in total.items()}


def scores(
    options: PruneOptions, config: ModelConfig, weights: BlockTensors, samples: Tensor, gradient: Matrices
) -> Matrices:
    """Scores of the seven matrices; all input norms come from one pass with the weights as they are."""
    matrices = matrices_of(weights)
    if options.score == "magnitude":
        return {module: matrix.abs() for module, matrix in matrices.items()}
    inputs = linear_inputs(config, weights, samples)
    result: Matrices = {}
    for module, matrix in matrices.items():
        importance = input_norms(inputs[module], options.input_norm)
        if options.uses_gradient:
            importance = options.alpha * gradient[module] + importance
        result[module] = matrix.abs() * importance
    return result


def prune_by_score(
    options: PruneOptions, config: ModelConfig, weights: BlockTensors, samples: Tensor, gradient: Matrices
) -> Prune:
    """Scores and selects; applies nothing."""
    values = scores(options, config, weights, samples, gradient)
    selected = {module: select(score, options.pattern) for module, score in values.items()}
    return Prune({module: matrix.clone() for module, matrix in matrices_of(weights).items()}, selected)


def masked(weights: BlockTensors, prune: Prune) -> BlockTensors:
    """The block with removed weights set to +0."""
    kept = {
        module: torch.where(selection.mask, weights[f"{module}.weight"], 0.0)
        for module, selection in prune.selections.items()
    }
    return with_matrices(weights, kept)


def prune_once(
    options: PruneOptions, config: ModelConfig, weights: BlockTensors, samples: Tensor, gradient: Matrices
) -> PrunedBlock:
    """Magnitude, Wanda and RGS."""
    prune = prune_by_score(options, config, weights, samples, gradient)
    result = masked(weights, prune)
    return PrunedBlock(result, result, [prune])


def rmsprop_step(
    options: PruneOptions, matrices: Matrices, second_moments: Matrices, gradients: Matrices, held: Dict[str, Tensor]
) -> Matrices:
    """v <- 0.99 v + 0.01 g^2; w <- w - rate g / (sqrt(v) + 1e-8). `held` masks gradient and weight where given."""
    updated: Matrices = {}
    for module, matrix in matrices.items():
        gradient = gradients[module]
        if module in held:
            gradient = torch.where(held[module], gradient, 0.0)
        moment = RMSPROP_DECAY * second_moments[module] + (1.0 - RMSPROP_DECAY) * gradient.square()
        second_moments[module] = moment
        step = matrix - options.step_rate * gradient / (moment.sqrt() + RMSPROP_EPSILON)
        updated[module] = torch.where(held[module], step, 0.0) if module in held else step
    return updated


def output_loss_gradients(config: ModelConfig, weights: BlockTensors, batch: Tensor, targets: Tensor) -> Matrices:
    """d/dW of the sum over the mini-batch, tokens and channels of (f(X) - f0(X))^2."""
    matrices = {module: matrix.detach().requires_grad_() for module, matrix in matrices_of(weights).items()}
    loss = (block_forward(config, with_matrices(weights, matrices), batch) - targets).square().sum()
    return dict(zip(matrices, torch.autograd.grad(loss, list(matrices.values()))))


def regional_optimisation(
    options: PruneOptions,
    config: ModelConfig,
    weights: BlockTensors,
    samples: Tensor,
    draws: Sequence[Sequence[int]],
    gradient: Matrices,
    compensated: Optional[PrunedBlock],
    replaced: Sequence[GradientEntry] = (),
) -> PrunedBlock:
    """RO of one block: `draws[k]` are the samples of round k in the order of their mini-batches. It begins with the
    dense weights, or with `compensated` ones, which have their first mask. `replaced` gradients are taken instead of
    the computed ones."""
    with torch.no_grad():
        targets = block_forward(config, weights, samples)
    second_moments = {module: torch.zeros_like(matrix) for module, matrix in matrices_of(weights).items()}
    result = PrunedBlock(weights)
    if compensated is not None:
        result = replace(compensated, prunes=list(compensated.prunes))
    for round_index, drawn in enumerate(draws):
        has_mask = compensated is not None and (round_index == 0 or options.score == "sparsegpt")
        if not has_mask:
            prune = prune_by_score(options, config, result.weights, samples[list(drawn)], gradient)
            result.prunes.append(prune)
            result.weights = masked(result.weights, prune)
            result.first = result.first or result.weights
        held = result.masks if options.holds_mask else {}
        if options.score == "sparsegpt":
            held = result.applied
        for first in range(0, len(drawn), options.ro_batch):
            batch = list(drawn[first : first + options.ro_batch])
            gradients = output_loss_gradients(config, result.weights, samples[batch], targets[batch])
            for entry in replaced:
                if entry.step == result.steps:
                    gradients[entry.module][entry.row, entry.column] = entry.value
            updated = rmsprop_step(options, matrices_of(result.weights), second_moments, gradients, held)
            result.weights = with_matrices(result.weights, updated)
            result.gradients.append(gradients)
    if options.score != "sparsegpt":
        last = prune_by_score(options, config, result.weights, samples, gradient)
        result.prunes.append(last)
        result.weights = masked(result.weights, last)
    return result


# SparseGPT goes through the block in this order; later matrices see the inputs that the pruned earlier ones make.
SPARSEGPT_STAGES = (PRUNED_MODULES[:3], PRUNED_MODULES[3:4], PRUNED_MODULES[4:6], PRUNED_MODULES[6:])


def gram_matrix(inputs: Tensor) -> Tensor:
    """Sum over samples and tokens of x x^T."""
    flat = inputs.flatten(0, 1)
    return flat.T @ flat


def compensate(
    options: PruneOptions,
    config: ModelConfig,
    weights: BlockTensors,
    samples: Tensor,
    dtype: str,
    chosen: Optional[Prune],
    forced_masks: Optional[Dict[str, Tensor]],
) -> PrunedBlock:
    """True-sequential SparseGPT by its own choice, or by what scores have `chosen`; a stage is rounded to `dtype`
    before the inputs of the next stage are made. `forced_masks` are applied instead of its own choice."""
    result = dict(weights)
    selected: Dict[str, Selection] = {}
    applied: Dict[str, Tensor] = {}
    conditions: Dict[str, float] = {}
    for stage in SPARSEGPT_STAGES:
        inputs = linear_inputs(config, result, samples)
        for module in stage:
            forced = forced_masks[module] if forced_masks else None
            if chosen is not None:
                forced = chosen.selections[module].mask
            swept = sparsegpt.sweep(weights[f"{module}.weight"], gram_matrix(inputs[module]), options.pattern, forced)
            result[f"{module}.weight"] = round_to_dtype(swept.weight, dtype)
            selected[module], conditions[module] = swept.selection, swept.condition
            applied[module] = swept.selection.mask if forced is None else forced
    return PrunedBlock(result, result, [chosen or Prune(matrices_of(weights), selected)], applied, conditions)


def prune_block(
    options: PruneOptions,
    config: ModelConfig,
    weights: BlockTensors,
    samples: Tensor,
    draws: Sequence[Sequence[int]],
    dtype: str,
    replaced: Sequence[GradientEntry] = (),
    forced_masks: Optional[Dict[str, Tensor]] = None,
) -> PrunedBlock:
    """Prunes one block by any method. `forced_masks`: a run's, to go on with where SparseGPT chooses its own."""
    gradient = regional_gradient(config, weights, samples) if options.uses_gradient else {}
    begin: Optional[PrunedBlock] = None
    if options.compensates:
        scored = options.score != "sparsegpt"
        chosen = prune_by_score(options, config, weights, samples, gradient) if scored else None
        begin = compensate(options, config, weights, samples, dtype, chosen, forced_masks)
    if options.optimises:
        return regional_optimisation(options, config, weights, samples, draws, gradient, begin, replaced)
    return begin or prune_once(options, config, weights, samples, gradient)


def relative_error(config: ModelConfig, dense: BlockTensors, pruned: BlockTensors, samples: Tensor) -> float:
    """Squared output error over all samples, relative to the dense outputs' squared norm over all samples."""
    with torch.no_grad():
        expected = block_forward(config, dense, samples)
        return float((block_forward(config, pruned, samples) - expected).square().sum() / expected.square().sum())


@dataclass
class PrunedModel:
    """Blocks as written (rounded to the checkpoint's dtype), what led there, and the errors of each block."""

    blocks: List[BlockTensors] = field(default_factory=list)
    history: List[PrunedBlock] = field(default_factory=list)
    first_mask_errors: List[float] = field(default_factory=list)
    final_errors: List[float] = field(default_factory=list)


def prune_model(
    options: PruneOptions, config: ModelConfig, model: Model, tokens: Tensor, draws: Dict[int, List[List[int]]]
) -> PrunedModel:
    """Prunes block after block; each block's inputs come from the rounded pruned blocks before it."""
    samples = embed(model, tokens)
    result = PrunedModel()
    for index in range(config.block_count):
        dense, of_block = model.block(index), config.of_block(index)
        dtype = model.tensors[f"model.layers.{index}.self_attn.q_proj.weight"].dtype
        pruned = prune_block(options, of_block, dense, samples, draws.get(index, []), dtype)
        rounded = {module: round_to_dtype(matrix, dtype) for module, matrix in matrices_of(pruned.weights).items()}
        written = with_matrices(dense, rounded)
        first = pruned.first if options.optimises else written
        result.blocks.append(written)
        result.history.append(pruned)
        result.first_mask_errors.append(relative_error(of_block, dense, first, samples))
        result.final_errors.append(relative_error(of_block, dense, written, samples))
        with torch.no_grad():
            samples = block_forward(of_block, written, samples)
    return result
