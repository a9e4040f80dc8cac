"""Bad inputs through the real program: exit status 2, one sentence that names the culprit, nothing left behind.

The program is $ESPALIER, by default build/release/espalier. Every run is bounded in time, and in memory by ulimit -v.
This module makes tests/oracle importable: it is imported before the modules there.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence

import numpy
import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY / "tests" / "oracle"))

from random_model import random_tokens  # noqa: E402

ROWS, LENGTH, VOCABULARY = 8, 32, 256
MEMORY_LIMIT = 4 << 30
SECONDS = 10
MPIRUN = shutil.which("mpirun")
ABSENT = object()  # for write_config: the field is removed


def find_program() -> Path:
    return Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()


PROGRAM = find_program()
assert PROGRAM.exists(), f"{PROGRAM} is not built"


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def environment(**extra: str) -> Dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("ESPALIER_")}
    return {**own, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **extra}


def start(arguments: Sequence[object], cwd: Path, **extra: str) -> "subprocess.CompletedProcess[str]":
    command = [str(PROGRAM), *(str(argument) for argument in arguments)]
    try:
        return subprocess.run(
            command, cwd=cwd, env=environment(**extra), capture_output=True, text=True, errors="replace",
            timeout=SECONDS, preexec_fn=limit_memory,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.fail(f"{' '.join(command)}: no end after {SECONDS} s", pytrace=False)


def sentence_of(done: "subprocess.CompletedProcess[str]", words: Sequence[str], alone: bool) -> str:
    """Checks status and sentence; `alone`: nothing else stands on stderr, but for a word on the device taken."""
    told = f"status {done.returncode}\nstdout: {done.stdout[:2000]}\nstderr: {done.stderr[:4000]}"
    assert done.returncode == 2, told
    sentences = [line for line in done.stderr.splitlines() if line.startswith("espalier: ")]
    assert len(sentences) == 1, told
    if alone:
        others = [line for line in done.stderr.splitlines() if not line.startswith("computing on the CPU: ")]
        assert others == sentences, told
    assert len(sentences[0]) < 1000, "a sentence for a person, not " + str(len(sentences[0])) + " characters"
    for word in words:
        assert word in sentences[0], f"'{word}' is not in: {sentences[0]}"
    return sentences[0]


def content_of(folder: Path) -> Dict[str, bytes]:
    """Every file below `folder` with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@dataclass
class World:
    """A folder with a good model, good tokens and (shared, read-only) a complete run of `wanda`."""

    folder: Path
    run: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.npy"

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def prune(self, *more: object, **changed: object) -> List[object]:
        options: Dict[str, object] = {"model": self.model, "calibration": self.tokens, "output": self.output}
        options.update(changed)
        return ["prune", *(f"--{name}={value}" for name, value in options.items()), *more]

    def refused(self, arguments: Sequence[object], *words: str, alone: bool = True, **extra: str) -> str:
        """The program refuses and leaves the folder as it was."""
        before = content_of(self.folder)
        sentence = sentence_of(start(arguments, self.folder, **extra), words, alone)
        assert content_of(self.folder) == before, "files were changed, added or removed"
        assert not self.output.exists() or any(name.startswith("out") for name in before), "an output folder was made"
        return sentence

    def own_run(self) -> Path:
        """A copy of the complete run at --output."""
        shutil.copytree(self.run, self.output)
        return self.output


def write_config(folder: Path, fields: Mapping[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    for name, value in fields.items():
        config.pop(name, None)
        if value is not ABSENT:
            config[name] = value
    (folder / "config.json").write_text(json.dumps(config))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(bytes(content))


def good_ids() -> numpy.ndarray:
    return random_tokens(ROWS, LENGTH, VOCABULARY).astype("int32")


def with_id(value: int, dtype: str = "int64") -> numpy.ndarray:
    ids = good_ids().astype(dtype)
    ids[2, 5] = value
    return ids


def save_npy(array: numpy.ndarray) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        with open(path, "wb") as file:
            numpy.save(file, array)

    return save
