"""A run that a signal stops ends with status 75 between two blocks, and the same command finishes it with the same bytes.

The program is $ESPALIER, by default build/release/espalier.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
MPIRUN = shutil.which("mpirun")
assert PROGRAM.exists(), f"{PROGRAM} is not built"

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
               "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}  # fmt: skip
STOPPED = 75


def command(output: Path, ranks: int, *more: str) -> List[str]:
    launch = [str(MPIRUN), "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    return [*launch, str(PROGRAM), "prune", "--model=synthetic:llama-tiny", "--calibration=synthetic:24x192",
            "--device=cpu", f"--output={output}", *more]  # fmt: skip


def blocks_done(output: Path) -> int:
    manifest = output / "manifest.json"
    return len(json.loads(manifest.read_text())["blocks"]) if manifest.exists() else -1


def ranks_of_run(mpirun: int) -> Dict[int, int]:
    """Rank -> its process id, of those that mpirun has started by now."""
    lists = Path(f"/proc/{mpirun}/task").glob("*/children")
    ranks: Dict[int, int] = {}
    for child in (child for of_thread in lists for child in of_thread.read_text().split()):
        for variable in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            if variable.startswith(b"OMPI_COMM_WORLD_RANK="):
                ranks[int(variable.partition(b"=")[2])] = int(child)
    return ranks


def listens(process: int, number: signal.Signals) -> bool:
    """Whether it catches the signal. Before that, while it is being loaded, nothing in the program can."""
    caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught.group(1), 16) >> (number - 1) & 1)


def wait_until_ranks_listen(process: subprocess.Popen[str], ranks: int, number: signal.Signals) -> None:
    give_up = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < give_up:
        started = ranks_of_run(process.pid)
        if len(started) == ranks and all(listens(rank, number) for rank in started.values()):
            return
        time.sleep(0.005)
    raise AssertionError(f"{ranks} ranks did not start: {process.communicate()[1]}")


def stop_after(
    output: Path, blocks: int, number: signal.Signals, ranks: int, *more: str, only_rank: Optional[int] = None
) -> str:
    """Starts a run, sends the signal once so many blocks are committed, and returns what it said."""
    process = subprocess.Popen(command(output, ranks, *more), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 60
    while blocks_done(output) < blocks and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.005)
    if only_rank is None:
        process.send_signal(number)
    else:
        os.kill(ranks_of_run(process.pid)[only_rank], number)
    _, log = process.communicate(timeout=60)
    assert process.returncode == STOPPED, log
    return log


def bytes_of(output: Path) -> List[bytes]:
    return [file.read_bytes() for file in sorted((output / "blocks").iterdir())]


def finish(output: Path, ranks: int, *more: str) -> None:
    subprocess.run(command(output, ranks, *more), env=ENVIRONMENT, check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., List[bytes]]:
    """Bytes of the blocks of a run with these options that nothing stopped."""
    known: Dict[Tuple[str, ...], List[bytes]] = {}

    def bytes_of_run(*more: str) -> List[bytes]:
        if more not in known:
            output = tmp_path_factory.mktemp("whole") / "run"
            finish(output, 1, *more)
            known[more] = bytes_of(output)
        return known[more]

    return bytes_of_run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda number: number.name)
def test_signal_between_blocks(tmp_path: Path, undisturbed: Callable[..., List[bytes]], number: signal.Signals) -> None:
    log = stop_after(tmp_path / "run", 1, number, 1)
    assert "\nstopping after the present block" in log, "said at once, also where stderr is no terminal"
    assert f"stopped by {number.name}" in log and "the same command continues" in log
    assert 1 <= blocks_done(tmp_path / "run") < 4
    finish(tmp_path / "run", 1)
    assert bytes_of(tmp_path / "run") == undisturbed()


RAISE_WHEN_STARTED_AGAIN = """
#include <signal.h>
#include <stdlib.h>
__attribute__((constructor)) static void start(void) {
    if (getenv("GOMP_SPINCOUNT") != NULL) raise(SIGUSR1);
}
"""


def test_signal_while_the_program_starts_itself_again(tmp_path: Path) -> None:
    """It does so for the sake of libraries: what comes before main() is reached again is noted too."""
    source, library = tmp_path / "raise.c", tmp_path / "raise.so"
    source.write_text(RAISE_WHEN_STARTED_AGAIN)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(command(tmp_path / "run", 1), env={**environment, "LD_PRELOAD": str(library)},
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == STOPPED and "stopped by SIGUSR1" in done.stderr, done.stderr


def test_signals_that_the_launcher_had_blocked(tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path / "run", 1), env=ENVIRONMENT, capture_output=True, text=True, timeout=60,
                          preexec_fn=block_and_raise)  # fmt: skip
    assert done.returncode == STOPPED and "stopped by SIGUSR1" in done.stderr, done.stderr


def block_and_raise() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.skipif(MPIRUN is None, reason="mpirun is not installed")
def test_ranks_stop_before_the_round_that_searches_the_rate(tmp_path: Path) -> None:
    """On two ranks the third of four groups searches in the second round; in the first, one rank has work, one has none."""
    more = ["--block-groups=4", "--only-blocks=2-3", "--method=ro", "--ro-learning-rate=auto", "--ro-rounds=1"]
    finish(tmp_path / "whole", 1, *more)
    finish(tmp_path / "run", 1, *more)
    manifest = tmp_path / "run" / "manifest.json"
    content = json.loads(manifest.read_text())
    content.update({"blocks": content["blocks"][:1], "complete": False, "learning_rate": None})
    manifest.write_text(json.dumps(content))
    process = subprocess.Popen(command(tmp_path / "run", 2, *more), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    wait_until_ranks_listen(process, 2, signal.SIGUSR1)
    ranks = ranks_of_run(process.pid).values()
    for _ in range(200):
        if process.poll() is not None:
            break
        for rank in ranks:  # themselves: mpirun dies of a signal that comes while it is ending
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank, signal.SIGUSR1)
        time.sleep(0.1)
    _, log = process.communicate(timeout=60)
    assert process.returncode in (0, STOPPED), log
    finish(tmp_path / "run", 2, *more)
    assert bytes_of(tmp_path / "run") == bytes_of(tmp_path / "whole")


@pytest.mark.skipif(MPIRUN is None, reason="mpirun is not installed")
@pytest.mark.parametrize(
    "blocks, more",
    [
        (1, []),
        (1, ["--ro-batch=2"]),
        (0, ["--block-groups=2"]),
        (0, ["--block-groups=4"]),
        (0, ["--block-groups=2", "--method=ro", "--ro-learning-rate=auto", "--ro-rounds=1"]),
    ],
    ids=["single samples", "mini-batches", "block groups", "rounds of block groups", "before the rate is found"],
)
def test_all_ranks_stop_together(
    tmp_path: Path, undisturbed: Callable[..., List[bytes]], blocks: int, more: List[str]
) -> None:
    """mpirun passes SIGUSR1 on to every rank, as Slurm does."""
    stop_after(tmp_path / "run", blocks, signal.SIGUSR1, 2, *more)
    assert blocks_done(tmp_path / "run") < 4
    finish(tmp_path / "run", 3, *more)
    assert bytes_of(tmp_path / "run") == undisturbed(*more)


@pytest.mark.skipif(MPIRUN is None, reason="mpirun is not installed")
def test_a_signal_that_reaches_one_rank_first(tmp_path: Path) -> None:
    """Batch systems send it to all, but rank 0 may hear of the stop before its own signal has come."""
    log = stop_after(tmp_path / "run", 1, signal.SIGUSR1, 2, only_rank=1)
    assert "stopped by SIGUSR1" in log and blocks_done(tmp_path / "run") < 4
