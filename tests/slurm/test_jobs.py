"""Real jobs from submission to their end: signals, requeueing, preemption, killed ranks, arrays.

Every run must have the bytes of one process that was never interrupted.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Callable, List

import pytest

from slurm_job import (
    EVERYTHING, Job, MODEL, PROGRAM, REPOSITORY, SLOW, SMALL, TWO_BY_TWO, blocks_done, bytes_of, is_complete, shell, submit, wait_for,
)  # fmt: skip


@pytest.fixture(scope="module")
def slow_reference(tmp_path_factory: pytest.TempPathFactory) -> List[bytes]:
    run = tmp_path_factory.mktemp("reference") / "run"
    shell(PROGRAM, "prune", *SLOW, f"--output={run}")
    return bytes_of(run)


def test_submission_over_two_nodes(tmp_path: Path) -> None:
    shell(PROGRAM, "prune", *SMALL, f"--output={tmp_path / 'alone'}")
    job = submit(tmp_path, *SMALL, f"--output={tmp_path / 'run'}", *TWO_BY_TWO)
    job.wait("COMPLETED")
    assert "4 rank(s)" in job.log() and "restart 0" in job.log()
    assert bytes_of(tmp_path / "run") == bytes_of(tmp_path / "alone")


def test_a_forbidden_requeue_becomes_a_new_job(tmp_path: Path, slow_reference: List[bytes]) -> None:
    """Of a task of an array, too: the new job has its index, its name and its log."""
    run, folder = tmp_path / "sweep" / "000", tmp_path / "bin"
    folder.mkdir()
    (folder / "scontrol").write_text(f"""#!/bin/bash
