"""Wrong words, options, environment and option files."""

from __future__ import annotations

from typing import Dict

import pytest

from world import World, start

COMMAND_LINES: Dict[str, tuple] = {
    "unknown option": (["--sampels=4"], ["'--sampels'", "did you mean --samples?"]),
    "abbreviation": (["--sample=4"], ["--sample"]),
    "single dash": (["-samples=4"], ["-s"]),
    "word without option": (["wanda"], ["wanda"]),
    "word after --": (["--", "wanda"], ["wanda"]),
    "missing value": (["--samples"], ["--samples"]),
    "option as value": (["--samples", "--fresh"], ["--samples"]),
    "empty value": (["--samples", ""], ["--samples", "whole number"]),
    "twice": (["--samples=4", "--samples=5"], ["--samples", "twice"]),
    "switch twice": (["--fresh", "--fresh"], ["--fresh", "twice"]),
    "switch with value": (["--hold-mask=maybe"], ["--hold-mask"]),
    "samples 0": (["--samples=0"], ["--samples", "'0'", "at least 1"]),
    "samples -1": (["--samples=-1"], ["--samples", "'-1'"]),
    "samples 1.5": (["--samples=1.5"], ["--samples", "'1.5'", "whole number"]),
    "samples 1e2": (["--samples=1e2"], ["--samples", "'1e2'"]),
    "samples word": (["--samples=many"], ["--samples", "'many'"]),
    "samples 2^64": (["--samples=18446744073709551616"], ["--samples", "whole number"]),
    "samples with space": (["--samples= 4"], ["--samples", "' 4'"]),
    "samples > file": (["--samples=9"], ["--samples 9", "8 samples", "tokens.npy"]),
    "samples 2^64-1": (["--samples=18446744073709551615"], ["--samples", "8 samples"]),
    "sequence > file": (["--sequence-length=33"], ["--sequence-length 33", "32 tokens", "tokens.npy"]),
    "sequence 0": (["--sequence-length=0"], ["--sequence-length", "at least 1"]),
    "method": (["--method=wanda+"], ["--method", "'wanda+'", "wanda++", "sparsegpt"]),
    "method in capitals": (["--method=Wanda"], ["--method", "'Wanda'"]),
    "pattern word": (["--pattern=dense"], ["--pattern", "'dense'", "N:M"]),
    "pattern 4:2": (["--pattern=4:2"], ["--pattern", "'4:2'", "N < M"]),
    "pattern 4:4": (["--pattern=4:4"], ["--pattern", "'4:4'"]),
    "pattern 0:4": (["--pattern=0:4"], ["--pattern", "'0:4'"]),
    "pattern -1:4": (["--pattern=-1:4"], ["--pattern", "'-1:4'"]),
    "pattern 2:4x": (["--pattern=2:4x"], ["--pattern", "'2:4x'"]),
    "pattern 2:": (["--pattern=2:"], ["--pattern", "'2:'"]),
    "pattern M not dividing": (["--pattern=2:5"], ["--pattern", "5", "64 inputs", "q_proj"]),
    "pattern M not dividing the widest": (["--pattern=1:64"], ["--pattern", "64", "160 inputs", "down_proj"]),
    "pattern 1:4294967296": (["--pattern=1:4294967296"], ["--pattern", "1:4294967296"]),
    "sparsity 0": (["--pattern=unstructured", "--sparsity=0"], ["--sparsity", "'0'", "above zero"]),
    "sparsity 1": (["--pattern=unstructured", "--sparsity=1"], ["--sparsity", "between 0 and 1"]),
    "sparsity 50": (["--pattern=unstructured", "--sparsity=50"], ["--sparsity", "between 0 and 1", "50"]),
    "sparsity nan": (["--pattern=unstructured", "--sparsity=nan"], ["--sparsity", "'nan'"]),
    "sparsity -0.5": (["--pattern=unstructured", "--sparsity=-0.5"], ["--sparsity", "'-0.5'"]),
    "sparsity against N:M": (["--sparsity=0.7"], ["--sparsity 0.7", "contradicts", "2:4"]),
    "alpha inf": (["--alpha=inf"], ["--alpha", "'inf'"]),
    "alpha 1e999": (["--alpha=1e999"], ["--alpha", "'1e999'"]),
    "alpha 1e300": (["--alpha=1e300"], ["--alpha", "1e300", "float32"]),
    "learning rate 1e300": (["--ro-learning-rate=1e300"], ["--ro-learning-rate", "1e300", "float32"]),
    "learning rate 1e-300": (["--ro-learning-rate=1e-300"], ["--ro-learning-rate", "1e-300", "float32"]),
    "one sample and a searched rate": (["--samples=1", "--ro-samples=1", "--ro-learning-rate=auto"],
                                       ["--ro-learning-rate", "at least 2"]),
    "alpha -1": (["--alpha=-1"], ["--alpha", "'-1'", "at least zero"]),
    "ro-rounds 0": (["--ro-rounds=0"], ["--ro-rounds", "at least 1"]),
    "ro-samples > samples": (["--samples=4", "--ro-samples=5"], ["--ro-samples 5", "4"]),
    "ro-batch > ro-samples": (["--ro-samples=4", "--ro-batch=5"], ["--ro-batch 5", "4"]),
    "learning rate 0": (["--ro-learning-rate=0"], ["--ro-learning-rate", "above zero"]),
    "learning rate word": (["--ro-learning-rate=automatic"], ["--ro-learning-rate", "'automatic'"]),
    "learning rate scaling": (["--ro-lr-scaling=cubic"], ["--ro-lr-scaling", "'cubic'", "sqrt"]),
    "input-norm": (["--input-norm=max"], ["--input-norm", "'max'", "sum"]),
    "seed": (["--seed=-1"], ["--seed", "'-1'"]),
    "only-blocks out of range": (["--only-blocks=0-2"], ["--only-blocks", "'0-2'", "2"]),
    "only-blocks backwards": (["--only-blocks=1-0"], ["--only-blocks", "'1-0'"]),
    "only-blocks one number": (["--only-blocks=1"], ["--only-blocks", "'1'"]),
    "only-blocks negative": (["--only-blocks=-1-1"], ["--only-blocks", "'-1-1'"]),
    "only-blocks 2^64": (["--only-blocks=0-18446744073709551616"], ["--only-blocks"]),
    "block-groups > blocks": (["--block-groups=3"], ["--block-groups", "2", "3"]),
    "block-groups 0": (["--block-groups=0"], ["--block-groups", "at least 1"]),
    "shards > samples": (["--samples=4", "--shards=5"], ["--shards", "4", "5"]),
    "output-dtype": (["--output-dtype=int8"], ["int8"]),
    "device cuda": (["--device=cuda"], ["--device", "cuda", "cpu"]),
    "device word": (["--device=tpu"], ["--device", "'tpu'", "auto, cpu, cuda"]),
    "threads 0": (["--threads=0"], ["--threads", "at least 1"]),
    "fresh and resume": (["--fresh", "--resume"], ["--fresh", "--resume"]),
    "config file missing": (["--config=none.cfg"], ["--config", "none.cfg"]),
    "config file is a folder": (["--config=model"], ["--config", "model"]),
}


