"""What the tests on the Slurm of tests/slurm/run.sh (SLURM_CONF) share: programs, runs, a job and its states."""

from __future__ import annotations

import json
import os
import re
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
