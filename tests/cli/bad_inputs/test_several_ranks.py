"""Bad input under mpirun: all ranks end, one speaks."""

from __future__ import annotations

import shlex
import subprocess
from typing import Dict, List, Sequence

import numpy
import pytest

from world import MPIRUN, PROGRAM, SECONDS, World, environment, save_npy, with_id
from safetensors_file import StoredTensor, read_safetensors, write_safetensors


def spoil_tokens(world: World) -> None:
    save_npy(with_id(256))(world.tokens)


def spoil_weights(world: World) -> None:
    tensors = read_safetensors(world.model / "model.safetensors")
    values = tensors["model.layers.1.mlp.up_proj.weight"].decode()
    values[3, 4] = numpy.nan
    tensors["model.layers.1.mlp.up_proj.weight"] = StoredTensor.encode(values, "F32")
    write_safetensors(world.model / "model.safetensors", tensors)


def spoil_output(world: World) -> None:
    world.own_run()


MPI_CASES: Dict[str, tuple] = {
    "unknown option": (None, ["--sampels=4"], ["--sampels"], 0),
    "tokens out of range": (spoil_tokens, [], ["tokens.npy", "256", "[2, 5]"], 0),
    "output with other options": (spoil_output, [], ["the run has", "method"], 0),
    "weights not finite": (spoil_weights, ["--method=wanda"], ["up_proj", "not a number"], None),
}


def start_ranks(world: World, *arguments_of_rank: Sequence[object]) -> subprocess.CompletedProcess[str]:
    """One rank for each command line. Not as "mpirun A : B": Open MPI 5.0 with PMIx 5.0.7 (Debian 13) dies of SIGSEGV for
    any two programs, "mpirun -n 1 hostname : -n 1 hostname" too (docs/cluster.md)."""
    choice = world.folder / "rank.sh"
    lines = [f"{rank}) exec {shlex.join([str(PROGRAM), *map(str, arguments)])} ;;"
             for rank, arguments in enumerate(arguments_of_rank)]  # fmt: skip
    choice.write_text("\n".join(["case $OMPI_COMM_WORLD_RANK in", *lines, "esac", ""]))
    command = [str(MPIRUN), "--oversubscribe", "-n", str(len(arguments_of_rank)), "sh", str(choice)]
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return subprocess.run(
        command, cwd=world.folder, env=environment(**allowed), capture_output=True, text=True, timeout=SECONDS
    )


def sentences_of(log: str) -> List[str]:
    """Of the program. Open MPI 5.0 ends its own messages with a NUL, which then stands before the next line."""
    return [line for line in log.replace("\0", "").splitlines() if line.startswith("espalier: ")]


@pytest.mark.skipif(MPIRUN is None, reason="mpirun is not installed")
def test_the_failing_rank_is_named(world: World) -> None:
    """All ranks end for rank 2's wrong option, and that rank says so, once."""
    good, bad = world.prune("--threads=1"), world.prune("--threads=1", "--samples=99")
    done = start_ranks(world, good, good, bad, good)
    sentences = sentences_of(done.stderr)
    assert done.returncode == 2, done.stderr
    assert len(sentences) == 1 and sentences[0].startswith("espalier: rank 2: ") and "--samples 99" in sentences[0], done.stderr
    assert not world.output.exists()


@pytest.mark.skipif(MPIRUN is None, reason="mpirun is not installed")
@pytest.mark.parametrize("name", MPI_CASES)
def test_two_ranks(world: World, name: str) -> None:
    """Both ranks end soon, the status is 2, and one rank says the sentence for both."""
    spoil, more, words, rank = MPI_CASES[name]
    if spoil is not None:
        spoil(world)
    arguments = world.prune("--threads=1", *more)
    done = start_ranks(world, arguments, arguments)
    sentences = sentences_of(done.stderr)
    assert done.returncode == 2, done.stderr
    assert len(sentences) == 1, done.stderr
    assert sentences[0].startswith("espalier: rank " if rank is None else f"espalier: rank {rank}: "), sentences[0]
    for word in words:
        assert word in sentences[0]
    assert rank is None or spoil is spoil_output or not world.output.exists()
