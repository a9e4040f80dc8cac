"""The output folder: what may not be written to, other runs, locks, manifests."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Dict

import pytest

from world import PROGRAM, SECONDS, World, content_of, environment, save_npy, sentence_of, start, with_id, write_config


def test_output_is_a_file(world: World) -> None:
    world.output.write_text("a file")
    world.refused(world.prune(), "--output", "not a folder")


def test_output_below_a_file(world: World) -> None:
    (world.folder / "file").write_text("a file")
    world.refused(world.prune(output="file/run"), "--output", "file/run")


def test_output_in_a_folder_without_rights(world: World) -> None:
    world.refused(world.prune(output="/proc/espalier/run"), "--output", "/proc/espalier/run")


def test_output_name_too_long(world: World) -> None:
    world.refused(world.prune(output=world.folder / ("x" * 300)), "xxx", "too long")


def test_output_is_a_link_to_itself(world: World) -> None:
    world.output.symlink_to(world.output)
    sentence_of(start(world.prune(), world.folder), ["out", "symbolic links"], True)


@pytest.mark.parametrize("file", ["notes.txt", "config.json", "report.html", "blocks/notes.txt", "blocks/00000.h5"])
@pytest.mark.parametrize("fresh", [False, True])
def test_output_holds_something_else(world: World, file: str, fresh: bool) -> None:
    """No file that no run wrote is overwritten or removed, not even one with a name that a run uses."""
    (world.output / file).parent.mkdir(parents=True)
    (world.output / file).write_text('{"owner": "somebody else"}\n')
    world.refused(world.prune(*(["--fresh"] if fresh else [])), "--output", Path(file).parts[0])


def test_output_is_the_model(world: World) -> None:
    world.refused(world.prune("--fresh", output=world.model), "--output", "model")


def test_output_is_the_run_that_is_pruned(world: World) -> None:
    """--fresh must not remove the model before it is read."""
    world.own_run()
    world.refused(world.prune("--fresh", model=world.output), "--output", "--model")


OTHER_RUNS = {
    "method": (["--method=magnitude"], ["method", '"wanda"', '"magnitude"']),
    "pattern": (["--method=wanda", "--pattern=4:8"], ["pattern", '"2:4"', '"4:8"']),
    "samples": (["--method=wanda", "--samples=4"], ["samples", "8", "4", "--fresh"]),
    "seed and input-norm": (["--method=wanda", "--seed=7", "--input-norm=mean"], ["seed", "7", "input-norm", "mean"]),
    "output-dtype": (["--method=wanda", "--output-dtype=float16"], ["output-dtype", "float16"]),
}


@pytest.mark.parametrize("name", OTHER_RUNS)
def test_output_of_other_options(world: World, name: str) -> None:
    more, words = OTHER_RUNS[name]
    world.own_run()
    world.refused(world.prune(*more), "--output", "the run has", *words)


def test_output_of_another_model(world: World) -> None:
    world.own_run()
    write_config(world.model, {"rms_norm_eps": 1e-4})
    world.refused(world.prune("--method=wanda"), "--output", "model: the run has")


def test_output_of_other_tokens(world: World) -> None:
    world.own_run()
    save_npy(with_id(3))(world.tokens)
    world.refused(world.prune("--method=wanda"), "--output", "calibration tokens: the run has")


def test_output_locked_by_a_live_run(world: World) -> None:
    """A run that is stopped in the middle holds its folder; a second one names it and changes nothing."""
    command = [str(PROGRAM), *map(str, world.prune("--ro-rounds=100000", "--threads=1"))]
    said = world.folder / "first.log"
    with said.open("w") as log:
        first = subprocess.Popen(command, cwd=world.folder, env=environment(), stderr=log)
    try:
        deadline = time.monotonic() + SECONDS
        while not (world.output / "non_block.h5").exists():
            assert time.monotonic() < deadline and first.poll() is None, said.read_text()
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        for more in ([], ["--fresh"]):
            world.refused(world.prune("--ro-rounds=100000", *more), "another run", f"process {first.pid}", "host",
                          str(world.output))  # fmt: skip
    finally:
        first.kill()
        first.wait()


def test_output_locked_by_somebody_without_a_name(world: World) -> None:
    world.own_run()
    (world.output / "lock").write_text('{"host": 1, "process": 2}')
    with open(world.output / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        world.refused(world.prune("--method=wanda"), "another run", "unknown")


def no_change(manifest: Dict[str, Any]) -> None:
    """For the case that replaces the whole."""


MANIFESTS: Dict[str, tuple] = {
    "an array": ("inspect", no_change),
    "another format": ("inspect", lambda manifest: manifest.update(format="x")),
    "a later version": ("inspect", lambda manifest: manifest.update(version=2)),
    "no options": ("inspect", lambda manifest: manifest.pop("options")),
    "options a number": ("inspect", lambda manifest: manifest.update(options=1)),
    "options a number, resumed": ("prune", lambda manifest: manifest.update(options=1)),
    "options without method": ("inspect", lambda manifest: manifest["options"].pop("method")),
    "provenance a list": ("prune", lambda manifest: manifest.update(provenance=[])),
    "model a text": ("inspect", lambda manifest: manifest.update(model="x")),
    "blocks a number": ("inspect", lambda manifest: manifest.update(blocks=2)),
    "block index text": ("inspect", lambda manifest: manifest["blocks"][0].update(index="0")),
    "block index 7": ("inspect", lambda manifest: manifest["blocks"][1].update(index=7)),
    "block index negative": ("inspect", lambda manifest: manifest["blocks"][1].update(index=-1)),
    "block listed twice": ("inspect", lambda manifest: manifest["blocks"].append(manifest["blocks"][0])),
    "block not listed": ("inspect", lambda manifest: manifest["blocks"].pop()),
    "block without metrics": ("export", lambda manifest: manifest["blocks"][0].update(metrics={})),
    "block file elsewhere": ("inspect", lambda manifest: manifest["blocks"][0].update(file="../model/config.json")),
    "outer file not listed": ("inspect", lambda manifest: manifest.update(outer_files=[])),
    "bytes negative": ("inspect", lambda manifest: manifest["blocks"][0].update(bytes=-1)),
    "complete a text": ("inspect", lambda manifest: manifest.update(complete="yes")),
    "more blocks than the model": ("inspect", lambda manifest: manifest["model"].update(blocks=99)),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest(world: World, name: str) -> None:
    """A damaged manifest gives status 2: a sentence, or for inspect a fault in its table."""
    command, change = MANIFESTS[name]
    run = world.own_run()
    manifest = json.loads((run / "manifest.json").read_text())
    change(manifest)
    (run / "manifest.json").write_text(json.dumps([] if name == "an array" else manifest))
    before = content_of(world.folder)
    arguments = {
        "inspect": ["inspect", "out"],
        "export": ["export", "--run=out", "--output=exported", "--model=model"],
        "prune": world.prune("--method=wanda"),
    }
    done = start(arguments[command], world.folder)
    if command == "inspect" and "FAULT" in done.stdout:
        assert done.returncode == 2
    else:
        sentence_of(done, ["manifest.json"], alone=command != "prune")
    assert content_of(world.folder) == before


@pytest.mark.parametrize("text", ["", "{", "\0\0\0\0", '{"format": "espalier-run", "format": 1}'])
def test_manifest_not_json(world: World, text: str) -> None:
    (world.own_run() / "manifest.json").write_text(text)
    world.refused(world.prune("--method=wanda"), "manifest.json", "")
    world.refused(["inspect", "out"], "manifest.json")
