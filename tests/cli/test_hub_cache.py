"""A model's folder in the Hugging Face cache, wherever a model folder is named.

The program is $ESPALIER, by default build/release/espalier.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Sequence

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "oracle"))

from random_model import ModelRequest, make_model, random_tokens, write_tokens  # noqa: E402

PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
OLD, NEW, NEWER = "0a1b2c", "3d4e5f", "6a7b8c"


def run(folder: Path, arguments: Sequence[object], status: int = 0) -> str:
    """What the program says on stderr."""
    command = [str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
                          text=True, timeout=60)  # fmt: skip
    assert done.returncode == status, done.stderr
    return done.stderr


def add_snapshot(cache: Path, commit: str, seed: int) -> None:
    """A snapshot as the hub's client stores it: links to blobs."""
    make_model(cache / "blobs" / commit, ModelRequest("llama1", seed=seed))
    (cache / "snapshots" / commit).mkdir(parents=True)
    for file in (cache / "blobs" / commit).iterdir():
        (cache / "snapshots" / commit / file.name).symlink_to(f"../../blobs/{commit}/{file.name}")
    (cache / "refs").mkdir(exist_ok=True)
    (cache / "refs/main").write_text(commit)


@pytest.fixture(scope="module", name="folder")
def pruned_from_the_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    add_snapshot(folder / "models--org--name", OLD, 1)
    write_tokens(folder / "tokens.npy", random_tokens(8, 32, 256))
    run(folder, PRUNE)
    return folder


CACHE = "--model=models--org--name"
PRUNE = ["prune", CACHE, "--calibration=tokens.npy", "--output=run", "--method=magnitude"]
FINETUNE = ["finetune", "--model=run", "--data=tokens.npy", "--output=tuned", "--loss=kl", "--steps=1", "--batch=4",
            "--held-out=2", "--teacher=models--org--name"]  # fmt: skip
COMMANDS = {
    "prune": ["prune", CACHE, "--calibration=tokens.npy", "--output=other", "--method=magnitude"],
    "evaluate": ["evaluate", CACHE, "--tokens=tokens.npy", "--sequence-length=32"],
    "inspect": ["inspect", "models--org--name"],
    "inspect a run": ["inspect", "run", CACHE],
    "export": ["export", "--run=run", "--output=exported", CACHE],
    "plan": ["plan", CACHE, "--ranks=2"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_snapshot_of_refs_main_is_used_and_said(folder: Path, name: str) -> None:
    notes = [line for line in run(folder, COMMANDS[name]).splitlines() if line.startswith("note: ")]
    notes = [note for note in notes if "Hugging Face cache" in note]
    assert len(notes) == 1 and OLD in notes[0] and "refs/main" in notes[0], notes


def test_a_run_remembers_its_snapshot(folder: Path) -> None:
    """So it is resumed and exported after the cache has a newer one."""
    snapshot = folder / "models--org--name/snapshots"
    manifest = json.loads((folder / "run/manifest.json").read_text())
    assert manifest["model"]["path"] == str(snapshot / OLD)
    assert "complete; nothing to do" in run(folder, PRUNE)
    try:
        add_snapshot(folder / "models--org--name", NEW, 2)
        sentence = run(folder, PRUNE, status=2).splitlines()[-1]
        assert sentence.startswith("espalier: ") and f"--model {snapshot / OLD}" in sentence and NEW in sentence
        same = ["prune", f"--model={snapshot / OLD}", *PRUNE[2:]]
        assert "complete; nothing to do" in run(folder, same)
        run(folder, ["export", "--run=run", "--output=exported-later"])
    finally:
        (folder / "models--org--name/refs/main").write_text(OLD)


def test_a_fine_tuning_run_remembers_its_teachers_snapshot(folder: Path) -> None:
    run(folder, FINETUNE)
    try:
        add_snapshot(folder / "models--org--name", NEWER, 3)
        sentence = run(folder, FINETUNE, status=2).splitlines()[-1]
        old = folder / "models--org--name/snapshots" / OLD
        assert sentence.startswith("espalier: ") and f"--teacher {old}" in sentence and NEWER in sentence
        assert "is complete; nothing to do" in run(folder, [*FINETUNE[:-1], f"--teacher={old}"])
    finally:
        (folder / "models--org--name/refs/main").write_text(OLD)


def test_an_unfinished_download_is_refused(folder: Path) -> None:
    reference = folder / "models--org--name/refs/main"
    try:
        reference.write_text("ffffff")
        assert "ffffff" in run(folder, COMMANDS["evaluate"], status=2)
        reference.unlink()
        assert "no refs/main" in run(folder, COMMANDS["evaluate"], status=2)
    finally:
        reference.write_text(OLD)
