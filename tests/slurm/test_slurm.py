"""Real jobs on the Slurm that tests/slurm/run.sh has started (SLURM_CONF): slurm/*.sh end to end.

Every run must have the bytes of one process that was never interrupted.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
EMULATED = REPOSITORY / "tests" / "emulation" / "espalier"
EVERYTHING = os.environ.get("ESPALIER_SLURM_TESTS") == "all"

if "SLURM_CONF" not in os.environ:
    pytest.skip("no Slurm: these tests are run by tests/slurm/run.sh", allow_module_level=True)

MODEL = ["--model=synthetic:llama-tiny", "--device=cpu"]
SMALL = [*MODEL, "--calibration=synthetic:8x64", "--ro-rounds=1"]
#: Some seconds a block, so that there is time to interrupt it.
SLOW = [*MODEL, "--calibration=synthetic:96x512", "--ro-samples=64"]
TWO_BY_TWO = ["--nodes=2", "--ntasks-per-node=2", "--mem=1000M"]


def shell(*words: object, status: Optional[int] = 0, folder: Optional[Path] = None) -> subprocess.CompletedProcess:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=600, cwd=folder)
    assert status is None or done.returncode == status, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


def wait_for(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not in {seconds} s: {what()}"
        time.sleep(0.2)


class Job:
    def __init__(self, number: str, folder: Path, name: str = "espalier-prune") -> None:
        self.number, self.log_file = number, folder / f"{name}_{number}.log"

    def fields(self) -> Dict[str, str]:
        text = shell("scontrol", "show", "job", self.number).stdout
        return dict(re.findall(r"(\w+)=(\S*)", text))

    def state(self) -> str:
        return self.fields()["JobState"]

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def wait(self, *states: str, seconds: float = 120) -> None:
        """Starts a requeued job at once instead of after Slurm's two minutes."""

        queued_since = 0.0

        def reached() -> bool:
            nonlocal queued_since
            fields = self.fields()
            if fields["JobState"] != "PENDING" or fields.get("Reason") != "BeginTime":
                queued_since = 0.0
            elif queued_since == 0.0:
                queued_since = time.monotonic()
            elif time.monotonic() > queued_since + 3:  # at once a restart fails while the old job is cleared away
                queued_since = time.monotonic()
                shell("scontrol", "update", f"jobid={self.number}", "StartTime=now", status=None)
            return fields["JobState"] in states

        wait_for(reached, seconds, lambda: f"job {self.number} {states}, but {self.fields()}:\n{self.log()}")


def submit(folder: Path, *words: str) -> Job:
    done = shell(REPOSITORY / "slurm" / "submit.sh", *words, folder=folder)
    number = re.search(r"job (\d+) is submitted", done.stderr)
    assert number, done.stderr
    return Job(number.group(1), folder)


def blocks_done(run: Path) -> int:
    manifest = run / "manifest.json"
    return len(json.loads(manifest.read_text())["blocks"]) if manifest.exists() else -1


def bytes_of(run: Path) -> List[bytes]:
    return [file.read_bytes() for file in sorted((run / "blocks").iterdir())]


def is_complete(run: Path) -> bool:
    return (run / "manifest.json").exists() and json.loads((run / "manifest.json").read_text())["complete"]


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


def test_the_script_is_shown_and_not_submitted(tmp_path: Path) -> None:
    done = shell(REPOSITORY / "slurm" / "submit.sh", "--model=synthetic:llama-2-70b", "--calibration=synthetic:128x2048",
                 "--output=run", "--ro-batch=8", "--nodes=2", "--gpus-per-node=4", "--account=some", "--dry-run", folder=tmp_path)  # fmt: skip
    for line in ("#SBATCH --nodes=2", "#SBATCH --gpus-per-node=4", "#SBATCH --ntasks-per-node=4", "#SBATCH --time=0:",
                 "#SBATCH --mem=", "#SBATCH --signal=USR1@300", "#SBATCH --account=some", "launch prune"):  # fmt: skip
        assert line in done.stdout
    assert "The plan" in done.stderr and "dense pass" not in done.stderr and shell("squeue", "-h").stdout == ""


