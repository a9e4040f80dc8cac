"""Host memory is bounded by blocks, not by the model: twelve wide blocks take as much memory as three.

The peak resident memory is taken twice: as the program reports it in metrics.json, and as the kernel counts it for
the process. The program is $ESPALIER, by default build/release/espalier.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict

import numpy
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "oracle"))

import random_model  # noqa: E402
from random_model import ModelRequest, block_values, make_config, random_tokens, write_tokens  # noqa: E402
from safetensors_file import StoredTensor, write_safetensors  # noqa: E402

PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
assert PROGRAM.exists(), f"{PROGRAM} is not built"

WIDE = replace(random_model.FAMILIES["llama1"], hidden=512, intermediate=1792, heads=8, kv_heads=8, head_dim=64)
BLOCK_WEIGHTS = 4 * WIDE.hidden**2 + 3 * WIDE.hidden * WIDE.intermediate
BLOCK_BYTES = 4 * BLOCK_WEIGHTS  # float32, 15.2 MB
VOCABULARY = 64
FEW, MANY = 3, 43

COMMANDS = {
    "wanda": ["prune", "--method=wanda"],
    "wanda++": ["prune", "--method=wanda++", "--ro-samples=1", "--ro-rounds=2"],
    "finetune": ["finetune", "--train=masked", "--loss=lm", "--gradient-norm=0", "--batch=3", "--steps=1", "--held-out=0"],
}

# Linux counts the memory of the process that calls exec in the peak of the new program, so a small process has to start
# it: this one.
LAUNCHER = """
import os, sys
child = os.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
"""


@dataclass(frozen=True)
class Peak:
    """Bytes of resident memory at the peak."""

    reported: int
    counted: int


def make_wide_model(folder: Path, blocks: int) -> Path:
    """All blocks hold the same weights, which are random: only their number matters here."""
    folder.mkdir()
    generator = numpy.random.default_rng(0)
    block = {name: StoredTensor.encode(value, "F32") for name, value in block_values(generator, WIDE).items()}
    tensors = {f"model.layers.{i}.{name}": tensor for i in range(blocks) for name, tensor in block.items()}
    embedding = StoredTensor.encode(0.05 * generator.standard_normal((VOCABULARY, WIDE.hidden)), "F32")
    tensors["model.embed_tokens.weight"] = tensors["lm_head.weight"] = embedding
    tensors["model.norm.weight"] = StoredTensor.encode(numpy.ones(WIDE.hidden), "F32")
    write_safetensors(folder / "model.safetensors", tensors)
    request = ModelRequest("llama1", blocks=blocks, vocab=VOCABULARY)
    (folder / "config.json").write_text(json.dumps(make_config(request, WIDE)))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Dict[int, Path]:
    folder = tmp_path_factory.mktemp("wide")
    write_tokens(folder / "tokens.npy", random_tokens(3, 16, VOCABULARY))
    return {blocks: make_wide_model(folder / str(blocks), blocks) for blocks in (FEW, MANY)}


def measure(model: Path, output: Path, name: str) -> Peak:
    tokens = "data" if name == "finetune" else "calibration"
    command = [str(PROGRAM), *COMMANDS[name], f"--model={model}", f"--{tokens}={model.parent / 'tokens.npy'}",
               f"--output={output}", "--threads=1"]  # fmt: skip
    done = subprocess.run(
        ["/usr/bin/python3", "-S", "-E", "-c", LAUNCHER, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    status, counted = (int(word) for word in done.stdout.split())
    assert status == 0, done.stderr
    metrics = json.loads((output / "metrics.json").read_text())
    return Peak(metrics["peak_resident_bytes"], counted)


def in_blocks(value: int) -> str:
    return f"{value / 1e6:.1f} MB = {value / BLOCK_BYTES:.2f} blocks"


@pytest.mark.parametrize("name", COMMANDS)
def test_memory_does_not_grow_with_the_number_of_blocks(models: Dict[int, Path], tmp_path: Path, name: str) -> None:
    few = measure(models[FEW], tmp_path / "few", name)
    many = measure(models[MANY], tmp_path / "many", name)
    told = f"{name}: peak with {FEW} blocks {in_blocks(few.counted)}, with {MANY} {in_blocks(many.counted)}"
    print(told)
    assert few.counted > 2 * BLOCK_BYTES, f"blocks too small to be seen; {told}"
    # One buffer more is in use when reading, computing and writing happen to meet. Beside it, a twentieth of a block for
    # each block more is growth.
    meeting = BLOCK_BYTES * 2
    assert meeting <= (MANY - FEW) * BLOCK_BYTES // 20
    assert many.counted - few.counted < meeting, told
    assert many.reported - few.reported < meeting, told
    # The program's own number is the kernel's, but for what is freed after the report.
    for peak in (few, many):
        assert abs(peak.reported - peak.counted) < BLOCK_BYTES // 2, f"{peak}; {told}"
