"""prune with a last stage that trains the whole model, on text that the model has gone on from: what --preset best is made of.

The program is $ESPALIER, by default build/release/espalier.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import List

import h5py
import numpy
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "oracle"))
from random_model import ModelRequest, make_model, random_tokens, write_tokens  # noqa: E402

PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SAMPLES, TOKENS, VOCABULARY = 6, 32, 256
BEST = ["prune", "--model=model", "--calibration=tokens.npy", "--preset=best"]


def launch(words: List[str], ranks: int = 1) -> List[str]:
    return [*([str(shutil.which("mpirun")), "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []), str(PROGRAM), *words]


def run(folder: Path, *words: str, ranks: int = 1, status: int = 0) -> str:
    done = subprocess.run(launch(list(words), ranks), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def digest(run_folder: Path) -> str:
    """Of what was pruned, what was trained, and the tokens of both."""
    files = [*sorted(run_folder.rglob("blocks/*.h5")), *sorted(run_folder.rglob("calibration.h5"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@pytest.fixture(name="folder")
def folder_with_a_model(tmp_path: Path) -> Path:
    make_model(tmp_path / "model", ModelRequest("llama3", blocks=4))
    write_tokens(tmp_path / "tokens.npy", random_tokens(SAMPLES, TOKENS, VOCABULARY))
    return tmp_path


def test_one_command_prunes_and_trains(folder: Path) -> None:
    said = run(folder, *BEST, "--output=one")
    assert "drew 18 samples" in said and "drew 42 samples" in said and "written to one" in said and "written to one/pruned" not in said
    manifest = json.loads((folder / "one" / "manifest.json").read_text())
    assert manifest["base"]["path"] == "pruned" and manifest["options"]["train"] == "masked"
    pruned = json.loads((folder / "one" / "pruned" / "metrics.json").read_text())
    assert pruned["options"]["epochs"] == {"value": "2", "origin": "preset best"}
    metrics = json.loads((folder / "one" / "metrics.json").read_text())
    assert metrics["pruning"]["total_seconds"] == pruned["total_seconds"]
    # Ranks, and another place: the same bits, and a model that is whole.
    for ranks in (2, 3):
        run(folder, *BEST, f"--output=on-{ranks}", ranks=ranks)
        assert digest(folder / f"on-{ranks}") == digest(folder / "one")
    perplexity = run(folder, "evaluate", "--model=one", "--tokens=tokens.npy")
    (folder / "elsewhere").mkdir()
    (folder / "one").rename(folder / "elsewhere" / "moved")
    assert "all holds" in run(folder, "inspect", "elsewhere/moved", "--model=model")
    assert run(folder, "evaluate", "--model=elsewhere/moved", "--tokens=tokens.npy") == perplexity
    assert "nothing to do" in run(folder, *BEST, "--output=elsewhere/moved")
    run(folder, "export", "--run=elsewhere/moved", "--output=exported")


def test_continuations_go_on_from_the_samples(folder: Path) -> None:
    run(folder, "prune", "--model=model", "--calibration=tokens.npy", "--method=wanda", "--output=pruned")
    tune = ["finetune", "--model=pruned", "--data=tokens.npy", "--steps=1", "--rank=4", "--samples=5", "--output=run",
            "--loss=kl", "--teacher=model"]  # fmt: skip
    run(folder, *tune, "--continuations=2")
    given = numpy.load(folder / "tokens.npy")[:5]
    with h5py.File(folder / "run" / "calibration.h5") as file:
        ids = file["input_ids"][:]
    assert ids.shape == (15, TOKENS) and (ids[:5] == given).all()
    piece = TOKENS // 4
    assert (ids[5:10, :piece] == given[:, :piece]).all(), "the first piece of each"
    assert (ids[10:, :piece] == given[:, -piece:]).all(), "the last piece of each"
    assert (ids[5:10, piece:] != given[:, piece:]).any()
    # The same from prune, which may train with them and with more at its end.
    prune = ["prune", "--model=model", "--calibration=tokens.npy", "--samples=5", "--method=wanda"]
    run(folder, *prune, "--continuations=2", "--output=more")
    with h5py.File(folder / "more" / "calibration.h5") as file:
        assert (file["input_ids"][:10] == ids[:10]).all() and file["input_ids"].shape == ids.shape
    run(folder, *prune, "--continuations=2", "--finetune-epochs=1", "--finetune-continuations=1", "--output=both")
    with h5py.File(folder / "both" / "calibration.h5") as file:
        both = file["input_ids"][:]
    assert (both[:5] == given).all() and (both[5:, :piece] == given[:, :piece]).all() and both.shape == (10, TOKENS)
    assert not {row.tobytes() for row in both[5:]} & {row.tobytes() for row in ids}, "text is drawn twice"
    again = run(folder, *tune, "--continuations=2")
    assert "nothing to do" in again and "drew" not in again
    assert "samples: the run has 15" in run(folder, *tune, "--continuations=1", status=2)


@pytest.mark.parametrize("stage", ["pruned/blocks/00001.h5", "checkpoint"])
def test_a_run_that_was_killed_goes_on(folder: Path, stage: str) -> None:
    """In the first stage, and while the second draws or trains."""
    run(folder, *BEST, "--output=expected")
    with subprocess.Popen(launch([*BEST, "--output=killed"]), cwd=folder, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        awaited = folder / "killed" / (stage if stage != "checkpoint" else "manifest.json")
        while time.monotonic() < deadline and not awaited.exists():
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    if stage != "checkpoint":
        assert "is not finished" in run(folder, "evaluate", "--model=killed", "--tokens=tokens.npy", status=2)
    run(folder, *BEST, "--output=killed", ranks=2)
    assert digest(folder / "killed") == digest(folder / "expected")


def test_runs_with_and_without_the_stage_do_not_mix(folder: Path) -> None:
    fast = ["prune", "--model=model", "--calibration=tokens.npy", "--preset=fast"]
    run(folder, *fast, "--output=fast")
    assert "without --finetune-epochs" in run(folder, *BEST, "--output=fast", status=2)
    run(folder, *BEST, "--output=best", "--finetune-epochs=2")
    assert "with --finetune-epochs" in run(folder, *fast, "--output=best", status=2)
    assert "with --finetune-epochs" in run(folder, *fast, "--output=best", "--fresh", status=2)
    assert "with --finetune-epochs" in run(folder, "finetune", "--model=fast", "--data=tokens.npy", "--output=best", status=2)
    assert "steps" in run(folder, *BEST, "--output=best", status=2)
    run(folder, *BEST, "--output=best", "--fresh")
    run(folder, *BEST, "--output=fast", "--fresh")
    assert digest(folder / "best") == digest(folder / "fast")
    # Until the whole model is trained anew there is none.
    with subprocess.Popen(launch([*BEST, "--output=best", "--fresh"]), cwd=folder, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and (folder / "best" / "manifest.json").exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    run(folder, "evaluate", "--model=best", "--tokens=tokens.npy", status=2)
    run(folder, *BEST, "--output=best", "--fresh")
    assert digest(folder / "best") == digest(folder / "fast")


def test_what_was_meant_for_prune_stays_with_it(folder: Path) -> None:
    """Neither the environment nor a file of options changes the last stage by names that both commands have."""
    run(folder, *BEST, "--output=expected", "--warm-up=0.2")
    (folder / "options").write_text("warm-up = 0.2\nfinetune-epochs = 1\n")
    own = {"ESPALIER_STEPS": "5", "ESPALIER_WEIGHT_DECAY": "0.5", "ESPALIER_CONFIG": "options"}
    done = subprocess.run(launch([*BEST, "--output=run"]), cwd=folder, env={**ENVIRONMENT, **own}, capture_output=True, text=True,
                          timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert digest(folder / "run") == digest(folder / "expected")


def test_a_trained_model_can_be_merged_and_says_what_it_says(folder: Path) -> None:
    """What reads a run's data or tokenizer finds it, with text that the model has added and after a move."""
    run(folder, "prune", "--model=model", "--calibration=tokens.npy", "--method=wanda", "--output=pruned")
    run(folder, "finetune", "--model=pruned", "--data=tokens.npy", "--continuations=1", "--train=lora", "--rank=4",
        "--steps=1", "--output=tuned")  # fmt: skip
    assert "held-out samples" in run(folder, "export", "--run=tuned", "--output=exported", "--merge-masked")
    run(folder, *BEST, "--output=best", "--output-dtype=bfloat16")
    manifest = json.loads((folder / "best" / "manifest.json").read_text())
    assert manifest["options"]["output_dtype"] == "bfloat16"
    run(folder, "export", "--run=best", "--output=whole")


