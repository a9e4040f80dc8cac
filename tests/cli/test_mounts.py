"""Network and FUSE mounts refuse calls that a disk does not: locks, fsync of folders, renaming over a file in use.

tests/faults/refuse_calls.c plays the mount. The program is $ESPALIER, by default build/release/espalier.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List

import h5py
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
sys.path.insert(0, str(REPOSITORY / "tests" / "oracle"))

from random_model import ModelRequest, make_model, random_tokens, write_tokens  # noqa: E402

assert PROGRAM.exists(), f"{PROGRAM} is not built"
NO_LOCKS = "flock={0},fcntl_lock={0}"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module", name="preloaded")
def build_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("faults") / "refuse_calls.so"
    source = REPOSITORY / "tests" / "faults" / "refuse_calls.c"
    subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", source, "-o", library, "-ldl"],
                   check=True)  # fmt: skip
    return library


@pytest.fixture(scope="module", name="inputs")
def make_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two blocks, and its tokens: as they are, and behind an external link."""
    folder = tmp_path_factory.mktemp("inputs")
    make_model(folder / "model", ModelRequest("llama1"))
    write_tokens(folder / "tokens.h5", random_tokens(8, 32, 256))
    with h5py.File(folder / "linked.h5", "w") as file:
        file["input_ids"] = h5py.ExternalLink("tokens.h5", "/input_ids")
    return folder


@pytest.fixture(name="mount")
def make_mount(inputs: Path, tmp_path: Path) -> Path:
    shutil.copytree(inputs, tmp_path / "mount")
    return tmp_path / "mount"


@pytest.fixture(name="run")
def make_run(preloaded: Path, mount: Path) -> Run:
    """run(calls, arguments...): the program in `mount`, which refuses these calls."""

    def run(calls: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LD_PRELOAD": str(preloaded),
                       "REFUSED_CALLS": calls, "REFUSED_UNDER": str(mount), **variables}  # fmt: skip
        return subprocess.run([str(PROGRAM), *arguments], cwd=mount, env=environment, capture_output=True, text=True,
                              timeout=60, check=False)  # fmt: skip

    return run


def prune(tokens: str = "tokens.h5", output: str = "run") -> List[str]:
    return ["prune", "--device=cpu", "--method=wanda", "--model=model", f"--calibration={tokens}", f"--output={output}"]


