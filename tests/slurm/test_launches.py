"""Steps that srun starts: the network between nodes, wrong launches, GPUs of nodes, the check of a node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from slurm_job import EMULATED, Job, PROGRAM, REPOSITORY, SMALL, bytes_of, shell


def prune_step(run: Path, *options: str, program: Path = PROGRAM, device: str = "cpu") -> str:
    """What a wrong `srun` of a small run says; it must end with status 2 and leave nothing."""
    words = [word for word in SMALL if not word.startswith("--device")]
    done = shell("srun", "--mem=500M", *options, program, "prune", *words, f"--device={device}", f"--output={run}", status=None)
    assert done.returncode == 2, done.stderr
    assert not run.exists()
    return done.stderr


def doctor(folder: Path, *options: str, status: int = 0, rates: str = "--rates=rates.json") -> subprocess.CompletedProcess:
    return shell("srun", "--mpi=pmix", "--mem=500M", *options, PROGRAM, "doctor", "--device=cpu", rates,
                 status=status, folder=folder)  # fmt: skip


def test_the_network_between_nodes_is_measured(tmp_path: Path) -> None:
    seen = doctor(tmp_path, "--nodes=2", "--ntasks-per-node=2").stdout
    assert "measured between 2 rank(s) on each of 2 machine(s)" in seen and "(assumed)" not in seen
    network = json.loads((tmp_path / "rates.json").read_text())["network"]
    assert network["ranks_per_machine"] == 2
    assert all(0 < network[link]["latency"] < 1 and network[link]["bandwidth"] > 1e5 for link in ("inside", "between"))
    # Both are this machine's loopback interface, of no table.
    assert network["between"]["latency"] != 2e-5 and network["between"]["bandwidth"] != 1e9
    planned = shell(PROGRAM, "plan", "--model=synthetic:llama-tiny", "--ranks=4", "--rates=rates.json", "--json", folder=tmp_path)
    assert json.loads(planned.stdout)["rates"]["network"] == network
    words = [REPOSITORY / "slurm" / "submit.sh", *SMALL, "--output=x", "--rates=rates.json", "--dry-run"]
    assert "--rates=rates.json" not in shell(*words, folder=tmp_path).stdout, "they are for the plan"
    refused = shell(*words, "--gpus-per-node=2", status=2, folder=tmp_path).stderr
    assert "are of a cpu, but the job computes on gpus" in refused


def test_a_network_is_measured_as_far_as_it_is_there(tmp_path: Path) -> None:
    seen = doctor(tmp_path, "--nodes=2", "--ntasks-per-node=1").stdout
    assert "links between machines measured between 1 rank(s) on each of 2 machine(s), the others and 8 ranks" in seen
    assert json.loads((tmp_path / "rates.json").read_text())["network"]["ranks_per_machine"] == 8
    sentence = "equally many ranks on every machine, one machine after the other"
    for uneven in (["--ntasks=4", "--distribution=cyclic"], ["--ntasks=3"]):
        assert sentence in doctor(tmp_path, "--nodes=2", *uneven, status=2).stderr
    told = doctor(tmp_path, "--nodes=2", "--ntasks=3", rates="--threads=1").stdout
    assert f"not measured: the network is measured between {sentence}" in told


def test_srun_without_pmix(tmp_path: Path) -> None:
    assert "tasks without MPI between them; use srun --mpi=pmix" in prune_step(tmp_path / "run", "--mpi=none", "--ntasks=2")


def test_a_forgotten_srun(tmp_path: Path) -> None:
    script = f"{PROGRAM} prune {' '.join(SMALL)} --output={tmp_path / 'run'}"
    number = shell("sbatch", "--parsable", "--ntasks=4", "--mem=500M", f"--output={tmp_path / 'log'}", "--wrap", script).stdout.strip()
    Job(number, tmp_path).wait("FAILED")
    assert "gives this job 4 task(s), but espalier runs on 1 rank(s); start it with srun" in (tmp_path / "log").read_text()
    assert not (tmp_path / "run").exists()


needs_emulation = pytest.mark.skipif(not (REPOSITORY / "build/emulation/libespalier_cuda.so").exists(),
                                     reason="build/emulation is not built (tests/run.sh emulation)")


@needs_emulation
def test_two_ranks_on_one_gpu(tmp_path: Path) -> None:
    said = prune_step(tmp_path / "run", "--mpi=pmix", "--ntasks=2", "--nodes=1", "--gpus-per-node=1", program=EMULATED, device="cuda")
    assert "share the GPU" in said and "--gpus-per-node=G --ntasks-per-node=G" in said


@needs_emulation
def test_more_ranks_than_gpus(tmp_path: Path) -> None:
    said = prune_step(tmp_path / "run", "--mpi=pmix", "--ntasks=3", "--nodes=1", "--gpus-per-node=2", program=EMULATED, device="cuda")
    assert "3 ranks on this machine see 2 GPUs" in said and "CUDA_VISIBLE_DEVICES=0,1" in said


@needs_emulation
def test_one_gpu_visible_to_each_task(tmp_path: Path) -> None:
    words = [word for word in SMALL if not word.startswith("--device")]
    done = shell("srun", "--mem=500M", "--mpi=pmix", "--ntasks=2", "--nodes=1", "--gpus-per-task=1", EMULATED, "prune", *words,
                 "--device=cuda", f"--output={tmp_path / 'run'}")  # fmt: skip
    assert "each rank sees one GPU only (--gpus-per-task?)" in done.stderr


@needs_emulation
def test_gpus_of_two_nodes(tmp_path: Path) -> None:
    words = [word for word in SMALL if not word.startswith("--device")]
    shell(EMULATED, "prune", *words, "--device=cuda", f"--output={tmp_path / 'alone'}")
    shell("srun", "--mem=500M", "--mpi=pmix", "--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2", EMULATED, "prune", *words,
          "--device=cuda", f"--output={tmp_path / 'run'}")  # fmt: skip
    assert bytes_of(tmp_path / "run") == bytes_of(tmp_path / "alone")


def test_env_reports(tmp_path: Path) -> None:
    done = shell("srun", "--nodes=2", "--ntasks-per-node=1", REPOSITORY / "slurm" / "env.sh", PROGRAM)
    assert done.stdout.count("srun --mpi=pmix") == 2 and "MISSING" not in done.stdout
    lost = shell(REPOSITORY / "slurm" / "env.sh", tmp_path / "nothing", status=1)
    assert "MISSING  program" in lost.stdout and "cmake --build" in lost.stdout
