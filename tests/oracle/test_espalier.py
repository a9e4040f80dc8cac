"""The espalier program against the oracle: every method, pattern, family and dtype, on tiny random models.

The program is $ESPALIER, by default build/release/espalier of this repository.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Tuple

import h5py
import pytest
import torch

from checkpoint import (
    PRUNED_MODULES,
    calibration_samples,
    read_config,
    read_draws,
    read_model_folder,
    read_run_folder,
    read_tokens,
)
from compare import compare_run
from compare_block import Comparison
from decoder import block_forward, embed, perplexity
from espalier_program import DEVICE, espalier, run_program
from masks import Pattern
from method import PruneOptions, masked, output_loss_gradients, prune_by_score
from random_model import ModelRequest, make_model, random_tokens, write_tokens

torch.set_num_threads(1)

FILE_ROWS, FILE_LENGTH = 10, 40
SAMPLES, SEQUENCE_LENGTH = 8, 32


def prune_arguments(options: PruneOptions, pattern: str, sparsity: str) -> List[object]:
    """The command line of `options`."""
    arguments: List[object] = ["--method", options.method, "--pattern", pattern]
    if pattern == "unstructured":
        arguments += ["--sparsity", sparsity]
    arguments += ["--samples", options.samples, "--sequence-length", options.sequence_length, "--seed", 0]
    arguments += ["--device", DEVICE]
    if options.optimises and DEVICE == "cuda":
        arguments += ["--ro-compute", "float32"]
    if options.uses_gradient:
        arguments += ["--alpha", options.alpha]
    if options.optimises:
        arguments += ["--ro-samples", options.ro_samples, "--ro-rounds", options.ro_rounds]
        arguments += ["--ro-learning-rate", options.ro_learning_rate, "--ro-batch", options.ro_batch]
        if options.ro_batch > 1:
            arguments += ["--ro-lr-scaling", options.ro_lr_scaling]
    if options.hold_mask:
        arguments.append("--hold-mask")
    if options.input_norm != "sum":
        arguments += ["--input-norm", options.input_norm]
    return arguments


@dataclass(frozen=True)
class Case:
    """One run: a model, a method with its options, a pattern and a kind of token file."""

    model: ModelRequest
    method: str
    pattern: str
    sparsity: str = "0.5"
    tokens: Tuple[str, str] = ("tokens.npy", "int32")
    changes: Tuple[Tuple[str, object], ...] = ()

    @property
    def options(self) -> PruneOptions:
        # Rates that move 16-bit weights by more than their spacing, so that the steps can be seen in the output.
        rate = 1e-4 if self.model.dtype == "f32" else 3e-4
        base = PruneOptions(
            method=self.method,
            pattern=Pattern.parse(self.pattern, self.sparsity),
            samples=SAMPLES,
            sequence_length=SEQUENCE_LENGTH,
            ro_samples=4,
            ro_rounds=3,
            ro_learning_rate=rate,
        )
        return replace(base, **dict(self.changes))

    @property
    def name(self) -> str:
        pattern = self.pattern if self.pattern != "unstructured" else f"unstructured-{self.sparsity}"
        words = [self.method, pattern, self.model.family, self.model.dtype, *self.tokens[:1]]
        return " ".join(words + [f"{key}={value}" for key, value in self.changes])


def sharded(family: str, dtype: str = "f32", **changes: object) -> ModelRequest:
    """A model in three shards with a transformers 5 configuration."""
    return ModelRequest(family, dtype, shards=3, config_style=5, **changes)


HDF5 = ("tokens.h5", "int32")
CASES = [
    Case(ModelRequest("llama1"), "magnitude", "2:4"),
    Case(ModelRequest("qwen2", "bf16"), "magnitude", "4:8", tokens=HDF5),
    Case(sharded("mistral", "f16"), "magnitude", "3:8"),
    Case(ModelRequest("llama3", "bf16"), "magnitude", "unstructured", "0.7"),
    Case(sharded("llama2"), "wanda", "2:4", tokens=("tokens.npy", "int64")),
    Case(ModelRequest("qwen3", "bf16"), "wanda", "4:8", tokens=("tokens.npy", "uint16")),
    Case(ModelRequest("llama-dead"), "wanda", "3:8"),
    Case(sharded("llama-yarn", "f16"), "wanda", "unstructured", "0.5"),
    Case(ModelRequest("llama-linear"), "wanda", "unstructured", "0.7", tokens=("tokens.h5", "int64")),
    Case(ModelRequest("llama3", blocks=3), "wanda", "1:4", changes=(("input_norm", "mean"),)),
    Case(ModelRequest("mistral"), "wanda", "2:4", tokens=("flat.npy", "uint32")),
    Case(ModelRequest("llama1"), "sparsegpt", "2:4"),
    Case(sharded("llama-bias", "bf16"), "sparsegpt", "4:8"),
    Case(ModelRequest("qwen3"), "sparsegpt", "3:8"),
    Case(ModelRequest("llama2", "f16"), "sparsegpt", "5:12"),
    Case(ModelRequest("llama-dead"), "sparsegpt", "unstructured", "0.5"),
    Case(ModelRequest("qwen2"), "sparsegpt", "unstructured", "0.7"),
    Case(ModelRequest("mistral"), "rgs", "2:4"),
    Case(ModelRequest("llama-bias", "f16"), "rgs", "4:8"),
    Case(sharded("qwen2", "bf16", tied=False), "rgs", "3:8", changes=(("input_norm", "mean"),)),
    Case(ModelRequest("llama-yarn"), "rgs", "unstructured", "0.5", changes=(("alpha", 7.5),)),
    Case(ModelRequest("qwen3", "bf16"), "rgs", "unstructured", "0.7"),
    Case(ModelRequest("llama1"), "ro", "2:4"),
    Case(ModelRequest("llama3", "bf16"), "ro", "4:8"),
    Case(ModelRequest("llama-bias"), "ro", "3:8", changes=(("hold_mask", True),)),
    Case(sharded("llama2", "f16"), "ro", "unstructured", "0.5"),
    Case(ModelRequest("qwen3"), "ro", "unstructured", "0.7", changes=(("ro_batch", 2), ("ro_lr_scaling", "linear"))),
    Case(ModelRequest("llama2"), "wanda++", "2:4"),
    Case(ModelRequest("llama3"), "wanda++", "2:4", changes=(("samples", 7), ("sequence_length", 29))),
    Case(sharded("qwen2"), "wanda++", "4:8", changes=(("ro_batch", 3),)),
    Case(ModelRequest("qwen3", "bf16"), "wanda++", "3:8", changes=(("hold_mask", True),)),
    Case(ModelRequest("mistral", "f16"), "wanda++", "unstructured", "0.5"),
    Case(ModelRequest("llama-dead"), "wanda++", "unstructured", "0.7"),
    Case(ModelRequest("llama-linear", "bf16"), "wanda++", "2:4", changes=(("input_norm", "mean"),)),
    Case(ModelRequest("llama3"), "wanda++", "4:8", changes=(("ro_samples", 8), ("ro_rounds", 2))),
    Case(ModelRequest("llama-yarn"), "wanda++", "1:4", changes=(("ro_batch", 4), ("ro_lr_scaling", "none"))),
    # Families that store, norm or rotate in their own ways: every part of every method that walks the table of tensors.
    Case(ModelRequest("phi3"), "wanda++", "2:4", changes=(("ro_batch", 2),)),
    Case(sharded("phi3", "bf16"), "sparsegpt", "2:4"),
    Case(ModelRequest("phi3-mini"), "rgs", "4:8"),
    Case(ModelRequest("phi3-mini"), "wanda", "2:4", changes=(("samples", 3), ("sequence_length", 24))),
    Case(ModelRequest("olmo2"), "wanda++", "2:4"),
    Case(ModelRequest("olmo2", "bf16"), "sparsegpt", "unstructured", "0.5"),
    Case(sharded("olmo2"), "rgs", "unstructured", "0.6"),
    Case(ModelRequest("smollm3", blocks=3), "wanda++", "4:8"),
    Case(ModelRequest("smollm3"), "sparsegpt", "4:8"),
    Case(sharded("mistral3"), "wanda++", "2:4"),
    Case(ModelRequest("mistral3", "bf16"), "wanda", "2:4"),
    # Compositions that were not published.
    Case(ModelRequest("llama3"), "magnitude+sparsegpt", "4:8"),
    Case(sharded("qwen2", "bf16"), "wanda+sparsegpt", "2:4"),
    Case(ModelRequest("llama-dead"), "rgs+sparsegpt", "unstructured", "0.6"),
    Case(ModelRequest("qwen3"), "magnitude+ro", "2:4"),
    Case(ModelRequest("llama2"), "sparsegpt+ro", "2:4"),
    Case(ModelRequest("mistral"), "wanda+sparsegpt+ro", "4:8", changes=(("ro_batch", 2),)),
    Case(ModelRequest("llama-bias"), "rgs+sparsegpt+ro", "2:4"),
]

# Beside the chosen cases every method and pattern on every family, in float32.
FAMILIES = ("llama1", "llama2", "llama3", "llama-bias", "mistral", "qwen2", "qwen3")
METHODS = ("magnitude", "wanda", "sparsegpt", "rgs", "ro", "wanda++")
PATTERNS = (("2:4", "0.5"), ("4:8", "0.5"), ("unstructured", "0.6"))
PRODUCT = [
    Case(ModelRequest(family), method, pattern, sparsity)
    for family in FAMILIES
    for method in METHODS
    for pattern, sparsity in PATTERNS
]


def run_case(espalier: Path, folder: Path, case: Case, *extra: object) -> Tuple[Path, Path, Path]:
    """Makes model and tokens and prunes; returns model folder, run folder and token file."""
    model = make_model(folder / "model", case.model)
    name, dtype = case.tokens
    ids = random_tokens(FILE_ROWS, FILE_LENGTH)
    tokens = write_tokens(folder / name, ids.flatten() if name.startswith("flat") else ids, dtype)
    arguments = prune_arguments(case.options, case.pattern, case.sparsity)
    run = folder / "run"
    run_program(espalier, "prune", "--model", model, "--calibration", tokens, "--output", run, *arguments, *extra)
    return model, run, tokens


def demand_agreement(comparison: Comparison) -> None:
    print(comparison.summary())
    assert not comparison.problems, "\n".join([*comparison.problems, comparison.summary()])


@pytest.mark.parametrize("case", [*CASES, *(case for case in PRODUCT if case not in CASES)], ids=lambda case: case.name)
def test_prune(espalier: Path, tmp_path: Path, case: Case) -> None:
    model, run, tokens = run_case(espalier, tmp_path, case)
    demand_agreement(compare_run(model, run, tokens, case.options))


def test_one_step_of_regional_optimisation(espalier: Path, tmp_path: Path) -> None:
    """N = M = K = 1: weights that survive both prunes are dense minus ten learning rates along the gradient's sign."""
    changes = (("samples", 1), ("ro_samples", 1), ("ro_rounds", 1))
    case = Case(ModelRequest("llama2", blocks=1), "ro", "2:4", changes=changes)
    model_folder, run_folder, tokens_path = run_case(espalier, tmp_path, case, "--shards", 1)
    demand_agreement(compare_run(model_folder, run_folder, tokens_path, case.options))

    config, model, run = read_config(model_folder), read_model_folder(model_folder), read_run_folder(run_folder)
    assert read_draws(run_folder) == {0: [[0]]}
    sample = embed(model, calibration_samples(read_tokens(tokens_path), 1, SEQUENCE_LENGTH))
    dense = model.block(0)
    first = prune_by_score(case.options, config, dense, sample, {})
    target = block_forward(config, dense, sample)
    gradients = output_loss_gradients(config, masked(dense, first), sample, target)
    rate = case.options.ro_learning_rate
    for module in PRUNED_MODULES:
        survives = first.selections[module].mask & run.mask(0, module)
        gradient = gradients[module][survives]
        moved = (run.block(0)[f"{module}.weight"] - dense[f"{module}.weight"])[survives]
        # v = 0.01 g^2, so the step is rate * g / (0.1 |g| + 1e-8); float32 may turn the sign of the tiniest gradients.
        step = -rate * gradient / (0.1 * gradient.abs() + 1e-8)
        clear = gradient.abs() > 1e-4 * gradient.square().mean().sqrt()
        assert float(clear.double().mean()) > 0.99
        assert torch.allclose(moved[clear], step[clear], rtol=1e-4, atol=3e-8)