@pytest.mark.parametrize("name", COMMAND_LINES)
def test_command_line(world: World, name: str) -> None:
    more, words = COMMAND_LINES[name]
    world.refused(world.prune(*more), *words)


@pytest.mark.parametrize("missing", ["model", "calibration", "output"])
def test_required_option(world: World, missing: str) -> None:
    arguments = [word for word in world.prune() if not str(word).startswith(f"--{missing}=")]
    world.refused(arguments, f"--{missing}", "missing")


@pytest.mark.parametrize("name", ["model", "calibration", "output"])
def test_empty_path(world: World, name: str) -> None:
    """An empty --output must not mean the current folder."""
    others = [word for word in world.prune("--method=wanda") if not str(word).startswith(f"--{name}=")]
    world.refused([*others, f"--{name}", ""], f"--{name}")


def test_no_command(world: World) -> None:
    done = start([], world.folder)
    assert done.returncode == 2 and "usage: espalier COMMAND" in done.stderr


@pytest.mark.parametrize("command", ["prun", "--model", "PRUNE", ""])
def test_unknown_command(world: World, command: str) -> None:
    world.refused([command, "--model=model"], f"'{command}'", "--help")


CONFIG_FILES = {
    "unknown key": ("sampels = 4\n", ["sampels"]),
    "wrong number": ("samples = many\n", ["--samples", "'many'", "config file"]),
    "no equal sign": ("samples 4\n", ["samples 4"]),
    "section": ("[prune]\nsamples = 4\n", ["prune.samples"]),
    "twice": ("samples = 4\nsamples = 5\n", ["samples", "twice"]),
    "switch": ("hold-mask = perhaps\n", ["--hold-mask", "'perhaps'", "true or false"]),
}


@pytest.mark.parametrize("name", CONFIG_FILES)
def test_config_file(world: World, name: str) -> None:
    text, words = CONFIG_FILES[name]
    (world.folder / "options.cfg").write_text(text)
    world.refused(world.prune("--config=options.cfg"), *words)


def test_environment(world: World) -> None:
    world.refused(world.prune(), "--samples", "'few'", "environment", ESPALIER_SAMPLES="few")