[[ $1 != requeue ]] || {{ echo "requeue is forbidden here" >&2; exit 1; }}
exec {shutil.which("scontrol")} "$@"
""")
    (folder / "scontrol").chmod(0o755)
    (tmp_path / "table").write_text("--seed 0\n")
    words = [f"--sbatch=--export=ALL,PATH={folder}:{os.environ['PATH']}", "--sbatch=--no-requeue"]
    done = shell(REPOSITORY / "slurm" / "sweep.sh", tmp_path / "table", tmp_path / "sweep", *SLOW, *TWO_BY_TWO, *words,
                 folder=tmp_path)  # fmt: skip
    array = re.search(r"array (\d+) with", done.stderr)
    assert array, done.stderr
    log = tmp_path / f"espalier-sweep_{array.group(1)}_0.log"
    said = lambda: log.read_text() if log.exists() else ""  # noqa: E731
    wait_for(lambda: blocks_done(run) >= 1, 120, said)
    shell("scancel", "--signal=USR1", array.group(1))
    wait_for(lambda: is_complete(run), 180, said)
    assert "a new one goes on" in said() and "resuming: " in said() and bytes_of(run) == slow_reference


def interrupt_and_finish(tmp_path: Path, reference: List[bytes], interrupt: Callable[[Job], None], *words: str) -> Job:
    run = tmp_path / "run"
    job = submit(tmp_path, *SLOW, f"--output={run}", *words)
    wait_for(lambda: blocks_done(run) >= 1, 120, lambda: f"a first block\n{job.log()}")
    interrupt(job)
    job.wait("COMPLETED", seconds=180)
    assert is_complete(run), job.log()
    assert bytes_of(run) == reference
    return job


def test_usr1_requeues(tmp_path: Path, slow_reference: List[bytes]) -> None:
    job = interrupt_and_finish(
        tmp_path, slow_reference, lambda job: shell("scancel", "--signal=USR1", job.number) and None, *TWO_BY_TWO
    )
    assert "stopped by SIGUSR1" in job.log() and "asking Slurm to requeue the job" in job.log()
    assert "restart 1" in job.log() and "resuming: " in job.log()


def test_usr1_requeues_under_mpirun(tmp_path: Path, slow_reference: List[bytes]) -> None:
    job = interrupt_and_finish(
        tmp_path, slow_reference, lambda job: shell("scancel", "--batch", "--signal=USR1", job.number) and None,
        "--ntasks-per-node=2", "--mem=1000M", "--launcher=mpirun",
    )  # fmt: skip
    assert "stopped by SIGUSR1" in job.log() and "restart 1" in job.log()


def test_preemption(tmp_path: Path, slow_reference: List[bytes]) -> None:
    def preempt(job: Job) -> None:
        high = shell("sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null",
                     "--wrap", "sleep 1", folder=tmp_path).stdout.strip()  # fmt: skip
        wait_for(lambda: job.fields()["Restarts"] == "1", 120, lambda: "the job to be preempted")
        Job(high, tmp_path).wait("COMPLETED")

    job = interrupt_and_finish(tmp_path, slow_reference, preempt, *TWO_BY_TWO, "--partition=low")
    assert "restart 1" in job.log() and "resuming: " in job.log()


def test_a_killed_rank_ends_the_step(tmp_path: Path, slow_reference: List[bytes]) -> None:
    def kill_a_rank(job: Job) -> None:
        ranks = shell("pgrep", "-f", f"espalier prune .*--output={tmp_path / 'run'}", status=None).stdout.split()
        ranks = [pid for pid in ranks if Path(f"/proc/{pid}/exe").resolve() == PROGRAM]
        assert len(ranks) == 4
        os.kill(int(ranks[-1]), signal.SIGKILL)
        job.wait("FAILED")
        shell("scontrol", "requeue", job.number)

    job = interrupt_and_finish(tmp_path, slow_reference, kill_a_rank, *TWO_BY_TWO)
    assert "restart 1" in job.log()


def test_sweep_with_collector(tmp_path: Path) -> None:
    table = tmp_path / "table.txt"
    table.write_text("# what is compared\n--method wanda\n\n--method wanda++ --alpha 10\n--method magnitude\n")
    done = shell(REPOSITORY / "slurm" / "sweep.sh", table, tmp_path / "sweep", *SMALL, "--ntasks-per-node=2",
                 "--mem=500M", "--at-once=2", folder=tmp_path)  # fmt: skip
    numbers = re.search(r"array (\d+) with 3 runs.*job (\d+) collects", done.stderr, re.DOTALL)
    assert numbers, done.stderr
    Job(numbers.group(2), tmp_path).wait("COMPLETED", seconds=180)
    rows = (tmp_path / "sweep" / "runs.md").read_text().splitlines()[2:]
    assert [row.split("|")[3].strip() for row in rows] == ["wanda", "wanda++", "magnitude"]
    assert "--alpha 10" in rows[1] and all("complete" in row for row in rows)
    table.write_text("--method wanda\n--method wonda\n")
    said = shell(REPOSITORY / "slurm" / "sweep.sh", table, tmp_path / "bad", *SMALL, status=2, folder=tmp_path).stderr
    assert "run 1: --method wonda" in said and "wonda" in said.splitlines()[-1] and not (tmp_path / "bad").exists()


@pytest.mark.parametrize("kind", ["strong", "weak"])
def test_scaling_study(tmp_path: Path, kind: str) -> None:
    study = tmp_path / "study"
    words = [*MODEL, "--ro-rounds=1", "--sequence-length=64", "--samples=8", "--calibration=synthetic:16x64"]
    done = shell(REPOSITORY / "slurm" / "scaling" / f"{kind}.sh", study, "--sizes=1,2", "--by-rank", "--repeats=2", *words,
                 "--ntasks-per-node=1", "--mem=500M", folder=tmp_path)  # fmt: skip
    number = re.search(r"job (\d+) draws", done.stderr)
    assert number and "4 jobs are submitted" in done.stderr, done.stderr
    Job(number.group(1), tmp_path).wait("COMPLETED", seconds=180)
    page, table = (study / "report.html").read_text(), (study / "report.md").read_text()
    assert kind.capitalize() in page and "2 ranks" in page and table.count("\n| ") >= 3
    runs = [json.loads(file.read_text()) for file in sorted(study.glob("ranks-*/repeat-*/metrics.json"))]
    assert [run["ranks"] for run in runs] == [1, 1, 2, 2]
    assert [run["calibration"]["samples"] for run in runs] == ([8] * 4 if kind == "strong" else [8, 8, 16, 16])


def test_fine_tuning_as_a_job(tmp_path: Path) -> None:
    """Stopped after a step, requeued, and on from its checkpoint on both nodes."""
    words = [*MODEL, "--data=synthetic:32x256", "--rank=4", "--learning-rate=1e-3", "--steps=12", "--held-out=0"]
    shell(PROGRAM, "finetune", *words, f"--output={tmp_path / 'alone'}")
    run = tmp_path / "run"
    job = submit(tmp_path, "finetune", *words, f"--output={run}", *TWO_BY_TWO)
    job.log_file = tmp_path / f"espalier-finetune_{job.number}.log"
    events = run / "events.jsonl"
    wait_for(lambda: events.exists() and '"step"' in events.read_text(), 120, lambda: f"a first step\n{job.log()}")
    shell("scancel", "--signal=USR1", job.number)
    job.wait("COMPLETED", seconds=180)
    assert "stopped by SIGUSR1 after a checkpoint" in job.log() and "of 12 steps are taken" in job.log()
    assert is_complete(run), job.log()
    trained = [[file.read_bytes() for file in sorted((folder / "blocks").glob("*.h5"))] for folder in (run, tmp_path / "alone")]
    assert trained[0] == trained[1]


def test_evaluation_as_a_job(tmp_path: Path) -> None:
    shell(PROGRAM, "prune", *SMALL, f"--output={tmp_path / 'run'}")
    environment = f"--export=ALL,ESPALIER_SLURM={REPOSITORY / 'slurm'}"
    if PROGRAM != REPOSITORY / "build" / "release" / "espalier":
        environment += f",ESPALIER={PROGRAM}"
    number = shell("sbatch", "--parsable", environment, "--ntasks=2", "--mem=500M", REPOSITORY / "slurm" / "evaluate.sbatch",
                   f"--model={tmp_path / 'run'}", "--tokens=synthetic:4x64", "--sequence-length=64", "--device=cpu",
                   f"--json={tmp_path / 'result.json'}", folder=tmp_path).stdout.strip()  # fmt: skip
    job = Job(number, tmp_path, "espalier-evaluate")
    job.wait("COMPLETED")
    assert json.loads((tmp_path / "result.json").read_text())["perplexity"] > 1


@pytest.mark.skipif(not EVERYTHING, reason="waits for Slurm's time limit: tests/slurm/run.sh --all")
def test_time_limit(tmp_path: Path) -> None:
    """USR1 comes 75 s before the end of two minutes, or some seconds earlier; the run lasts longer than that."""
    run = tmp_path / "run"
    long = [*MODEL, "--calibration=synthetic:192x768", "--samples=192", "--ro-samples=192", "--ro-rounds=6"]
    job = submit(tmp_path, *long, f"--output={run}", *TWO_BY_TWO, "--time=0:02:00", "--signal-before=75")
    job.wait("COMPLETED", seconds=600)
    assert "stopped by SIGUSR1" in job.log() and "restart 1" in job.log()
    shell(PROGRAM, "prune", *long, f"--output={tmp_path / 'alone'}")
    assert bytes_of(run) == bytes_of(tmp_path / "alone")
