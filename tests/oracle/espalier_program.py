"""The program under test: $ESPALIER, by default build/release/espalier of this repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DEVICE = os.environ.get("ESPALIER_TEST_DEVICE", "cpu")


@pytest.fixture(scope="session")
def espalier() -> Path:
    """The program under test."""
    if "ESPALIER" in os.environ:
        path = Path(os.environ["ESPALIER"]).resolve()
        assert path.exists(), f"$ESPALIER is {path}, which does not exist"
        return path
    path = REPOSITORY / "build" / "release" / "espalier"
    assert path.exists(), f"{path} is not built"
    return path


def run_program(espalier: Path, *arguments: object, ranks: int = 0) -> str:
    """Runs the program on one thread, with `ranks` under mpirun, and returns its standard output; fails with its
    messages."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    launcher = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks else []
    command = [*launcher, str(espalier), *(str(argument) for argument in arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        message = f"{' '.join(command)}\nstatus {done.returncode}\n{done.stdout}\n{done.stderr}"
        pytest.fail(message, pytrace=False)
    return done.stdout