@pytest.mark.parametrize(
    "words, sentence",
    [
        ([*SMALL], "--output RUN is missing"),
        ([*SMALL, "--output=x", "--nodes=two"], "two is not a whole number"),
        ([*SMALL, "--output=x", "--method=wonda"], "wonda"),
        ([*SMALL, "--output=x", "--launcher=ssh"], "--launcher ssh is not srun or mpirun"),
        ([*SMALL, "--output=x", "--partition="], "--partition needs a value"),
        ([*SMALL, "--output=x", "--time=soon"], "soon is not a time limit"),
        ([*SMALL, "--output=x", "--time=0:05:00"], "does not hold one block"),
        ([*SMALL, "--output=x", "--gpus-per-node=2", "--ntasks-per-node=4"], "one rank runs on each GPU"),
        ([*SMALL, "--output=x", "--rates=/nothere"], "--rates /nothere cannot be read"),
    ],
)
def test_wrong_submissions_are_refused(tmp_path: Path, words: List[str], sentence: str) -> None:
    assert sentence in shell(REPOSITORY / "slurm" / "submit.sh", *words, status=2, folder=tmp_path).stderr


def test_gpus_need_a_program_built_with_cuda(tmp_path: Path) -> None:
    """A build without it is refused here rather than by its job; the script can still be looked at."""
    without = tmp_path / "espalier"
    without.write_text(f"""#!/bin/sh
[ "$1" = --version ] && echo 'espalier 1.0 (without CUDA)' && exit
exec {PROGRAM} "$@"
""")
    without.chmod(0o755)
    command = ["env", f"ESPALIER={without}", REPOSITORY / "slurm" / "submit.sh", *SMALL, "--output=x", "--gpus-per-node=2"]
    refused = shell(*command, status=2, folder=tmp_path).stderr
    assert "is built without CUDA" in refused and "-DESPALIER_CUDA=ON" in refused
    shown = shell(*command, "--dry-run", folder=tmp_path)
    assert "is built without CUDA" in shown.stderr and "#SBATCH --gpus-per-node=2" in shown.stdout


def dry_script(folder: Path, *words: object, script: str = "submit.sh") -> str:
    return shell(REPOSITORY / "slurm" / script, *words, "--dry-run", folder=folder).stdout


def test_what_a_script_gets(tmp_path: Path) -> None:
    """Time for a block before the signal, words as they were, types of GPUs, options with spaces."""
    slow = dry_script(tmp_path, "--model=synthetic:llama-2-7b", "--calibration=synthetic:128x2048", "--output=my runs/a",
                      "--ntasks-per-node=2", "--ro-batch=2", "--sbatch=--comment=a b", "--job-name=mine")  # fmt: skip
    assert "--output\\=" not in slow and "--output=my\\ runs/a" in slow
    assert '#SBATCH --comment="a b"' in slow and "#SBATCH --job-name=mine" in slow
    before = re.search(r"--signal=USR1@(\d+)", slow)
    limit = re.search(r"--time=(\d+):00:00", slow)
    assert before and int(before.group(1)) > 3000 and limit and int(limit.group(1)) == 24
    typed = dry_script(tmp_path, "--model=synthetic:llama-2-7b", "--calibration=synthetic:128x2048", "--output=x",
                       "--gpus-per-node=h100:4", "--gpu=h200")  # fmt: skip
    assert "#SBATCH --gpus-per-node=h100:4" in typed and "#SBATCH --ntasks-per-node=4" in typed
    (tmp_path / "options").write_text("output = from-a-file\n")
    assert "--config" in dry_script(tmp_path, *SMALL, "--config", tmp_path / "options")
    (tmp_path / "table").write_text('--method wanda --calibration "some where"\n')
    words = [word for word in SMALL if not word.startswith("--calibration")]
    assert "some where cannot be opened" in shell(REPOSITORY / "slurm" / "sweep.sh", tmp_path / "table", tmp_path / "s p", *words,
                                     status=2, folder=tmp_path).stderr  # fmt: skip
    (tmp_path / "table").write_text("--method wanda\n--method magnitude\n")
    sweep = dry_script(tmp_path, tmp_path / "table", tmp_path / "s p", *SMALL, script="sweep.sh")
    assert "#SBATCH --array=0-1" in sweep and not (tmp_path / "s p").exists()


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
