"""plan --finetune against what a run really takes, and for models that no test can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List

import pytest

from finetune_program import TRAININGS, World, run

LARGE = ["--model=synthetic:llama-2-70b", "--samples=64", "--sequence-length=2048", "--gpu=h100"]


def plan(*words: str, status: int = 0) -> Dict:
    done = run(["plan", "--finetune", "--json", *words], status=status)
    return json.loads(done.stdout) if status == 0 else {"sentence": done.stderr}


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("ranks, weights", [(1, "auto"), (1, "shared"), (2, "resident"), (2, "auto")])
def test_memory_is_what_a_run_takes(world: World, tmp_path: Path, training: str, ranks: int, weights: str) -> None:
    """To the byte: the plan lets the run's own code take a step."""
    words: List[str] = world.finetune(training, tmp_path / "run", f"--weights={weights}", steps=2)
    run(words, ranks)
    measured = json.loads((tmp_path / "run" / "metrics.json").read_text())
    planned = plan(*words[1:], "--gpu=cpu", f"--ranks={ranks}")
    assert planned["memory_bytes"] == measured["peak_bytes"]
    assert planned["trained_values"] == measured["trained_values"]
    # What is trained of whole matrices lies in a file, and so do the weights that are read.
    whole = training == "masked"
    assert planned["weights"] == weights.replace("auto", "shared" if whole else "resident")
    assert planned["optimizer_state"] == ("file" if whole else "device")


def test_70b_fits_eight_gpus_of_80_gb() -> None:
    seen = plan(*LARGE, "--ranks=8", "--batch=8", "--loss=kl")
    assert seen["weights"] == "shared" and seen["memory_bytes"] < 72 << 30 and seen["hidden_states"] == "device"
    assert 1 < seen["step_seconds"] < 20 and seen["run_seconds"] > 7 * seen["step_seconds"]
    masked = [*LARGE, "--ranks=8", "--batch=8", "--train=masked"]
    refused = plan(*masked, "--optimizer-state=device", status=3)["sentence"]
    assert "optimiser's moments" in refused and "use more ranks" in refused
    # 16 bytes a weight, a rank's eighth of them, and gradients that wait for their norm.
    seen = plan(*masked)
    assert seen["optimizer_state"] == "host" and seen["memory_bytes"] < 72 << 30 and seen["host_bytes"] > 160 << 30
    assert plan(*masked, "--gradient-norm=0")["host_bytes"] < seen["host_bytes"]
    assert "for CPUs" in plan(*masked, "--optimizer-state=file", status=2)["sentence"]


def test_a_small_gpu_gives_up_speed_before_it_gives_up() -> None:
    words = ["--model=synthetic:llama-2-7b", "--samples=32", "--sequence-length=2048"]
    sizes = {memory: plan(*words, f"--gpu-memory={memory}") for memory in ("60GiB", "20GiB")}
    assert [seen["hidden_states"] for seen in sizes.values()] == ["device", "host"]
    assert sizes["60GiB"]["step_seconds"] <= sizes["20GiB"]["step_seconds"]
    assert "--batch" in plan(*words, "--gpu-memory=8GiB", status=3)["sentence"]
