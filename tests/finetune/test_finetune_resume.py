"""A run that is killed or stopped anywhere and repeated, on any number of ranks, has the bytes of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import List

import pytest

from finetune_program import ENVIRONMENT, TRAININGS, World, launch, losses_of, manifest_of, run, trained_bytes

STOPPED = 75


def events(output: Path, name: str) -> int:
    file = output / "events.jsonl"
    return sum(f'"event":"{name}"' in line.replace(" ", "") for line in file.read_text().splitlines()) if file.exists() else 0


def interrupt(command: List[str], output: Path, number: signal.Signals, event: str, count: int) -> int:
    """Starts a run, sends the signal once the event has come so often, and returns its status."""
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        give_up = time.monotonic() + 60
        while events(output, event) < count and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.002)
        target = json.loads((output / "lock").read_text())["process"] if number == signal.SIGKILL else process.pid
        os.kill(int(target), number)
        return process.wait(60)


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_and_repeated(world: World, tmp_path: Path, training: str, ranks: int) -> None:
    steps = 40  # enough for a kill in between
    run(world.finetune(training, tmp_path / "whole", "--checkpoint-steps=5", steps=steps))
    output = tmp_path / "killed"
    command = world.finetune(training, output, "--checkpoint-steps=5", steps=steps)
    assert interrupt(launch(command, ranks), output, signal.SIGKILL, "checkpoint", 2) not in (0, STOPPED)
    manifest = manifest_of(output)
    assert 10 <= manifest["checkpoint"]["steps"] == len(manifest["progress"]["steps"]) < 40
    assert "is not finished" in run(["inspect", str(output)], status=2).stderr
    said = run(command, 3 - ranks).stderr
    assert f"resuming: {manifest['checkpoint']['steps']} of 40 steps" in said
    assert trained_bytes(output) == trained_bytes(tmp_path / "whole")
    assert losses_of(output) == losses_of(tmp_path / "whole")
    assert not (output / "checkpoint").exists() and not (output / "lock").exists()
    assert "is complete; nothing to do" in run(command).stderr


def test_killed_at_any_time(world: World, tmp_path: Path) -> None:
    """Wherever it is by then: before the first checkpoint, between its files, while the result is written."""
    run(world.finetune("masked", tmp_path / "whole", "--checkpoint-steps=2", steps=12))
    output = tmp_path / "killed"
    command = launch(world.finetune("masked", output, "--checkpoint-steps=2", steps=12))
    for seconds in (0.15, 0.3, 0.4, 0.5, 0.45, 0.55, 0.6, 0.7, 0.8):
        with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(seconds)
            process.kill()
            said = process.communicate()[1]
            assert process.returncode in (0, -signal.SIGKILL), said
    run(command[1:])
    assert trained_bytes(output) == trained_bytes(tmp_path / "whole")
    assert losses_of(output) == losses_of(tmp_path / "whole")


def test_a_full_disk_ends_the_run_and_a_roomier_one_goes_on(world: World, tmp_path: Path) -> None:
    """No file may grow beyond a size that a checkpoint needs; what was committed stays."""
    output, steps = tmp_path / "run", 30
    command = launch(world.finetune("masked", output, "--checkpoint-steps=1000000", steps=steps))
    assert interrupt(command, output, signal.SIGUSR1, "step", 2) == STOPPED
    before = manifest_of(output)
    small = ["bash", "-c", 'ulimit -f 64; trap "" XFSZ; exec "$@"', "bash"]
    limited = launch(world.finetune("masked", output, "--checkpoint-steps=1", steps=steps))
    # A checkpoint, and before anything is trained what the optimiser keeps.
    for place, sentence in (("device", "checkpoint/"), ("file", "optimizer-state-0 (without a name by now) cannot grow")):
        done = subprocess.run([*small, *limited, f"--optimizer-state={place}"], env=ENVIRONMENT, capture_output=True,
                              text=True, timeout=120)  # fmt: skip
        assert done.returncode == 3 and "File too large" in done.stderr and sentence in done.stderr, done.stderr
        assert manifest_of(output)["checkpoint"] == before["checkpoint"]
    run(command[1:])
    run(world.finetune("masked", tmp_path / "whole", steps=steps))
    assert trained_bytes(output) == trained_bytes(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_stopped_by_a_signal(world: World, tmp_path: Path, number: signal.Signals) -> None:
    run(world.finetune("masked-lora", tmp_path / "whole", steps=40))
    output = tmp_path / "stopped"
    command = world.finetune("masked-lora", output, "--checkpoint-steps=1000", steps=40)
    assert interrupt(launch(command), output, number, "step", 3) == STOPPED
    assert manifest_of(output)["checkpoint"]["steps"] >= 3
    run(command, 2)
    assert trained_bytes(output) == trained_bytes(tmp_path / "whole")


def test_only_the_same_command_goes_on(world: World, tmp_path: Path) -> None:
    output = tmp_path / "run"
    command = world.finetune("lora", output, "--checkpoint-steps=1", steps=2000)
    assert interrupt(launch(command), output, signal.SIGUSR1, "step", 2) == STOPPED
    before = manifest_of(output)
    other = [word.replace("--rank=4", "--rank=2") for word in command]
    assert "rank: the run has 4, this command has 2" in run(other, status=2).stderr
    damaged = output / manifest_of(output)["checkpoint"]["files"][0]["file"]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    assert f"{damaged} is not the file that the manifest names" in run(command, status=2).stderr
    after = manifest_of(output)
    assert all(after[name] == before[name] for name in ("run_id", "options", "checkpoint", "progress"))
    run([*world.finetune("lora", output, steps=2), "--fresh"])
    assert manifest_of(output)["complete"] and not (output / "checkpoint").exists()
