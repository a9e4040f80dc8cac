"""A run that is killed anywhere and repeated gives the bytes of a run that was not, whatever the rank count.

The program is $ESPALIER, by default build/release/espalier.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Sequence

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "oracle"))

from random_model import ModelRequest, make_model, random_tokens, write_tokens  # noqa: E402

PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
MPIRUN = shutil.which("mpirun")
assert PROGRAM.exists(), f"{PROGRAM} is not built"
needs_mpirun = pytest.mark.skipif(MPIRUN is None, reason="mpirun is not installed")

BLOCKS, SECONDS = 5, 60
DEAD_PROCESS = str(2**22 + 1)  # above the largest process number that Linux gives
METHODS: Dict[str, List[str]] = {
    "wanda": ["--method=wanda"],
    "sparsegpt": ["--method=sparsegpt", "--pattern=4:8"],
    "wanda++": ["--method=wanda++", "--ro-samples=4", "--ro-rounds=3", "--ro-learning-rate=1e-4"],
    "reconstruct": ["--method=reconstruct", "--epochs=2"],
    "auto": ["--method=ro", "--ro-samples=2", "--ro-rounds=1", "--ro-learning-rate=auto"],
    "groups": ["--method=wanda++", "--ro-samples=4", "--ro-rounds=2", "--block-groups=2"],
    "rounds": ["--method=wanda++", "--ro-samples=4", "--ro-rounds=2", "--block-groups=5"],
}


def environment() -> Dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # fmt: skip


@dataclass
class Runner:
    """Model, tokens, and the command lines over them."""

    folder: Path
    references: Dict[str, Path] = field(default_factory=dict)

    def command(self, output: Path, method: str, *more: str, ranks: int = 1) -> List[str]:
        launch = [str(MPIRUN), "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
        return [*launch, str(PROGRAM), "prune", f"--model={self.folder / 'model'}",
                f"--calibration={self.folder / 'tokens.npy'}", f"--output={output}", "--threads=1",
                *METHODS[method], *more]  # fmt: skip

    def prune(self, output: Path, method: str, *more: str, ranks: int = 1, status: int = 0) -> str:
        """Runs to the end and returns what it says."""
        command = self.command(output, method, *more, ranks=ranks)
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == status, f"status {done.returncode}\n{done.stderr}"
        return done.stderr

    def kill_after(self, output: Path, method: str, lines: int, ranks: int = 1) -> None:
        """SIGKILL for rank 0 (the lock names it) when the n-th line about a block has appeared. A run that was faster
        than that, on a busy machine, is started anew."""
        command = self.command(output, method, ranks=ranks)
        for _ in range(5):
            with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
                assert process.stderr is not None
                seen, rank_0 = 0, 0
                while seen < lines and (line := process.stderr.readline()):
                    seen += line.startswith("block")
                    rank_0 = rank_0 or self.holder_of_lock(output)
                assert seen == lines, "the run ended before its blocks were finished"
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rank_0, signal.SIGKILL)
                process.stderr.read()
            if process.returncode != 0:
                return
            shutil.rmtree(output)
        pytest.fail("the run ended before it was killed")

    def holder_of_lock(self, output: Path) -> int:
        """The process that the lock names; 0 while there is none."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            return int(json.loads((output / "lock").read_text())["process"])
        return 0

    def kill_at(self, output: Path, method: str, seconds: float) -> None:
        """SIGKILL at a moment that has nothing to do with what the run says."""
        process = subprocess.Popen(self.command(output, method), env=environment(), stderr=subprocess.PIPE, text=True)
        time.sleep(seconds)
        process.kill()
        _, said = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), said

    def reference(self, method: str) -> Path:
        """The run that nothing disturbed."""
        if method not in self.references:
            self.references[method] = self.folder / f"reference-{method}"
            self.prune(self.references[method], method)
        return self.references[method]

    def demand_same(self, output: Path, method: str) -> None:
        assert weights_of(output) == weights_of(self.reference(method))
        assert manifest_of(output)["complete"] is True
        assert not (output / "lock").exists()


def weights_of(output: Path) -> Dict[str, bytes]:
    files = [*sorted((output / "blocks").glob("*.h5")), output / "non_block.h5"]
    return {str(file.relative_to(output)): file.read_bytes() for file in files}


def content_of(output: Path) -> Dict[str, bytes]:
    return {str(file.relative_to(output)): file.read_bytes() for file in output.rglob("*") if file.is_file()}


def manifest_of(output: Path) -> Dict:
    return json.loads((output / "manifest.json").read_text())


def blocks_of(output: Path) -> Sequence[int]:
    return sorted(block["index"] for block in manifest_of(output)["blocks"])


