"""What the scripts put into a job, and what they refuse, without submitting anything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Tuple

import pytest

from slurm_job import PROGRAM, REPOSITORY, SMALL, shell


def test_the_script_is_shown_and_not_submitted(tmp_path: Path) -> None:
    done = shell(REPOSITORY / "slurm" / "submit.sh", "--model=synthetic:llama-2-70b", "--calibration=synthetic:128x2048",
                 "--output=run", "--ro-batch=8", "--nodes=2", "--gpus-per-node=4", "--account=some", "--dry-run",
                 folder=tmp_path)  # fmt: skip
    for line in ("#SBATCH --nodes=2", "#SBATCH --gpus-per-node=4", "#SBATCH --ntasks-per-node=4", "#SBATCH --time=0:",
                 "#SBATCH --mem=", "#SBATCH --signal=USR1@300", "#SBATCH --account=some", "launch prune"):  # fmt: skip
        assert line in done.stdout
    assert "The plan" in done.stderr and "dense pass" not in done.stderr and shell("squeue", "-h").stdout == ""


def test_a_script_of_finetune(tmp_path: Path) -> None:
    words = ["finetune", "--model=synthetic:llama-2-70b", "--teacher=synthetic:llama-2-70b", "--loss=kl", "--output=tuned"]
    done = shell(REPOSITORY / "slurm" / "submit.sh", *words, "--data=synthetic:128x2048", "--nodes=2", "--gpus-per-node=8",
                 "--dry-run", folder=tmp_path)  # fmt: skip
    for line in ("#SBATCH --job-name=espalier-finetune", "#SBATCH --ntasks-per-node=8", "launch finetune", "--loss=kl"):
        assert line in done.stdout
    assert "shared: an equal part on each device" in done.stderr
    assert "--data FILE is missing" in shell(REPOSITORY / "slurm" / "submit.sh", *words, status=2, folder=tmp_path).stderr


def test_a_last_stage_asks_for_its_time_and_memory(tmp_path: Path) -> None:
    def asked(*words: str) -> Tuple[int, int]:
        script = shell(REPOSITORY / "slurm" / "submit.sh", "--model=synthetic:llama-2-70b", "--calibration=synthetic:16x2048",
                       "--output=run", "--method=reconstruct", "--gpus-per-node=8", *words, "--dry-run",
                       folder=tmp_path).stdout  # fmt: skip
        megabytes, limit = re.search(r"--mem=(\d+)M", script), re.search(r"--time=(\d+):(\d+):(\d+)", script)
        assert megabytes and limit, script
        hours, minutes, seconds = (int(part) for part in limit.groups())
        return int(megabytes[1]), 3600 * hours + 60 * minutes + seconds

    (memory, time), (more_memory, more_time) = asked(), asked("--finetune-epochs=100")
    assert more_time > time
    assert more_memory > 12 * 69e9 / 2**20 > memory, "values and moments in host memory"


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