def evaluate(espalier: Path, model: Path, tokens: Path, length: int, report: Path) -> Dict[str, float]:
    """The program's own perplexity report."""
    run_program(
        espalier, "evaluate", "--model", model, "--tokens", tokens, "--sequence-length", length, "--json", report,
        "--device", DEVICE,
    )  # fmt: skip
    return json.loads(report.read_text())


@pytest.mark.parametrize(
    "family",
    ["llama1", "llama3", "llama-bias", "llama-yarn", "qwen2", "qwen3", "phi3-mini", "olmo2", "smollm3", "mistral3"],
)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_perplexity(espalier: Path, tmp_path: Path, family: str, dtype: str) -> None:
    """Dense folder and pruned run folder; 37 tokens a window leave a tail to drop."""
    case = Case(ModelRequest(family, dtype), "wanda", "2:4")
    model_folder, run_folder, _ = run_case(espalier, tmp_path, case)
    text = write_tokens(tmp_path / "text.npy", random_tokens(5, 50, seed=9))
    config = read_config(model_folder)
    models = {model_folder: read_model_folder(model_folder), run_folder: read_run_folder(run_folder)}
    values = []
    for folder, model in models.items():
        report = evaluate(espalier, folder, text, 37, tmp_path / "report.json")
        expected, windows = perplexity(config, model, torch.from_numpy(read_tokens(text)), 37)
        assert report["perplexity"] == pytest.approx(expected, rel=1e-6)
        assert (report["sequence_length"], report["windows"]) == (37, windows)
        values.append(expected)
    assert abs(values[0] / values[1] - 1.0) > 1e-3


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "wanda++"])
def test_planted_errors_are_found(espalier: Path, tmp_path: Path, method: str) -> None:
    """The comparison itself: a flipped mask bit, a shifted weight and a changed norm each must not pass."""
    case = Case(ModelRequest("llama1"), method, "2:4")
    model, run, tokens = run_case(espalier, tmp_path, case)
    demand_agreement(compare_run(model, run, tokens, case.options))
    plants = {
        "model/layers/1/mlp/up_proj/mask": 1,
        "model/layers/0/mlp/down_proj/weight": 0.02,
        "model/layers/1/input_layernorm/weight": 0.01,
    }
    for location, change in plants.items():
        spoiled = tmp_path / "spoiled"
        shutil.copytree(run, spoiled)
        with h5py.File(spoiled / "blocks" / f"0000{location.split('/')[2]}.h5", "r+") as file:
            values = file[location][()]
            index = tuple(int(positions[0]) for positions in values.nonzero())
            values[index] = values[index] ^ change if location.endswith("mask") else values[index] + change
            file[location][...] = values
        assert compare_run(model, spoiled, tokens, case.options).problems, location
        shutil.rmtree(spoiled)