def inspect(output: Path) -> "subprocess.CompletedProcess[str]":
    command = [str(PROGRAM), "inspect", str(output)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    folder = tmp_path_factory.mktemp("resume")
    make_model(folder / "model", ModelRequest("llama1", blocks=BLOCKS))
    write_tokens(folder / "tokens.npy", random_tokens(8, 32))
    return Runner(folder)


@pytest.mark.parametrize("method", ["wanda++", "sparsegpt"])
@pytest.mark.parametrize("lines", range(1, BLOCKS))
def test_killed_after_a_block(runner: Runner, tmp_path: Path, method: str, lines: int) -> None:
    output = tmp_path / "run"
    runner.kill_after(output, method, lines)
    committed = blocks_of(output)
    assert len(committed) >= lines
    said = runner.prune(output, method)
    assert "took over the lock" in said
    if len(committed) < BLOCKS:
        assert f"resuming: {len(committed)} of {BLOCKS} blocks are finished" in said
        assert sum(line.startswith("block") for line in said.splitlines()) == BLOCKS - len(committed)
    runner.demand_same(output, method)


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3])
def test_killed_at_any_time(runner: Runner, tmp_path: Path, seconds: float) -> None:
    output = tmp_path / "run"
    for repetition in range(3):
        runner.kill_at(output, "wanda++", seconds + 0.03 * repetition)
    runner.prune(output, "wanda++")
    runner.demand_same(output, "wanda++")


@needs_mpirun
@pytest.mark.parametrize("method", ["wanda++", "groups", "rounds", "auto", "reconstruct"])
@pytest.mark.parametrize("before, after", [(1, 3), (2, 1), (3, 2)])
def test_resumed_with_other_ranks(runner: Runner, tmp_path: Path, method: str, before: int, after: int) -> None:
    output = tmp_path / "run"
    runner.kill_after(output, method, 2, ranks=before)
    runner.prune(output, method, ranks=after)
    runner.demand_same(output, method)


def test_killed_twice(runner: Runner, tmp_path: Path) -> None:
    output = tmp_path / "run"
    runner.kill_after(output, "wanda++", 1)
    runner.kill_after(output, "wanda++", 1)
    assert len(blocks_of(output)) >= 2
    runner.prune(output, "wanda++")
    runner.demand_same(output, "wanda++")


def test_searched_learning_rate_is_kept(runner: Runner, tmp_path: Path) -> None:
    output = tmp_path / "run"
    runner.kill_after(output, "auto", 1)
    chosen = manifest_of(output)["learning_rate"]
    said = runner.prune(output, "auto")
    assert "chosen on held-out samples" not in said, "the search was repeated"
    assert manifest_of(output)["learning_rate"] == chosen
    runner.demand_same(output, "auto")


@pytest.mark.parametrize("change", ["--alpha=7", "--seed=1", "--samples=4", "--hold-mask", "--shards=2"])
def test_changed_option_is_refused(runner: Runner, tmp_path: Path, change: str) -> None:
    output = tmp_path / "run"
    runner.kill_after(output, "wanda++", 2)
    before = content_of(output)
    said = runner.prune(output, "wanda++", change, status=2)
    name = change[2:].split("=")[0]
    sentence = [line for line in said.splitlines() if line.startswith("espalier: ")]
    assert len(sentence) == 1 and f"{name}: the run has" in sentence[0] and "--fresh" in sentence[0]
    after = content_of(output)
    del before["lock"]  # of the killed process; the refused run has taken it over and put it back
    after.pop("lock", None)
    assert after == before
    runner.prune(output, "wanda++")
    runner.demand_same(output, "wanda++")


def test_options_that_decide_nothing_may_change(runner: Runner, tmp_path: Path) -> None:
    output = tmp_path / "run"
    runner.kill_after(output, "wanda++", 2)
    runner.prune(output, "wanda++", "--resume", "--device=cpu")
    runner.demand_same(output, "wanda++")


def test_fresh_starts_over(runner: Runner, tmp_path: Path) -> None:
    output = tmp_path / "run"
    runner.kill_after(output, "wanda++", 2)
    first = manifest_of(output)["run_id"]
    said = runner.prune(output, "wanda", "--fresh")
    assert "resuming" not in said and sum(line.startswith("block") for line in said.splitlines()) == BLOCKS
    assert manifest_of(output)["run_id"] != first
    runner.demand_same(output, "wanda")
    assert {path.name for path in output.iterdir()} == {path.name for path in runner.reference("wanda").iterdir()}


