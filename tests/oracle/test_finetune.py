"""`espalier finetune` against PyTorch in float64: losses, norms of gradients, every gradient, trained values."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

import h5py
import numpy
import pytest
import torch

from checkpoint import Model, read_config, read_model_folder, read_run_folder, read_tokens
from decoder import block_forward, embed, logits
from espalier_program import DEVICE, espalier, run_program
from finetuning import MATRICES, FinetuneOptions, Student, read_trained, train
from random_model import ModelRequest, make_model, random_tokens

SAMPLES, TOKENS = 9, 40  # two passes of up to 6 samples


class Models(NamedTuple):
    dense: Path
    pruned: Path
    tokens: Path


def prepare(espalier: Path, folder: Path, family: str) -> Models:
    """A dense and a pruned model, and tokens."""
    models = Models(folder / "dense", folder / "pruned", folder / "tokens.npy")
    make_model(models.dense, ModelRequest(family, blocks=2))
    numpy.save(models.tokens, random_tokens(SAMPLES, TOKENS).astype(numpy.int32))
    run_program(espalier, "prune", "--model", models.dense, "--calibration", models.tokens, "--output", models.pruned,
                "--method", "wanda", "--device", DEVICE)  # fmt: skip
    return models


def teacher_logits(models: Models, tokens: torch.Tensor) -> torch.Tensor:
    config, model = read_config(models.dense), read_model_folder(models.dense)
    with torch.no_grad():
        x = embed(model, tokens)
        for index in range(config.block_count):
            x = block_forward(config.of_block(index), model.block(index), x)
        return logits(config, model, x)


def words(models: Models, output: Path, options: FinetuneOptions) -> List[object]:
    """The command that does what the oracle does."""
    asked: List[object] = ["finetune", "--model", models.pruned, "--data", models.tokens, "--output", output,
                           "--train", options.train, "--loss", options.loss, "--rank", options.rank,
                           "--alpha", options.alpha, "--learning-rate", options.learning_rate, "--steps", options.steps,
                           "--gradient-norm", options.gradient_norm, "--weight-decay", options.weight_decay,
                           "--seed", options.seed, "--batch", SAMPLES, "--held-out", 0, "--device", DEVICE]  # fmt: skip
    if options.loss != "lm":
        asked += ["--teacher", models.dense]
    if options.dropout:
        asked += ["--dropout", options.dropout]
    if options.train_norms:
        asked.append("--train-norms")
    if len(options.targets) < 7:
        asked += ["--targets", ",".join(module.rpartition(".")[2] for module in options.targets)]
    return asked


CASES = {
    "llama3": FinetuneOptions("masked-lora", "mix", 3e-2, 4, train_norms=True),
    "qwen3": FinetuneOptions("lora", "kl", 3e-2, 4, train_norms=True, gradient_norm=0.01, seed=1 << 40,
                             dropout=0.25),
    "olmo2": FinetuneOptions("masked", "lm", 1e-2, 4, train_norms=True, weight_decay=0.1),
    "phi3": FinetuneOptions("masked-lora", "lm", 3e-2, 4, targets=("self_attn.q_proj", "mlp.down_proj"), dropout=0.3),
    "llama-bias": FinetuneOptions("masked", "kl", 1e-2, 4, gradient_norm=0),
}


@pytest.mark.parametrize("family", CASES)
def test_training_follows_pytorch(espalier: Path, tmp_path: Path, family: str) -> None:
    options, models = CASES[family], prepare(espalier, tmp_path, family)
    run_program(espalier, *words(models, tmp_path / "run", options))
    tokens = torch.from_numpy(read_tokens(models.tokens))
    teacher = teacher_logits(models, tokens) if options.loss != "lm" else None
    student = Student(read_config(models.dense), read_run_folder(models.pruned), options)
    started = {name: value.detach().clone() for name, value in student.trained.items()}
    expected = train(student, tokens, teacher)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    for found, (cross_entropy, divergence, norm) in zip(manifest["progress"]["steps"], expected.steps):
        assert found["language_model"] == pytest.approx(cross_entropy, rel=1e-5)
        assert found["divergence"] == pytest.approx(divergence, rel=1e-4, abs=1e-6)
        assert found["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    assert len(manifest["progress"]["steps"]) == options.steps
    trained = read_trained(tmp_path / "run")
    assert sorted(trained) == sorted(expected.trained)
    for name, value in expected.trained.items():
        # The first steps of AdamW go by the rate whatever the gradient's size: of one near zero rounding decides.
        moved, wanted = trained[name] - started[name], value - started[name]
        assert float((moved - wanted).norm() / wanted.norm()) < 2e-3, name
    if options.train != "lora":
        assert_zeros_are_kept(espalier, models, tmp_path)


def assert_zeros_are_kept(espalier: Path, models: Models, folder: Path) -> None:
    """In what the run is as a model, seen through a run that copies it."""
    run_program(espalier, "prune", "--model", folder / "run", "--calibration", models.tokens, "--output", folder / "copy",
                "--method", "magnitude", "--only-blocks", "1-1", "--device", DEVICE)  # fmt: skip
    before, after = read_run_folder(models.pruned), read_run_folder(folder / "copy")
    for module in ("self_attn.q_proj", "mlp.down_proj"):
        name = f"model.layers.0.{module}.weight"
        assert bool(((before.value(name) == 0) == (after.value(name) == 0)).all())
        assert bool((before.value(name) != after.value(name)).any())


def stop_after_some_steps(command: List[object], run: Path) -> Dict:
    """The manifest of a run that a signal has stopped."""
    with subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL) as process:
        events, deadline = run / "events.jsonl", time.monotonic() + 60
        while time.monotonic() < deadline and not (events.exists() and events.read_text().count('"step"') > 2):
            time.sleep(0.02)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 75
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["checkpoint"]["steps"] == len(manifest["progress"]["steps"]) > 2
    return manifest


@pytest.mark.parametrize("train_what", ["masked-lora", "lora", "masked"])
def test_every_gradient(espalier: Path, tmp_path: Path, train_what: str) -> None:
    """The first moments are a sum of the steps' gradients, element by element; the rate is small, so that rounding does
    not grow from step to step."""
    options = FinetuneOptions(train_what, "mix", 1e-3, 2000, train_norms=True, gradient_norm=0)
    models, run = prepare(espalier, tmp_path, "qwen3"), tmp_path / "run"
    manifest = stop_after_some_steps([espalier, *words(models, run, options), "--checkpoint-steps", 1000000], run)
    tokens = torch.from_numpy(read_tokens(models.tokens))
    student = Student(read_config(models.dense), read_run_folder(models.pruned), options)
    expected = train(student, tokens, teacher_logits(models, tokens), manifest["checkpoint"]["steps"])
    for entry in manifest["checkpoint"]["files"]:
        with h5py.File(run / entry["file"], "r") as file:
            moment = torch.from_numpy(file["first_moment"][()].astype(numpy.float64))
        prefix = f"model.layers.{entry['index']}." if entry["index"] < 2 else "model.norm."
        place = 0
        for name in in_file_order(expected.moments, prefix):
            wanted = expected.moments[name].flatten()
            found = moment[place : place + len(wanted)]
            place += len(wanted)
            assert float(wanted.abs().max()) > 0, name
            assert float((found - wanted).abs().max() / wanted.abs().max()) < 2e-3, name
        assert place == len(moment)


def in_file_order(tensors: Dict[str, torch.Tensor], prefix: str) -> List[str]:
    """Matrices in the program's order, A before B, then norms as the block's table has them."""
    modules = [f"{prefix}{module}{part}.weight" for module in MATRICES for part in ("", ".lora_A", ".lora_B")]
    norms = [f"{prefix}{norm}.weight" for norm in (
        "input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")]  # fmt: skip
    return [name for name in [*modules, *norms, f"{prefix}weight"] if name in tensors]
