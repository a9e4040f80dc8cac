"""What every test of bad inputs starts from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from world import LENGTH, ROWS, VOCABULARY, World, start
from random_model import ModelRequest, make_model, random_tokens, write_tokens


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The good model, tokens and run, made once."""
    folder = tmp_path_factory.mktemp("shared")
    make_model(folder / "model", ModelRequest("llama1"))
    write_tokens(folder / "tokens.npy", random_tokens(ROWS, LENGTH, VOCABULARY))
    command = ["prune", "--model=model", "--calibration=tokens.npy", "--output=run", "--method=wanda"]
    done = start(command, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def world(shared: Path, tmp_path: Path) -> World:
    shutil.copytree(shared / "model", tmp_path / "model")
    shutil.copy(shared / "tokens.npy", tmp_path / "tokens.npy")
    return World(tmp_path, shared / "run")
