"""evaluate, inspect and export of damaged runs and wrong paths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Dict, List

import h5py
import pytest

from world import VOCABULARY, World, content_of, flip, sentence_of, start, write_config
from random_model import ModelRequest, make_model, random_tokens, write_tokens


def place_of(path: Path, dataset: str) -> int:
    """Of the first chunk's bytes in the file."""
    with h5py.File(path) as file:
        return file[dataset].id.get_chunk_info(0).byte_offset + 8


def unfinish(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["complete"] = False
    (run / "manifest.json").write_text(json.dumps(manifest))


def swap_blocks(run: Path) -> None:
    (run / "blocks/00001.h5").unlink()
    shutil.copy(run / "blocks/00000.h5", run / "blocks/00001.h5")


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


UP_PROJ = "model/layers/1/mlp/up_proj/weight"
RUNS: Dict[str, tuple] = {
    "unfinished": (unfinish, ["out", "unfinished", "2 of 2 blocks"]),
    "manifest missing": (lambda run: (run / "manifest.json").unlink(), ["out"]),
    "block missing": (lambda run: (run / "blocks/00001.h5").unlink(), ["00001.h5"]),
    "block cut": (lambda run: truncate(run / "blocks/00001.h5"), ["00001.h5"]),
    "first block cut": (lambda run: truncate(run / "blocks/00000.h5"), ["00000.h5"]),
    "block of another place": (swap_blocks, ["00001.h5", "manifest"]),
    "weights damaged": (lambda run: flip(run / "blocks/00001.h5", place_of(run / "blocks/00001.h5", UP_PROJ)),
                        ["00001.h5", "manifest"]),
    "outer file missing": (lambda run: (run / "non_block.h5").unlink(), ["non_block.h5"]),
    "outer file damaged": (lambda run: flip(run / "non_block.h5", (run / "non_block.h5").stat().st_size // 2),
                           ["non_block.h5"]),
    "config.json missing": (lambda run: (run / "config.json").unlink(), ["config.json"]),
    "config.json edited": (lambda run: write_config(run, {"rms_norm_eps": 1e-3}), ["config.json", "manifest"]),
    "config.json of a deeper model": (lambda run: write_config(run, {"num_hidden_layers": 3}), ["config.json"]),
}  # fmt: skip


@pytest.mark.parametrize("command", ["evaluate", "inspect", "export", "prune"])
@pytest.mark.parametrize("name", RUNS)
def test_damaged_run(world: World, name: str, command: str) -> None:
    change, words = RUNS[name]
    change(world.own_run())
    arguments: Dict[str, List[object]] = {
        "evaluate": ["evaluate", "--model=out", "--tokens=tokens.npy", "--sequence-length=16"],
        "inspect": ["inspect", "out"],
        "export": ["export", "--run=out", "--output=exported"],
        "prune": world.prune(model=world.output, output=world.folder / "second"),
    }
    if command == "export" and name == "outer file damaged":
        return  # export takes the outer tensors from the dense model
    before = content_of(world.output)
    done = start(arguments[command], world.folder)
    if command == "inspect" and "FAULT" in done.stdout:
        assert done.returncode == 2 and words[0] in done.stdout, done.stdout + done.stderr
    else:
        sentence_of(done, words, alone=command != "prune")
    assert content_of(world.output) == before
    assert not (world.folder / "exported").exists()
    assert not list(world.folder.glob("exported*")), "a half-made export is left"


@pytest.mark.parametrize("share", range(0, 100, 9))
def test_inspect_finds_a_flipped_bit_anywhere(world: World, share: int) -> None:
    run = world.own_run()
    file = run / "blocks" / f"0000{share % 2}.h5"
    flip(file, file.stat().st_size * share // 100)
    done = start(["inspect", "out"], world.folder)
    assert done.returncode == 2, f"{done.stdout}\n{done.stderr}"
    assert file.name in done.stdout + done.stderr


def test_inspect_says_what_it_has_checked(world: World) -> None:
    """Of a dense model alone there is nothing that could be wrong."""
    world.own_run()
    assert start(["inspect", "out"], world.folder).stdout.endswith("all holds\n")
    assert start(["inspect", "out", "--model=model"], world.folder).stdout.endswith("all holds\n")
    alone = start(["inspect", "model"], world.folder)
    assert alone.returncode == 0 and "neither a run nor an export" in alone.stdout and "all holds" not in alone.stdout


def test_time_left_is_that_of_blocks_to_prune(world: World) -> None:
    done = start(world.prune("--only-blocks=0-0", output=world.folder / "first"), world.folder)
    blocks = [line for line in done.stderr.splitlines() if line.startswith("block ")]
    assert len(blocks) == 2 and blocks[0].endswith("ETA 0 s"), f"after the first only a copy is left: {blocks}"


@pytest.mark.parametrize("file", ["non_block.h5", "config.json", "model.h5"])
def test_inspect_finds_a_damaged_file(world: World, file: str) -> None:
    path = world.own_run() / file
    if file == "config.json":
        write_config(world.output, {"rms_norm_eps": 1e-3})
    else:
        flip(path, path.stat().st_size // 2)
    done = start(["inspect", "out"], world.folder)
    assert done.returncode == 2, f"{done.stdout}\n{done.stderr}"
    assert file in done.stdout + done.stderr


@pytest.mark.parametrize(
    "words, named",
    [([], ["--path", "missing"]), (["nowhere"], ["nowhere", "does not exist"]), (["model", "second"], ["second"])],
)
def test_inspect_paths(world: World, words: List[str], named: List[str]) -> None:
    world.refused(["inspect", *words], *named)


def test_inspect_against_a_model_of_other_depth(world: World) -> None:
    make_model(world.folder / "deeper", ModelRequest("llama1", blocks=3))
    world.refused(["inspect", world.run, "--model=deeper"], "2", "3", "blocks")


def test_export_into_an_existing_folder(world: World) -> None:
    (world.folder / "exported").mkdir()
    world.refused(["export", f"--run={world.run}", "--output=exported", "--model=model"], "--output", "exists already")


def test_export_keeps_a_foreign_partial_folder(world: World) -> None:
    (world.folder / "exported.partial").mkdir()
    (world.folder / "exported.partial" / "notes.txt").write_text("mine\n")
    world.refused(["export", f"--run={world.run}", "--output=exported", "--model=model"], "exported.partial", "move it")
    assert (world.folder / "exported.partial" / "notes.txt").exists(), "export removed a file that it did not write"


def test_export_below_a_file(world: World) -> None:
    output = "tokens.npy/exported"
    world.refused(["export", f"--run={world.run}", f"--output={output}", "--model=model"], output)


def test_export_of_a_changed_model(world: World) -> None:
    write_config(world.model, {"rms_norm_eps": 1e-4})
    world.refused(["export", f"--run={world.run}", "--output=exported", "--model=model"], "model", "pruned from")


def test_export_without_the_model(world: World) -> None:
    run = world.own_run()
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["model"]["path"] = str(world.folder / "moved")
    (run / "manifest.json").write_text(json.dumps(manifest))
    world.refused(["export", "--run=out", "--output=exported"], "moved", "does not exist")


def test_export_of_a_model_folder(world: World) -> None:
    world.refused(["export", "--run=model", "--output=exported"], "model", "not a run folder")


EVALUATIONS: Dict[str, tuple] = {
    "sequence longer than the tokens": (["--sequence-length=257"], ["257", "256 tokens"]),
    "sequence longer than the model": (["--tokens=long.npy", "--sequence-length=300"], ["300", "max_position", "256"]),
    "sequence 1": (["--sequence-length=1"], ["--sequence-length", "at least 2"]),
    "tokens missing": (["--tokens=none.npy"], ["none.npy"]),
    "model missing": (["--model=none"], ["none", "does not exist"]),
    "result cannot be written": (["--sequence-length=16", "--json=none/result.json"], ["--json", "none/result.json"]),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluate(world: World, name: str) -> None:
    more, words = EVALUATIONS[name]
    write_tokens(world.folder / "long.npy", random_tokens(1, 400, VOCABULARY))
    given = {str(word).split("=")[0] for word in more}
    defaults = [word for word in ("--model=model", "--tokens=tokens.npy") if word.split("=")[0] not in given]
    world.refused(["evaluate", *defaults, *more], *words)
