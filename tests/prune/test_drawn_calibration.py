"""Calibration with tokens that the model draws: kept, the same on any number of ranks, and not drawn twice.

The program is $ESPALIER, by default build/release/espalier.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import List

import h5py
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "oracle"))
from random_model import ModelRequest, make_model  # noqa: E402

PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# Two samples a pass, so that the ranks share a step of seven.
PRUNE = ["prune", "--model=model", "--calibration=self:12x100", "--method=reconstruct", "--epochs=2", "--batch=7"]


def launch(words: List[str], ranks: int = 1) -> List[str]:
    return [*([str(shutil.which("mpirun")), "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []), str(PROGRAM), *words]


def run(folder: Path, *words: str, ranks: int = 1, status: int = 0) -> str:
    done = subprocess.run(launch(list(words), ranks), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stderr


def digest(run_folder: Path) -> str:
    files = [*sorted(run_folder.glob("blocks/*.h5")), run_folder / "calibration.h5"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@pytest.fixture(name="folder")
def folder_with_a_model(tmp_path: Path) -> Path:
    make_model(tmp_path / "model", ModelRequest("llama3", blocks=4))
    return tmp_path


def test_tokens_are_kept_and_named(folder: Path) -> None:
    assert "drew 12 samples of 100 tokens" in run(folder, *PRUNE, "--output=one")
    with h5py.File(folder / "one" / "calibration.h5") as file:
        assert file["input_ids"].shape == (12, 100)
        drawn = json.loads(file["input_ids"].attrs["drawn"])
    assert drawn["temperature"] == "1" and drawn["samples"] == "12"
    manifest = json.loads((folder / "one" / "manifest.json").read_text())
    assert manifest["calibration"]["path"] == "self:12x100"
    assert "calibration.h5" in [entry["file"] for entry in manifest["outer_files"]]
    run(folder, "inspect", "one", "--model=model")
    again = run(folder, *PRUNE, "--output=one")
    assert "nothing to do" in again and "drew" not in again
    for ranks in (2, 3):
        run(folder, *PRUNE, f"--output=on-{ranks}", ranks=ranks)
        assert digest(folder / f"on-{ranks}") == digest(folder / "one")
    refused = run(folder, *PRUNE, "--output=one", "--seed=1", status=2)
    assert "seed: the run has 0" in refused and "drew" not in refused
    own = [word.replace("self:12x100", "one/calibration.h5") for word in PRUNE]
    assert "copy it to another place" in run(folder, *own, "--output=one", "--fresh", status=2)
    assert (folder / "one" / "calibration.h5").exists()
    (folder / "one" / "calibration.h5").write_bytes(b"damaged")
    run(folder, "inspect", "one", status=2)


def test_a_run_goes_on_with_the_tokens_it_began_with(folder: Path) -> None:
    run(folder, *PRUNE, "--output=expected")
    command = launch([*PRUNE, "--output=killed"])
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not (folder / "killed" / "blocks" / "00000.h5").exists():
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert "drew" not in run(folder, *PRUNE, "--output=killed", ranks=2)
    assert digest(folder / "killed") == digest(folder / "expected")


def test_a_signal_while_tokens_are_drawn(folder: Path) -> None:
    """Nothing is kept, and it is said; the same command begins again."""
    command = launch(["prune", "--model=model", "--calibration=self:96x200", "--method=wanda", "--output=run"])
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not (folder / "run" / "blocks").exists():
            time.sleep(0.002)
        time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    assert "while tokens were drawn" in said and not (folder / "run" / "manifest.json").exists()
    run(folder, "prune", "--model=model", "--calibration=self:4x8", "--method=wanda", "--output=run")


def test_fine_tuning_draws_from_the_teacher(folder: Path) -> None:
    run(folder, "prune", "--model=model", "--calibration=self:4x8", "--method=wanda", "--output=pruned")
    tune = ["finetune", "--model=pruned", "--data=self:12x16", "--train=lora", "--rank=4", "--steps=2", "--batch=4"]
    said = run(folder, *tune, "--loss=kl", "--teacher=model", "--output=tuned")
    assert "from model" in said and "from pruned" not in said.split("drew")[1].splitlines()[0]
    said = run(folder, "export", "--run=tuned", "--output=exported", "--merge-masked")
    assert "held-out samples" in said
    run(folder, "inspect", "tuned")
