"""`espalier generate` through the real program, alone and under mpirun: the same bytes, which prune takes.

The program is $ESPALIER, by default build/release/espalier.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List

import h5py
import numpy
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "oracle"))
from random_model import ModelRequest, make_model  # noqa: E402

PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run(folder: Path, *words: object, ranks: int = 1) -> str:
    start: List[str] = [str(shutil.which("mpirun")), "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    done = subprocess.run([*start, str(PROGRAM), *map(str, words)], cwd=folder, env=ENVIRONMENT, capture_output=True,
                          text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(name="folder")
def folder_with_a_model(tmp_path: Path) -> Path:
    make_model(tmp_path / "model", ModelRequest("llama3", blocks=4))
    return tmp_path


def drawn(folder: Path, *more: object, ranks: int = 1) -> numpy.ndarray:
    words = ["generate", "--model=model", "--output=own.h5", "--samples=11", "--sequence-length=20", "--batch=4"]
    run(folder, *words, *more, ranks=ranks)
    with h5py.File(folder / "own.h5") as file:
        return file["input_ids"][()]


def test_the_same_tokens_on_any_number_of_ranks(folder: Path) -> None:
    expected = drawn(folder, "--seed=3")
    content = (folder / "own.h5").read_bytes()
    assert expected.shape == (11, 20) and expected.dtype == numpy.int32 and len(numpy.unique(expected)) > 20
    for ranks, stages in [(2, 1), (3, 3), (4, 2), (4, 4), (5, 1)]:
        drawn(folder, "--seed=3", f"--stages={stages}", ranks=ranks)
        assert (folder / "own.h5").read_bytes() == content, f"{ranks} ranks, {stages} stages"
    assert (drawn(folder, "--seed=4") != expected).any()
    run(folder, "prune", "--model=model", "--calibration=own.h5", "--output=run", "--method=wanda")


def test_what_stands_before_the_samples(folder: Path) -> None:
    numpy.save(folder / "prompts.npy", numpy.array([[5, 6, 7], [8, 9, 10]]))
    greedy = drawn(folder, "--prompts=prompts.npy", "--temperature=0")
    assert (greedy[:, :3] == numpy.array([[5, 6, 7], [8, 9, 10]] * 6)[:11]).all()
    assert (greedy[0] == greedy[2]).all() and (greedy[0] != greedy[1]).any()
    assert (greedy[0] == drawn(folder, "--prompts=prompts.npy", "--top-p=1e-9")[0]).all()
    first = drawn(folder, "--begin=vocabulary")[:, 0]
    assert len(numpy.unique(first)) > 5
    assert (drawn(folder, "--begin=1") != drawn(folder, "--begin=2")).any()