def test_complete_run_does_nothing(runner: Runner, tmp_path: Path) -> None:
    """But for a line in the event log."""
    output = tmp_path / "run"
    shutil.copytree(runner.reference("wanda++"), output)
    before = content_of(output)
    said = runner.prune(output, "wanda++")
    assert "complete; nothing to do" in said and not any(line.startswith("block") for line in said.splitlines())
    after = content_of(output)
    assert after.pop("events.jsonl").startswith(before.pop("events.jsonl"))
    assert after == before


@pytest.mark.parametrize("holder", ["dead", "another host", "empty", "damaged"])
def test_stale_lock_is_taken_over(runner: Runner, tmp_path: Path, holder: str) -> None:
    """Nobody holds the file itself, so the run goes on and says whose lock it was."""
    output = tmp_path / "run"
    runner.kill_after(output, "wanda++", 2)
    host = os.uname().nodename if holder == "dead" else "elsewhere"
    content = json.dumps({"host": host, "process": DEAD_PROCESS, "slurm_job": "17", "run_id": "x"})
    (output / "lock").write_text({"empty": "", "damaged": content[:20]}.get(holder, content))
    said = runner.prune(output, "wanda++")
    if holder in ("dead", "another host"):
        assert "took over the lock of a run that ended without removing it" in said
        assert f"(host {host}, process {DEAD_PROCESS}" in said
    runner.demand_same(output, "wanda++")


def test_temporary_and_uncommitted_files_do_no_harm(runner: Runner, tmp_path: Path) -> None:
    output = tmp_path / "run"
    runner.kill_after(output, "wanda++", 2)
    done = len(blocks_of(output))
    junk = b"half of a file" * 100
    names = [f"blocks/{i:05d}.h5.tmp" for i in range(BLOCKS)] + [f"blocks/{i:05d}.h5" for i in range(done, BLOCKS)]
    for name in [*names, "manifest.json.tmp", "metrics.json.tmp", "non_block.h5", "non_block.h5.tmp", "model.h5.tmp"]:
        (output / name).write_bytes(junk)
    runner.prune(output, "wanda++")
    runner.demand_same(output, "wanda++")
    found = inspect(output)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("left", [["lock"], ["lock", "config.json"], ["lock", "manifest.json.tmp", "config.json"]])
def test_killed_before_the_first_manifest(runner: Runner, tmp_path: Path, left: List[str]) -> None:
    output = tmp_path / "run"
    (output / "blocks").mkdir(parents=True)
    for name in left:
        if name == "config.json":
            shutil.copy(runner.folder / "model" / name, output / name)
        else:
            (output / name).write_text("")
    runner.prune(output, "wanda")
    runner.demand_same(output, "wanda")


def test_stopped_while_starting_over(runner: Runner, tmp_path: Path) -> None:
    """--fresh ends in the middle of removing the old blocks; repeated, it must be able to begin again."""
    output = tmp_path / "run"
    shutil.copytree(runner.reference("wanda++"), output)
    obstacle = output / "blocks" / "00002.h5"
    obstacle.unlink()
    obstacle.mkdir()
    (obstacle / "file").write_text("a folder with content cannot be removed as a file")
    command = runner.command(output, "wanda", "--fresh")
    stopped = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS)
    assert stopped.returncode != 0
    shutil.rmtree(obstacle)
    runner.prune(output, "wanda", "--fresh")
    runner.demand_same(output, "wanda")


def damage(file: Path, share: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(len(content) * share)] ^= 0x40
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.9])
def test_damage_after_the_commit_is_noticed(runner: Runner, tmp_path: Path, share: float) -> None:
    output = tmp_path / "run"
    runner.kill_after(output, "wanda++", 2)
    runner.prune(output, "wanda++")
    assert inspect(output).returncode == 0
    damage(output / "blocks/00001.h5", share)
    found = inspect(output)
    assert found.returncode == 2 and "00001.h5" in found.stdout + found.stderr, found.stdout + found.stderr


def test_damaged_block_is_not_built_upon(runner: Runner, tmp_path: Path) -> None:
    """Resuming forwards the samples through committed blocks: a damaged one stops the run and spoils no other."""
    output = tmp_path / "run"
    runner.kill_after(output, "wanda++", 3)
    shutil.copy(output / "blocks/00000.h5", output / "good.h5")
    for share in (0.2, 0.5, 0.8):
        shutil.copy(output / "good.h5", output / "blocks/00000.h5")
        damage(output / "blocks/00000.h5", share)
        said = runner.prune(output, "wanda++", status=2)
        assert "00000.h5" in said
    shutil.move(output / "good.h5", output / "blocks/00000.h5")
    runner.prune(output, "wanda++")
    runner.demand_same(output, "wanda++")
