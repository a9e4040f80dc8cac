"""A small pruned model, tokens, and `espalier finetune` on them.

The program is $ESPALIER, by default build/release/espalier.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "oracle"))

from random_model import ModelRequest, make_model, random_tokens, write_tokens  # noqa: E402

PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
MPIRUN = shutil.which("mpirun")
assert PROGRAM.exists(), f"{PROGRAM} is not built"

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
               "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}  # fmt: skip
SAMPLES, TOKENS, BLOCKS = 26, 40, 2  # six samples a pass
TRAININGS: Dict[str, List[str]] = {
    "masked-lora": ["--train=masked-lora", "--rank=4", "--loss=mix", "--train-norms", "--dropout=0.1"],
    "lora": ["--train=lora", "--rank=4", "--loss=lm", "--targets=q_proj,down_proj", "--dropout=0.1"],
    "masked": ["--train=masked", "--loss=kl", "--train-norms"],
}


def launch(arguments: List[str], ranks: int = 1) -> List[str]:
    return [*([str(MPIRUN), "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []), str(PROGRAM), *arguments]


def run(arguments: List[str], ranks: int = 1, status: int = 0) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(launch(arguments, ranks), env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@dataclass
class World:
    """What all tests of a module share."""

    folder: Path

    def finetune(self, training: str, output: Path, *more: str, steps: int = 7) -> List[str]:
        words = ["finetune", f"--model={self.folder / 'pruned'}", f"--data={self.folder / 'tokens.npy'}",
                 f"--output={output}", f"--steps={steps}", "--batch=20", "--held-out=3", "--evaluate-steps=2",
                 "--learning-rate=1e-2", "--threads=1", *TRAININGS[training], *more]  # fmt: skip
        return words if "--loss=lm" in words else [*words, f"--teacher={self.folder / 'dense'}"]


def make_world(folder: Path, family: str = "llama3", dtype: str = "f32") -> World:
    make_model(folder / "dense", ModelRequest(family, dtype=dtype, blocks=BLOCKS))
    write_tokens(folder / "tokens.npy", random_tokens(SAMPLES, TOKENS))
    run(["prune", f"--model={folder / 'dense'}", f"--calibration={folder / 'tokens.npy'}",
         f"--output={folder / 'pruned'}", "--method=wanda"])  # fmt: skip
    return World(folder)


def trained_bytes(output: Path) -> Dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((output / "blocks").glob("*.h5"))}


def manifest_of(output: Path) -> Dict:
    return json.loads((output / "manifest.json").read_text())


def losses_of(output: Path) -> Dict:
    return manifest_of(output)["progress"]
