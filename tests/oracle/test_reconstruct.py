"""Reconstruction of blocks against PyTorch in float64: held-out errors after each epoch, and the weights that come out.

Every block is judged given the blocks before it as the run wrote them, and with the mask that the run chose.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Dict, List, NamedTuple

import pytest
import torch
from torch import Tensor

from checkpoint import PRUNED_MODULES, calibration_samples, read_config, read_model_folder, read_run_folder, read_tokens
from decoder import block_forward, embed
from espalier_program import DEVICE, espalier, run_program  # noqa: F401
from finetuning import drawn_order
from method import Matrices, matrices_of, with_matrices
from random_model import ModelRequest, make_model, random_tokens, write_tokens

SAMPLES, TOKENS, EPOCHS, RATE = 12, 24, 2, 2e-2


class Case(NamedTuple):
    family: str
    method: str
    target: str
    batch: int
    loss: str


def loss_of(case: Case, outputs: Tensor, targets: Tensor) -> Tensor:
    """The sum of all squared errors, or of each token's relative to its target."""
    errors = (outputs - targets).square().sum(-1)
    return (errors / targets.square().sum(-1)).sum() if case.loss == "token" else errors.sum()


def gradients_of(case: Case, config: object, weights: Dict[str, Tensor], x: Tensor, targets: Tensor) -> Matrices:
    """d loss / dW of a step's samples."""
    matrices = {module: matrix.detach().requires_grad_() for module, matrix in matrices_of(weights).items()}
    loss = loss_of(case, block_forward(config, with_matrices(weights, matrices), x), targets)
    return dict(zip(matrices, torch.autograd.grad(loss, list(matrices.values()))))


def adamw(weights: Dict[str, Tensor], masks: Dict[str, Tensor], case: Case, config: object, x: Tensor, targets: Tensor,
          block: int) -> List[Dict[str, Tensor]]:  # fmt: skip
    """The weights at the start and after each epoch."""
    held_out = set(range(7, SAMPLES, 8))
    training = [n for n in range(SAMPLES) if n not in held_out]
    rates = {module: RATE * float(w[masks[module]].square().mean().sqrt()) for module, w in matrices_of(weights).items()}
    first = {module: torch.zeros_like(w) for module, w in matrices_of(weights).items()}
    second = {module: torch.zeros_like(w) for module, w in matrices_of(weights).items()}
    of_epoch = math.ceil(len(training) / case.batch)
    total, warm, taken = EPOCHS * of_epoch, math.ceil(0.1 * EPOCHS * of_epoch), 0
    states = [weights]
    for epoch in range(EPOCHS):
        order = [training[i] for i in drawn_order(len(training), 0xE90C5000 + epoch, 0, block)]
        for begin in range(0, len(order), case.batch):
            batch = order[begin : begin + case.batch]
            gradients = gradients_of(case, config, weights, x[batch], targets[batch])
            factor = (taken + 1) / warm if taken < warm else (total - taken) / max(1, total - warm)
            taken += 1
            moved = {}
            for module, w in matrices_of(weights).items():
                gradient = torch.where(masks[module], gradients[module], 0.0)
                first[module] = 0.9 * first[module] + 0.1 * gradient
                second[module] = 0.95 * second[module] + 0.05 * gradient.square()
                step = first[module] / (1 - 0.9**taken) / ((second[module] / (1 - 0.95**taken)).sqrt() + 1e-8)
                moved[module] = torch.where(masks[module], w - rates[module] * factor * step, 0.0)
            weights = with_matrices(weights, moved)
        states.append(weights)
    return states


@pytest.mark.parametrize(
    "case",
    [Case("llama3", "wanda+reconstruct", "dense-stream", 4, "token"), Case("qwen3", "magnitude+reconstruct", "block", 3, "sum"),
     Case("olmo2", "rgs+reconstruct", "dense-stream", 16, "token")],
    ids=lambda case: case.family,
)  # fmt: skip
def test_reconstruction_follows_pytorch(espalier: Path, tmp_path: Path, case: Case) -> None:  # noqa: F811
    model_folder, run = tmp_path / "model", tmp_path / "run"
    make_model(model_folder, ModelRequest(case.family))
    write_tokens(tmp_path / "tokens.npy", random_tokens(SAMPLES, TOKENS))
    run_program(espalier, "prune", "--model", model_folder, "--calibration", tmp_path / "tokens.npy", "--output", run,
                "--method", case.method, "--target", case.target, "--loss", case.loss, "--epochs", EPOCHS, "--batch", case.batch,
                "--learning-rate", RATE, "--device", DEVICE, *(["--ro-compute", "float32"] if DEVICE == "cuda" else []))  # fmt: skip
    config, model, written = read_config(model_folder), read_model_folder(model_folder), read_run_folder(run)
    metrics = json.loads((run / "metrics.json").read_text())["blocks"]
    x = dense_x = embed(model, calibration_samples(read_tokens(tmp_path / "tokens.npy"), SAMPLES, TOKENS))
    improved = 0
    for index in range(config.block_count):
        of_block, dense = config.of_block(index), model.block(index)
        masks = {module: written.mask(index, module) for module in PRUNED_MODULES}
        start = with_matrices(dense, {module: torch.where(masks[module], dense[f"{module}.weight"], 0.0) for module in masks})
        with torch.no_grad():
            dense_x = block_forward(of_block, dense, dense_x)
            targets = dense_x if case.target == "dense-stream" else block_forward(of_block, dense, x)
        states = adamw(start, masks, case, of_block, x, targets, index)
        held_out = list(range(7, SAMPLES, 8))
        errors = []
        for state in states:
            with torch.no_grad():
                error = loss_of(case, block_forward(of_block, state, x[held_out]), targets[held_out])
            size = len(held_out) * TOKENS if case.loss == "token" else float(targets[held_out].square().sum())
            errors.append(float(error) / size)
        found = metrics[index]["held_out_errors"]
        assert found == pytest.approx(errors, rel=2e-3), f"block {index}"
        best = min(range(len(errors)), key=errors.__getitem__)
        improved += best > 0
        for module in PRUNED_MODULES:
            name = f"{module}.weight"
            wanted, moved = states[best][name] - start[name], written.block(index)[name] - start[name]
            assert bool((written.block(index)[name][~masks[module]] == 0).all())
            if best > 0:
                assert float((moved - wanted).norm() / wanted.norm()) < 5e-3, f"block {index}, {module}"
            else:
                assert float(moved.abs().max()) == 0
        with torch.no_grad():
            x = block_forward(of_block, written.block(index), x)
    assert improved > 0