def succeeds(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def refused(done: "subprocess.CompletedProcess[str]", status: int, *words: str) -> None:
    sentences = [line for line in done.stderr.splitlines() if line.startswith("espalier: ")]
    assert done.returncode == status and len(sentences) == 1, done.stdout + done.stderr
    for word in words:
        assert word in sentences[0], sentences[0]


def lose_the_last_block(run_folder: Path) -> None:
    """As if the run had been killed before it."""
    manifest = json.loads((run_folder / "manifest.json").read_text())
    manifest.update(blocks=manifest["blocks"][:1], complete=False, outer_files=[])
    (run_folder / "manifest.json").write_text(json.dumps(manifest))


# Site modules export the variable; it wins over what a program asks HDF5 for.
@pytest.mark.parametrize("error, setting", [("ENOLCK", None), ("ENOSYS", "TRUE"), ("ENOTSUP", "BEST_EFFORT")])
def test_every_command_works_without_locks(run: Run, mount: Path, error: str, setting: str) -> None:
    calls = NO_LOCKS.format(error)
    variables: Dict[str, str] = {} if setting is None else {"HDF5_USE_FILE_LOCKING": setting}
    log = succeeds(run(calls, *prune(), **variables))
    assert f"warning: this file system has no locks ({os.strerror(getattr(errno, error))})" in log
    assert not (mount / "run" / "lock").exists()
    lose_the_last_block(mount / "run")
    assert "resuming: 1 of 2" in succeeds(run(calls, *prune(), **variables))
    assert "perplexity" in succeeds(
        run(calls, "evaluate", "--model=run", "--tokens=tokens.h5", "--sequence-length=32", **variables))  # fmt: skip
    succeeds(run(calls, "inspect", "run", "--model=model", **variables))
    succeeds(run(calls, "export", "--run=run", "--output=exported", **variables))
    assert (mount / "exported" / "model.safetensors").exists()
    succeeds(run(calls, "evaluate", "--model=run", "--tokens=linked.h5", "--sequence-length=32", **variables))


def test_an_error_without_a_name_is_no_lock_too(run: Run) -> None:
    assert "has no locks" in succeeds(run(NO_LOCKS.format("524"), *prune()))


def lock_of(**fields: str) -> Dict[str, str]:
    return {"host": socket.gethostname(), "process": "1", "slurm_job": "7", "slurm_restarts": "1", "run_id": "r",
            **fields}  # fmt: skip


def ended_process() -> str:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return str(process.pid)


def test_without_locks_the_file_protects(run: Run, mount: Path) -> None:
    """A second run is refused unless the first is known to have ended."""
    calls = NO_LOCKS.format("ENOLCK")
    succeeds(run(calls, *prune()))
    lock = mount / "run" / "lock"
    holders = {
        "alive": (lock_of(process=str(os.getpid())), False),
        "elsewhere": (lock_of(host="another-machine"), False),
        "ended": (lock_of(process=ended_process()), True),
        "a process with the same number": (lock_of(process=str(os.getpid()), process_start="another boot 1"), True),
        "an earlier start of this job": (lock_of(host="another-machine", slurm_job="8", slurm_restarts=""), True),
        "this start of this job": (lock_of(host="another-machine", slurm_job="8", slurm_restarts="1"), False),
    }
    for name, (content, ended) in holders.items():
        lock.write_text(json.dumps(content))
        done = run(calls, *prune(), SLURM_JOB_ID="8", SLURM_RESTART_COUNT="1", SLURM_NTASKS="1")
        if ended:
            assert "took over the lock" in succeeds(done), name
            assert not lock.exists(), name
        else:
            refused(done, 2, "another run is writing", content["host"], "remove run/lock")
            assert json.loads(lock.read_text()) == content, name
    lock.write_text("")  # killed before it wrote its name, a while ago
    a_minute_ago = time.time() - 60
    os.utime(lock, (a_minute_ago, a_minute_ago))
    assert "took over the lock" in succeeds(run(calls, *prune()))


def test_without_locks_a_slow_writer_of_the_file_is_waited_for(run: Run, mount: Path) -> None:
    succeeds(run(NO_LOCKS.format("ENOLCK"), *prune()))
    lock = mount / "run" / "lock"
    lock.write_text("")
    writer = threading.Timer(1.5, lambda: lock.write_text(json.dumps(lock_of(host="another-machine"))))
    writer.start()
    refused(run(NO_LOCKS.format("ENOLCK"), *prune()), 2, "another run is writing", "another-machine")
    writer.join()


USUAL_REFUSALS = {
    "folders are not flushed": "fsync_folder=EINVAL",
    "folders are not flushed, another word": "fsync_folder=ENOTSUP",
    "fsync of a folder is unknown": "fsync_folder=ENOSYS",
    "folders are not opened": "open_folder=EACCES",
    "a server holds a file that is read": "rename=EBUSY:3",
    "a server holds a file that is executed": "rename=ETXTBSY:1",
    "calls break off": "fsync=EINTR:2,fsync_folder=EINTR:2,open_read=EINTR:1,flock=EINTR:1",
    "what is not needed": "link=EPERM,symlink=EPERM,fallocate=ENOTSUP,chmod=EPERM,utimes=EPERM,mmap=ENODEV,"
    "copy_range=EINVAL,open_tmpfile=ENOTSUP,open_direct=EINVAL",
}


@pytest.mark.parametrize("calls", USUAL_REFUSALS.values(), ids=USUAL_REFUSALS.keys())
def test_refusals_that_change_nothing(run: Run, mount: Path, calls: str) -> None:
    (mount / "model" / "tokenizer.json").write_text("{}")
    succeeds(run(calls, *prune()))
    succeeds(run(calls, "export", "--run=run", "--output=exported"))
    assert (mount / "exported" / "tokenizer.json").read_text() == "{}"


@pytest.mark.parametrize(
    "calls, status, words",
    [
        ("fsync=EIO", 3, ["cannot be flushed to disk", "Input/output error"]),
        ("fsync=EINVAL", 3, ["cannot be flushed to disk", "Invalid argument"]),
        ("fsync_folder=EIO", 3, ["cannot be flushed to disk", "Input/output error"]),
        ("rename=EEXIST", 3, ["does not replace a file by renaming", "--output"]),
        ("ftruncate=ENOSYS", 3, [".h5.tmp", "Function not implemented"]),
        ("open_new=EROFS", 2, ["--output run cannot be written", "Read-only"]),
        ("flock=EIO", 2, ["run/lock", "cannot be locked", "Input/output error"]),
    ],
)
def test_refusals_that_end_a_run(run: Run, calls: str, status: int, words: List[str]) -> None:
    refused(run(calls, *prune()), status, *words)


def test_what_fails_to_open_says_why(run: Run, mount: Path) -> None:
    """Permission, absence and damage of an HDF5 file are told apart."""
    succeeds(run("", *prune()))
    block = mount / "run" / "blocks" / "00000.h5"
    evaluate = ["evaluate", "--model=run", "--tokens=model/tokens.npy", "--sequence-length=32"]
    write_tokens(mount / "model" / "tokens.npy", random_tokens(8, 32, 256))
    whole = block.read_bytes()
    refused(run("open_read=EACCES", "evaluate", "--model=synthetic:llama-tiny", "--tokens=tokens.h5"), 2,
            "tokens.h5", "Permission denied")  # fmt: skip
    block.write_bytes(whole[: len(whole) // 2])
    refused(run("", *evaluate), 2, "00000.h5", "damaged HDF5 file", "truncated")
    block.write_bytes(b"x" * len(whole))
    refused(run("", *evaluate), 2, "00000.h5", "is not an HDF5 file")
    block.unlink()
    refused(run("", *evaluate), 2, "00000.h5", "No such file")


def test_a_finished_export_is_kept_when_it_cannot_be_renamed(run: Run, mount: Path) -> None:
    succeeds(run("", *prune()))
    refused(run("rename_folder=ENOSYS", "export", "--run=run", "--output=exported"), 3,
            "exported.partial cannot be renamed", "Function not implemented", "the export is complete")  # fmt: skip
    assert (mount / "exported.partial" / "model.safetensors").exists()