def test_best_without_a_corpus(folder: Path) -> None:
    """Drawn once for both stages, on any number of ranks; the same command again has nothing to do."""
    words = ["prune", "--model=model", "--calibration=self:6x32", "--preset=best"]
    said = run(folder, *words, "--output=one")
    assert "drew 24 samples of 32 tokens from model in" in said and "drew 42 samples" in said
    assert "from self:6x32, 18 more than that" in said
    run(folder, *words, "--output=two", ranks=2)
    assert digest(folder / "one") == digest(folder / "two")
    again = run(folder, *words, "--output=one")
    assert "nothing to do" in again and "drew" not in again
    tune = ["finetune", "--model=one/pruned", "--data=self:4x8", "--steps=1", "--rank=4", "--output=tuned", "--continuations=2"]
    assert "12 samples of 8 tokens from self:4x8, 8 more than that" in run(folder, *tune)
    assert "nothing to do" in run(folder, *tune)


def test_presets_are_the_options_they_name(folder: Path) -> None:
    tokens = "--calibration=self:4x16"
    run(folder, "prune", "--model=model", tokens, "--preset=fast", "--output=fast")
    run(folder, "prune", "--model=model", tokens, "--method=sparsegpt", "--output=sparsegpt")
    assert digest(folder / "fast") == digest(folder / "sparsegpt")
    run(folder, "prune", "--model=model", tokens, "--preset=paper", "--output=paper")
    run(folder, "prune", "--model=model", tokens, "--output=default")
    assert digest(folder / "paper") == digest(folder / "default")
    # What is given counts more than the preset, which draws more of the model's own tokens where they are few.
    run(folder, "prune", "--model=model", tokens, "--preset=best", "--finetune-epochs=0", "--method=wanda", "--output=own")
    run(folder, "prune", "--model=model", "--calibration=self:16x16", "--method=wanda", "--output=wanda")
    assert digest(folder / "own") == digest(folder / "wanda")
    plan = json.loads(run(folder, "plan", "--model=model", tokens, "--preset=best", "--gpu=h100", "--json"))
    assert plan["finetune"]["ranks"] == 1 and plan["finetune"]["run_seconds"] > 0


@pytest.mark.parametrize("tokens, trained", [
    ("self:16x64", 16 * 8), ("self:64x64", 64 * 6), ("self:256x128", 256 * 2), ("self:128x2048", 128 * 2)])  # fmt: skip
def test_the_fewer_tokens_there_are_the_more_best_adds(tmp_path: Path, tokens: str, trained: int) -> None:
    said = run(tmp_path, "plan", "--model=synthetic:llama-2-7b", f"--calibration={tokens}", "--preset=best", "--gpu=h100")
    batch = max(4, 512 // int(tokens.split("x")[1]))
    steps = math.ceil(3 * (trained - min(trained // 8, 32)) / batch)
    assert f"{steps} steps of" in said
