"""The oracle's own fine-tuning: gradients of trained tensors against central differences, losses against PyTorch's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from checkpoint import read_config, read_model_folder
from finetuning import FinetuneOptions, Student, losses
from random_model import ModelRequest, make_model, random_tokens

STEP = 1e-5


def make_student(folder: Path, family: str, train: str) -> "tuple[Student, torch.Tensor, torch.Tensor]":
    """Half of its weights zero, and B not zero, so that A has a gradient; with a teacher's logits."""
    make_model(folder, ModelRequest(family))
    config, model = read_config(folder), read_model_folder(folder)
    student = Student(config, model, FinetuneOptions(train, "mix", 1e-2, 1, train_norms=True))
    tokens = torch.from_numpy(random_tokens(2, 9)).long()
    with torch.no_grad():
        teacher = student.logits(tokens)
        generator = torch.Generator().manual_seed(1)
        for block in student.blocks:
            for name in block:
                if name.endswith("_proj.weight"):
                    block[name] *= torch.rand(block[name].shape, generator=generator, dtype=torch.float64) < 0.5
        for name, value in student.trained.items():
            value += 0.02 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return student, tokens, teacher


@pytest.mark.parametrize("family, train", [("qwen3", "masked-lora"), ("olmo2", "lora"), ("llama3", "masked")])
def test_gradients_are_those_of_central_differences(tmp_path: Path, family: str, train: str) -> None:
    student, tokens, teacher = make_student(tmp_path, family, train)
    of_language, of_teacher = student.options.loss_weights

    def loss() -> torch.Tensor:
        cross_entropy, divergence = losses(student.logits(tokens), tokens, teacher)
        return of_language * cross_entropy + of_teacher * divergence

    loss().backward()
    generator = torch.Generator().manual_seed(2)
    for name, value in student.trained.items():
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        with torch.no_grad():
            value += STEP * direction
            above = float(loss())
            value -= 2 * STEP * direction
            below = float(loss())
            value += STEP * direction
        assert (above - below) / (2 * STEP) == pytest.approx(float((value.grad * direction).sum()), rel=1e-5, abs=1e-9), name


def test_losses_are_pytorchs() -> None:
    generator = torch.Generator().manual_seed(3)
    logits, teacher = (torch.randn(2, 7, 11, generator=generator, dtype=torch.float64) for _ in range(2))
    tokens = torch.randint(0, 11, (2, 7), generator=generator)
    cross_entropy, divergence = losses(logits, tokens, teacher)
    rows, wanted = logits[:, :-1].reshape(-1, 11), teacher[:, :-1].reshape(-1, 11)
    functional = torch.nn.functional
    assert float(cross_entropy) == pytest.approx(float(functional.cross_entropy(rows, tokens[:, 1:].reshape(-1))))
    expected = functional.kl_div(functional.log_softmax(rows, -1), functional.log_softmax(wanted, -1),
                                 reduction="batchmean", log_target=True)  # fmt: skip
    assert float(divergence) == pytest.approx(float(expected))
