"""Bad inputs through the real program: exit status 2, one sentence that names the culprit, nothing left behind.

The program is $ESPALIER, by default build/release/espalier. Every run is bounded in time, and in memory by ulimit -v.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import h5py
import numpy
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "oracle"))

from random_model import ModelRequest, make_model, random_tokens, write_tokens  # noqa: E402
from safetensors_file import StoredTensor, read_safetensors, write_safetensors  # noqa: E402

ROWS, LENGTH, VOCABULARY = 8, 32, 256
MEMORY_LIMIT = 4 << 30
SECONDS = 10
MPIRUN = shutil.which("mpirun")


def find_program() -> Path:
    return Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()


PROGRAM = find_program()
assert PROGRAM.exists(), f"{PROGRAM} is not built"


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def environment(**extra: str) -> Dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("ESPALIER_")}
    return {**own, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **extra}


def start(arguments: Sequence[object], cwd: Path, **extra: str) -> "subprocess.CompletedProcess[str]":
    command = [str(PROGRAM), *(str(argument) for argument in arguments)]
    try:
        return subprocess.run(
            command, cwd=cwd, env=environment(**extra), capture_output=True, text=True, errors="replace",
            timeout=SECONDS, preexec_fn=limit_memory,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.fail(f"{' '.join(command)}: no end after {SECONDS} s", pytrace=False)


def sentence_of(done: "subprocess.CompletedProcess[str]", words: Sequence[str], alone: bool) -> str:
    """Checks status and sentence; `alone`: nothing but the sentence stands on stderr."""
    told = f"status {done.returncode}\nstdout: {done.stdout[:2000]}\nstderr: {done.stderr[:4000]}"
    assert done.returncode == 2, told
    sentences = [line for line in done.stderr.splitlines() if line.startswith("espalier: ")]
    assert len(sentences) == 1, told
    if alone:
        assert done.stderr == sentences[0] + "\n", told
    assert len(sentences[0]) < 1000, "a sentence for a person, not " + str(len(sentences[0])) + " characters"
    for word in words:
        assert word in sentences[0], f"'{word}' is not in: {sentences[0]}"
    return sentences[0]


def content_of(folder: Path) -> Dict[str, bytes]:
    """Every file below `folder` with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@dataclass
class World:
    """A folder with a good model, good tokens and (shared, read-only) a complete run of `wanda`."""

    folder: Path
    run: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.npy"

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def prune(self, *more: object, **changed: object) -> List[object]:
        options: Dict[str, object] = {"model": self.model, "calibration": self.tokens, "output": self.output}
        options.update(changed)
        return ["prune", *(f"--{name}={value}" for name, value in options.items()), *more]

    def refused(self, arguments: Sequence[object], *words: str, alone: bool = True, **extra: str) -> str:
        """The program refuses and leaves the folder as it was."""
        before = content_of(self.folder)
        sentence = sentence_of(start(arguments, self.folder, **extra), words, alone)
        assert content_of(self.folder) == before, "files were changed, added or removed"
        assert not self.output.exists() or any(name.startswith("out") for name in before), "an output folder was made"
        return sentence

    def own_run(self) -> Path:
        """A copy of the complete run at --output."""
        shutil.copytree(self.run, self.output)
        return self.output


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The good model, tokens and run, made once."""
    folder = tmp_path_factory.mktemp("shared")
    make_model(folder / "model", ModelRequest("llama1"))
    write_tokens(folder / "tokens.npy", random_tokens(ROWS, LENGTH, VOCABULARY))
    command = ["prune", "--model=model", "--calibration=tokens.npy", "--output=run", "--method=wanda"]
    done = start(command, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def world(shared: Path, tmp_path: Path) -> World:
    shutil.copytree(shared / "model", tmp_path / "model")
    shutil.copy(shared / "tokens.npy", tmp_path / "tokens.npy")
    return World(tmp_path, shared / "run")


# ---- the command line ------------------------------------------------------------------------------------------------

COMMAND_LINES: Dict[str, tuple] = {
    "unknown option": (["--sampels=4"], ["--sampels"]),
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


# ---- config.json -----------------------------------------------------------------------------------------------------

ABSENT = object()
LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """Fields of config.json that are changed, and words of the refusal."""

    fields: Mapping[str, Any]
    words: Sequence[str]
    family: str = "llama1"


EDITS: Dict[str, Edit] = {
    "model_type gemma": Edit({"model_type": "gemma2"}, ["model_type", "gemma2", "llama, mistral, qwen2"]),
    "model_type absent": Edit({"model_type": ABSENT}, ["model_type", "missing"]),
    "model_type number": Edit({"model_type": 3}, ["model_type", "string"]),
    "model_type qwen2 of a llama": Edit({"model_type": "qwen2"}, ["q_proj.bias", "missing", "config.json"]),
    "model_type qwen3 without head_dim": Edit({"model_type": "qwen3"}, ["q_norm", "missing"]),
    "model_type qwen3 of a llama": Edit({"model_type": "qwen3", "head_dim": 16}, ["q_norm", "missing"]),
    "model_type llama of a qwen3": Edit({"model_type": "llama"}, ["k_norm"], "qwen3"),
    "model_type llama of a qwen2": Edit({"model_type": "llama"}, ["k_proj.bias"], "qwen2"),
    "quantised": Edit({"quantization_config": {"bits": 4}}, ["quantization_config", "original model"]),
    "heads 3": Edit({"num_attention_heads": 3, "num_key_value_heads": 3}, ["num_attention_heads", "64"]),
    "heads 0": Edit({"num_attention_heads": 0}, ["num_attention_heads", "positive integer"]),
    "heads -4": Edit({"num_attention_heads": -4}, ["num_attention_heads", "-4"]),
    "heads text": Edit({"num_attention_heads": "4"}, ["num_attention_heads", '"4"']),
    "heads 4.0": Edit({"num_attention_heads": 4.0}, ["num_attention_heads", "4.0"]),
    "heads absent": Edit({"num_attention_heads": ABSENT}, ["num_attention_heads", "missing"]),
    "heads 8 of 4": Edit({"num_attention_heads": 8}, ["k_proj", "[64, 64]", "[32, 64]"]),
    "kv heads 3": Edit({"num_key_value_heads": 3}, ["num_key_value_heads", "3", "divisor", "4"]),
    "kv heads 8": Edit({"num_key_value_heads": 8}, ["num_key_value_heads", "8", "divisor"]),
    "kv heads 2 of 4": Edit({"num_key_value_heads": 2}, ["k_proj", "[64, 64]", "[32, 64]"]),
    "kv heads absent in mistral": Edit({"num_key_value_heads": ABSENT}, ["num_key_value_heads", "Mistral"], "mistral"),
    "kv heads absent with GQA": Edit({"num_key_value_heads": ABSENT}, ["k_proj"], "llama3"),
    "head_dim 8 of 16": Edit({"head_dim": 8}, ["q_proj", "[64, 64]", "[32, 64]"]),
    "head_dim 15": Edit({"head_dim": 15}, ["head_dim", "15", "even"]),
    "head_dim 2^31": Edit({"head_dim": 2**31}, ["q_proj", "config.json"]),
    "hidden 32": Edit({"hidden_size": 32, "head_dim": 16}, ["q_proj", "[64, 64]", "[64, 32]"]),
    "hidden 2^32": Edit({"hidden_size": 2**32}, ["hidden_size", "positive integer"]),
    "intermediate 161": Edit({"intermediate_size": 161}, ["gate_proj", "[160, 64]", "[161, 64]"]),
    "vocab 255": Edit({"vocab_size": 255}, ["embed_tokens", "[256, 64]", "[255, 64]"]),
    "blocks 1 of 2": Edit({"num_hidden_layers": 1}, ["layers.1.", "1 blocks"]),
    "blocks 3 of 2": Edit({"num_hidden_layers": 3}, ["layers.2.", "missing"]),
    "blocks 0": Edit({"num_hidden_layers": 0}, ["num_hidden_layers"]),
    "blocks 2^31": Edit({"num_hidden_layers": 2**31}, ["layers.2.", "missing"]),
    "hidden_act": Edit({"hidden_act": "gelu"}, ["hidden_act", "gelu", "silu"]),
    "epsilon 0": Edit({"rms_norm_eps": 0}, ["rms_norm_eps", "positive number"]),
    "epsilon text": Edit({"rms_norm_eps": "1e-5"}, ["rms_norm_eps", "positive number"]),
    "epsilon absent": Edit({"rms_norm_eps": ABSENT}, ["rms_norm_eps", "missing"]),
    "epsilon too small for float32": Edit({"rms_norm_eps": 1e-60}, ["rms_norm_eps"]),
    "epsilon too large for float32": Edit({"rms_norm_eps": 1e60}, ["rms_norm_eps"]),
    "rope theta 0": Edit({"rope_theta": 0}, ["rope_theta", "positive number"]),
    "rope list": Edit({"rope_scaling": [1]}, ["rope_scaling", "object"]),
    "rope longrope": Edit({"rope_scaling": {"type": "longrope"}}, ["longrope", "rope_scaling"]),
    "rope unknown, transformers 5": Edit({"rope_parameters": {"rope_type": "x"}}, ["'x'", "rope_parameters"]),
    "rope linear without factor": Edit({"rope_scaling": {"type": "linear"}}, ["factor", "rope_scaling"]),
    "rope llama3 turned": Edit({"rope_scaling": {**LLAMA3_ROPE, "high_freq_factor": 0.5}}, ["high_freq_factor"]),
    "rope llama3 without original": Edit(
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4}},
        ["original_max_position_embeddings"],
    ),
    "sequence > positions": Edit({"max_position_embeddings": 16}, ["32", "max_position_embeddings", "16"]),
    "sequence > window": Edit({"sliding_window": 16}, ["32", "sliding window", "16"], "mistral"),
    "window text": Edit({"sliding_window": "wide"}, ["sliding_window", "wide"], "mistral"),
    "bias text": Edit({"attention_bias": "yes"}, ["attention_bias", "true or false"]),
    "attention bias without tensors": Edit({"attention_bias": True}, ["q_proj.bias", "missing", "config.json"]),
    "mlp bias without tensors": Edit({"mlp_bias": True}, ["gate_proj.bias", "missing", "config.json"]),
    "attention bias denied": Edit({"attention_bias": False}, ["k_proj.bias", "config.json"], "llama-bias"),
    "mlp bias denied": Edit({"mlp_bias": False}, ["down_proj.bias", "config.json"], "llama-bias"),
    "untied without head": Edit({"tie_word_embeddings": False}, ["lm_head.weight", "missing"], "llama3"),
}


def write_config(folder: Path, fields: Mapping[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    for name, value in fields.items():
        config.pop(name, None)
        if value is not ABSENT:
            config[name] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", EDITS)
def test_config_edit(world: World, name: str) -> None:
    edit = EDITS[name]
    if edit.family != "llama1":
        shutil.rmtree(world.model)
        make_model(world.model, ModelRequest(edit.family))
    write_config(world.model, edit.fields)
    world.refused(world.prune("--method=wanda"), *edit.words)


CONFIG_TEXTS = {
    "empty": ("", ["config.json", "JSON"]),
    "not JSON": ("model_type: llama\n", ["config.json", "JSON"]),
    "an array": ("[]", ["config.json", "object"]),
    "key twice": ('{"model_type": "llama", "model_type": "qwen2"}', ["config.json", "model_type", "twice"]),
    "deep": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", ["config.json", "deeper"]),
    "number too large": ('{"model_type": "llama", "rope_theta": 1e999}', ["config.json", "JSON"]),
    "trailing text": ('{"model_type": "llama"} x', ["config.json", "JSON"]),
    "20 MB": ('{"a": "' + "x" * 20_000_000 + '"}', ["config.json", "bytes"]),
    "unterminated megabyte": ('{"a": "' + "x" * 1_000_000, ["config.json", "JSON"]),
}


@pytest.mark.parametrize("name", CONFIG_TEXTS)
def test_config_text(world: World, name: str) -> None:
    text, words = CONFIG_TEXTS[name]
    (world.model / "config.json").write_text(text)
    world.refused(world.prune(), *words)


# ---- model folders ---------------------------------------------------------------------------------------------------


def remove_all(folder: Path) -> None:
    shutil.rmtree(folder)


def keep_config_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def becomes_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


def link_loop(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("model.safetensors")


def folder_loop(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder)


def dangling(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("blobs/0123")


def weights_folder(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def config_folder(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()


def config_fifo(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def truncated_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1000])


def longer_weights(folder: Path) -> None:
    with open(folder / "model.safetensors", "ab") as file:
        file.write(b"x")


FOLDERS: Dict[str, tuple] = {
    "missing": (remove_all, ["model", "does not exist"]),
    "a file": (becomes_file, ["model", "not a folder"]),
    "a link to itself": (folder_loop, ["model", "symbolic links"]),
    "config.json only": (keep_config_only, ["neither", "model.safetensors"]),
    "pickled": (pickled, ["pytorch_model.bin", "safetensors"]),
    "LoRA adapter": (adapter, ["adapter_config.json"]),
    "git-lfs pointer": (pointer, ["model.safetensors", "git-lfs", "git lfs pull"]),
    "weights link to themselves": (link_loop, ["model.safetensors", "symbolic links"]),
    "weights link to nothing": (dangling, ["model.safetensors"]),
    "weights are a folder": (weights_folder, ["model.safetensors", "not a regular file"]),
    "config.json is a folder": (config_folder, ["config.json", "not a regular file"]),
    "config.json is a pipe": (config_fifo, ["config.json", "not a regular file"]),
    "weights empty": (empty_weights, ["model.safetensors", "0 bytes"]),
    "weights truncated": (truncated_weights, ["model.safetensors", "truncated"]),
    "weights longer": (longer_weights, ["model.safetensors", "1 bytes after"]),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_model_folder(world: World, name: str) -> None:
    change, words = FOLDERS[name]
    change(world.model)
    fifo = world.model / "config.json"
    if fifo.is_fifo():  # content_of cannot read it
        sentence_of(start(world.prune(), world.folder), words, True)
        return
    world.refused(world.prune(), *words)


def test_path_too_long(world: World) -> None:
    world.refused(world.prune(model=world.folder / ("x" * 300)), "xxx", "too long")


def entry(dtype: str, shape: List[int], begin: int, end: int) -> Dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def header_file(header: Any, data: bytes = b"") -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode("latin-1")
    return struct.pack("<Q", len(text)) + text + data


HEADERS: Dict[str, tuple] = {
    "three bytes": (b"abc", ["3 bytes"]),
    "length beyond the file": (struct.pack("<Q", 1000) + b"{}", ["1000", "10"]),
    "length above the limit": (struct.pack("<Q", 100_000_001) + b"{}", ["100000001", "limit"]),
    "length 2^64-1": (struct.pack("<Q", 2**64 - 1) + b"{}", ["18446744073709551615"]),
    "an array": (header_file("[]"), ["object"]),
    "not JSON": (header_file("{a}"), ["JSON"]),
    "not UTF-8": (header_file('{"\xff": 1}'), ["JSON"]),
    "name twice": (header_file('{"a":{},"a":{}}'), ['"a"', "twice"]),
    "entry without dtype": (header_file({"a": {"shape": [], "data_offsets": [0, 0]}}), ["'a'", "'dtype'"]),
    "unknown dtype": (header_file({"a": entry("F128", [1], 0, 16)}, bytes(16)), ["'a'", "F128"]),
    "negative dimension": (header_file({"a": entry("U8", [-1], 0, 1)}, b"x"), ["'a'", "non-negative"]),
    "float offset": (header_file('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1.0]}}', b"x"), ["'a'", "offsets"]),
    "three offsets": (header_file('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}', b"x"), ["'a'", "begin"]),
    "offsets backwards": (header_file({"a": entry("U8", [1], 1, 0)}, b"x"), ["'a'", "end before"]),
    "shape overflows": (header_file({"a": entry("U8", [2**33, 2**33], 0, 0)}), ["'a'", "overflows"]),
    "size overflows": (header_file({"a": entry("F64", [2**60], 0, 0)}), ["'a'", "overflows"]),
    "size does not match": (header_file({"a": entry("F32", [3], 0, 8)}, bytes(8)), ["'a'", "8 bytes", "12"]),
    "hole": (header_file({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, bytes(3)), ["'b'", "hole"]),
    "first not at 0": (header_file({"a": entry("U8", [1], 1, 2)}, bytes(2)), ["'a'", "hole"]),
    "overlap": (header_file({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, bytes(3)), ["'b'", "overlap"]),
    "beyond the end": (header_file({"a": entry("U8", [2**40], 0, 2**40)}, b"x"), ["'a'", "holds only 1"]),
    "metadata number": (header_file({"__metadata__": {"n": 1}}), ["__metadata__", "'n'"]),
    "line break in a name": (header_file({"a\nespalier: all is well": entry("X", [1], 0, 1)}, b"x"), ["dtype 'X'"]),
    "long name": (header_file({"a" * 2_000_000: entry("X", [1], 0, 1)}, b"x"), ["dtype 'X'"]),
}


@pytest.mark.parametrize("name", HEADERS)
def test_safetensors_header(world: World, name: str) -> None:
    content, words = HEADERS[name]
    (world.model / "model.safetensors").write_bytes(content)
    world.refused(world.prune(), "model.safetensors", *words)


@pytest.mark.parametrize("kind", ["empty tensors", "overlapping tensors", "numbers", "objects"])
def test_large_header(world: World, kind: str) -> None:
    """Many entries: bounded in time and memory."""
    if kind == "empty tensors":
        text = "{" + ",".join(f'"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(200_000)) + "}"
        words = ["q_proj.weight", "missing"]
    elif kind == "overlapping tensors":
        text = "{" + ",".join(f'"{i}":{{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}' for i in range(100_000)) + "}"
        words = ["overlap"]
    elif kind == "numbers":
        text, words = '{"a":[' + "0," * 7_000_000 + "0]}", ["'a'"]
    else:
        text, words = '{"a":[' + "{}," * 5_000_000 + "{}]}", ["'a'"]
    (world.model / "model.safetensors").write_bytes(header_file(text, bytes(8) if "overlap" in kind else b""))
    began = time.monotonic()
    world.refused(world.prune(), *words)
    assert time.monotonic() - began < 10


INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def map_to(value: Any) -> Callable[[Dict[str, Any]], None]:
    return lambda index: index["weight_map"].update({"model.norm.weight": value})


def forget(index: Dict[str, Any]) -> None:
    del index["weight_map"]["model.norm.weight"]


INDEXES: Dict[str, tuple] = {
    "path traversal": (map_to("../model.safetensors"), ["'../model.safetensors'", "plain file name"]),
    "absolute path": (map_to("/etc/passwd"), ["'/etc/passwd'", "plain file name"]),
    "dot dot": (map_to(".."), ["'..'", "plain file name"]),
    "missing shard": (map_to("model-00003-of-00002.safetensors"), ["model-00003-of-00002", "not in the folder"]),
    "wrong shard": (map_to(FIRST), ["model.norm.weight", FIRST]),
    "config as shard": (map_to("config.json"), ["config.json"]),
    "name too long": (map_to("x" * 300), ["xxx"]),
    "number": (map_to(1), ["model.norm.weight", "string"]),
    "line break": (map_to("a\nb"), ["not in the folder"]),
    "unmapped tensor": (forget, ["model.norm.weight", "weight_map"]),
    "unknown tensor": (lambda index: index["weight_map"].update(extra=FIRST), ["'extra'", FIRST]),
    "no weight_map": (lambda index: index.pop("weight_map"), ["weight_map"]),
    "empty weight_map": (lambda index: index.update(weight_map={}), ["weight_map", "empty"]),
    "weight_map a list": (lambda index: index.update(weight_map=[]), ["weight_map"]),
}


def make_sharded(folder: Path) -> None:
    shutil.rmtree(folder)
    make_model(folder, ModelRequest("llama1", shards=2))


@pytest.mark.parametrize("name", INDEXES)
def test_index(world: World, name: str) -> None:
    change, words = INDEXES[name]
    make_sharded(world.model)
    index = json.loads((world.model / INDEX).read_text())
    change(index)
    (world.model / INDEX).write_text(json.dumps(index))
    world.refused(world.prune(), *words)


def test_tensor_in_two_shards(world: World) -> None:
    make_sharded(world.model)
    first, second = (read_safetensors(world.model / name) for name in (FIRST, SECOND))
    second["model.embed_tokens.weight"] = first["model.embed_tokens.weight"]
    write_safetensors(world.model / SECOND, second)
    world.refused(world.prune(), "model.embed_tokens.weight", FIRST, SECOND)


Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


def edited(name: str, **changes: Any) -> Callable[[Dict[str, StoredTensor]], None]:
    def edit(tensors: Dict[str, StoredTensor]) -> None:
        old = tensors[name]
        values = {"dtype": old.dtype, "shape": old.shape, "data": old.data, **changes}
        tensors[name] = StoredTensor(**values)

    return edit


def as_dtype(name: str, dtype: str) -> Callable[[Dict[str, StoredTensor]], None]:
    def edit(tensors: Dict[str, StoredTensor]) -> None:
        tensors[name] = StoredTensor.encode(tensors[name].decode(), dtype)

    return edit


def raw_write(path: Path, tensors: Dict[str, StoredTensor]) -> None:
    """Like write_safetensors, for any dtype word."""
    header: Dict[str, Any] = {}
    position = 0
    for name, tensor in tensors.items():
        header[name] = entry(tensor.dtype, list(tensor.shape), position, position + len(tensor.data))
        position += len(tensor.data)
    path.write_bytes(header_file(header, b"".join(tensor.data for tensor in tensors.values())))


TENSORS: Dict[str, tuple] = {
    "missing matrix": (lambda tensors: tensors.pop(Q_PROJ), [Q_PROJ, "missing"]),
    "missing norm": (lambda tensors: tensors.pop("model.norm.weight"), ["model.norm.weight", "missing"]),
    "missing embedding": (lambda tensors: tensors.pop("model.embed_tokens.weight"), ["embed_tokens", "missing"]),
    "extra tensor": (edited("model.norm.weight"), ["model.extra", "llama"]),
    "extra block": (edited("model.norm.weight"), ["model.layers.2.mlp.up_proj.weight"]),
    "bias of a matrix": (edited("model.norm.weight"), ["q_proj.bias"]),
    "transposed": (edited("model.layers.0.mlp.up_proj.weight", shape=(64, 160)), ["up_proj", "[64, 160]", "[160, 64]"]),
    "flat": (edited(Q_PROJ, shape=(4096,)), [Q_PROJ, "[4096]", "[64, 64]"]),
    "int32": (edited(Q_PROJ, dtype="I32"), [Q_PROJ, "I32", "BF16"]),
    "int8": (edited(Q_PROJ, dtype="I8", data=bytes(4096)), [Q_PROJ, "I8"]),
    "float8": (edited(Q_PROJ, dtype="F8_E4M3", data=bytes(4096)), [Q_PROJ, "F8_E4M3"]),
    "float64": (edited(Q_PROJ, dtype="F64", data=bytes(4096 * 8)), [Q_PROJ, "F64"]),
    "int embedding": (edited("model.embed_tokens.weight", dtype="U32"), ["embed_tokens", "U32"]),
    "int head": (edited("lm_head.weight", dtype="U32"), ["lm_head.weight", "U32"]),
    "mixed matrices": (as_dtype(Q_PROJ, "F16"), [Q_PROJ, "float16", "float32"]),
    "mixed norms": (as_dtype("model.layers.1.input_layernorm.weight", "BF16"), ["layers.1.input_layernorm", "block 0"]),
}
ADDED = {"extra tensor": "model.extra", "extra block": "model.layers.2.mlp.up_proj.weight",
         "bias of a matrix": "model.layers.0.self_attn.q_proj.bias"}  # fmt: skip


@pytest.mark.parametrize("name", TENSORS)
def test_tensors(world: World, name: str) -> None:
    change, words = TENSORS[name]
    tensors = read_safetensors(world.model / "model.safetensors")
    change(tensors)
    if name in ADDED:
        tensors[ADDED[name]] = StoredTensor("F32", (64,), bytes(256))
    raw_write(world.model / "model.safetensors", tensors)
    world.refused(world.prune(), *words)


@pytest.mark.parametrize("command", ["prune", "evaluate"])
@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.layers.0.input_layernorm.weight", "model.embed_tokens.weight"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_not_finite(world: World, command: str, name: str, value: float) -> None:
    """Found when the block is loaded: the run has begun, so only the sentence is looked at."""
    tensors = read_safetensors(world.model / "model.safetensors")
    values = tensors[name].decode()
    values.reshape(-1)[11 * 64 % values.size] = value  # token 11 is the most frequent one
    tensors[name] = StoredTensor.encode(values, "F32")
    write_safetensors(world.model / "model.safetensors", tensors)
    arguments = world.prune("--method=wanda")
    if command == "evaluate":
        arguments = ["evaluate", "--model=model", "--tokens=tokens.npy", "--sequence-length=16"]
    sentence = sentence_of(start(arguments, world.folder), ["not a number" if "embed" not in name else ""], False)
    if "embed" not in name:
        assert name in sentence


# ---- token files -----------------------------------------------------------------------------------------------------


def good_ids() -> numpy.ndarray:
    return random_tokens(ROWS, LENGTH, VOCABULARY).astype("int32")


def with_id(value: int, dtype: str = "int64") -> numpy.ndarray:
    ids = good_ids().astype(dtype)
    ids[2, 5] = value
    return ids


def save_npy(array: numpy.ndarray) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        with open(path, "wb") as file:
            numpy.save(file, array)

    return save


def save_hdf5(name: str = "input_ids", **options: Any) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset(name, **options)

    return save


def cut(save: Callable[[Path], None], keep: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def save_cut(path: Path) -> None:
        save(path)
        path.write_bytes(keep(path.read_bytes()))

    return save_cut


def hdf5_group(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("input_ids")


def raw(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content)


def npy_header(text: str, data: bytes = b"", length: Optional[int] = None, version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + data


def damaged_chunk(path: Path) -> None:
    save_hdf5(data=good_ids(), chunks=(4, LENGTH), fletcher32=True)(path)
    content = bytearray(path.read_bytes())
    place = content.find(good_ids()[0].tobytes())
    content[place + 8] ^= 1
    path.write_bytes(bytes(content))


TOKENS: Dict[str, tuple] = {
    "id = vocabulary, npy": (save_npy(with_id(256)), ["256", "[2, 5]", "vocabulary of 256"]),
    "id negative, npy": (save_npy(with_id(-1)), ["-1", "[2, 5]"]),
    "id 2^63, npy": (save_npy(with_id(2**63, "uint64")), ["[2, 5]", "vocabulary"]),
    "id 2^32 + 1, npy": (save_npy(with_id(2**32 + 1)), ["4294967297", "[2, 5]"]),
    "id = vocabulary, HDF5": (save_hdf5(data=with_id(256)), ["256", "[2, 5]", "vocabulary of 256"]),
    "id negative, HDF5": (save_hdf5(data=with_id(-7)), ["-7", "[2, 5]"]),
    "id 2^64-1, HDF5": (save_hdf5(data=with_id(2**64 - 1, "uint64")), ["[2, 5]", "vocabulary"]),
    "no rows, npy": (save_npy(numpy.zeros((0, 32), "int32")), ["no token ids"]),
    "no rows, HDF5": (save_hdf5(data=numpy.zeros((0, 32), "int32")), ["no token ids"]),
    "no columns": (save_npy(numpy.zeros((8, 0), "int32")), ["no token ids"]),
    "three dimensions, npy": (save_npy(numpy.zeros((2, 3, 4), "int32")), ["3 dimensions"]),
    "three dimensions, HDF5": (save_hdf5(data=numpy.zeros((2, 3, 4), "int32")), ["3 dimensions"]),
    "scalar, npy": (save_npy(numpy.array(1)), ["0 dimensions"]),
    "scalar, HDF5": (save_hdf5(data=1), ["0 dimensions"]),
    "float, npy": (save_npy(good_ids().astype("float32")), ["'<f4'", "integer"]),
    "float, HDF5": (save_hdf5(data=good_ids().astype("float32")), ["input_ids", "integers"]),
    "bool": (save_npy(good_ids() > 0), ["'|b1'", "integer"]),
    "text": (save_npy(numpy.array([["a"]])), ["'<U1'", "integer"]),
    "strings, HDF5": (save_hdf5(data=numpy.array([b"ab"])), ["input_ids", "integers"]),
    "objects": (raw(npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", bytes(8))), ["'|O'"]),
    "big-endian": (save_npy(good_ids().astype(">i4")), ["'>i4'", "little-endian"]),
    "Fortran order": (save_npy(numpy.asfortranarray(good_ids())), ["Fortran order"]),
    "npy cut": (cut(save_npy(good_ids()), lambda content: content[:-1]), ["1024 bytes", "1023"]),
    "npy longer": (cut(save_npy(good_ids()), lambda content: content + b"x"), ["1024 bytes", "1025"]),
    "npy header cut": (cut(save_npy(good_ids()), lambda content: content[:40]), ["header"]),
    "npy of 7 bytes": (cut(save_npy(good_ids()), lambda content: content[:7]), ["7 bytes"]),
    "npy version 9": (raw(b"\x93NUMPY\x09\x00" + bytes(20)), ["version 9"]),
    "npy shape overflows": (
        raw(npy_header("{'descr': '<i8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }")),
        ["overflows"],
    ),
    "npy terabytes": (
        raw(npy_header("{'descr': '<i8', 'fortran_order': False, 'shape': (1000000, 1000000), }")),
        ["8000000000000 bytes"],
    ),
    "npy header length 2^32-1": (raw(npy_header("{}", length=2**32 - 1, version=2)), ["header"]),
    "npy code in the header": (
        raw(npy_header("{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,)}", bytes(4))),
        ["header"],
    ),
    "npz": (lambda path: numpy.savez(open(path, "wb"), ids=good_ids()), ["HDF5", ".npy"]),
    "neither": (raw(b"1 2 3 4 5 6 7 8\n"), ["HDF5", ".npy"]),
    "empty": (raw(b""), ["0 bytes"]),
    "HDF5 magic only": (raw(b"\x89HDF\r\n\x1a\n" + bytes(100)), ["HDF5"]),
    "HDF5 cut": (cut(save_hdf5(data=good_ids()), lambda content: content[: len(content) // 2]), ["HDF5"]),
    "HDF5 without the dataset": (save_hdf5("tokens", data=good_ids()), ["/input_ids", "missing"]),
    "HDF5 group": (hdf5_group, ["/input_ids"]),
    "HDF5 chunk damaged": (damaged_chunk, ["/input_ids", "damaged"]),
    "HDF5 terabytes": (save_hdf5(shape=(2**20, 2**20), dtype="int32", chunks=(1, 1024)), ["token ids"]),
    "HDF5 of 2^32 ids in 1 kB": (save_hdf5(shape=(2**16, 2**16), dtype="int32", chunks=(1, 1024)), ["input_ids"]),
}


@pytest.mark.parametrize("name", TOKENS)
def test_token_file(world: World, name: str) -> None:
    save, words = TOKENS[name]
    world.tokens.unlink()
    save(world.tokens)
    world.refused(world.prune(), "tokens.npy", *words)


@pytest.mark.parametrize("place", [879, 912, *range(8, 1400, 61)])
def test_hdf5_token_file_with_one_wrong_byte(world: World, place: int) -> None:
    """Whatever the byte is for, the program ends by itself: here at the latest by refusing the device."""
    save_hdf5(data=numpy.arange(64).reshape(8, 8).astype("int32"))(world.folder / "ids.h5")
    content = bytearray((world.folder / "ids.h5").read_bytes())
    content[place] = 1 if place == 912 else 255  # 879 makes the shape large, 912 the storage another kind
    (world.folder / "ids.h5").write_bytes(bytes(content))
    world.refused(world.prune("--device=tpu", calibration=world.folder / "ids.h5"), "")


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "link to itself"])
def test_token_path(world: World, kind: str) -> None:
    world.tokens.unlink()
    words = ["tokens.npy", "not a regular file"]
    if kind == "missing":
        words = ["tokens.npy", "No such file"]
    elif kind == "folder":
        world.tokens.mkdir()
    elif kind == "pipe":
        os.mkfifo(world.tokens)
    else:
        world.tokens.symlink_to(world.tokens)
        words = ["tokens.npy", "symbolic links"]
    world.refused(world.prune(), *words)


# ---- the output folder -----------------------------------------------------------------------------------------------


def test_output_is_a_file(world: World) -> None:
    world.output.write_text("a file")
    world.refused(world.prune(), "--output", "not a folder", alone=False)


def test_output_below_a_file(world: World) -> None:
    (world.folder / "file").write_text("a file")
    world.refused(world.prune(output="file/run"), "--output", "file/run", alone=False)


def test_output_in_a_folder_without_rights(world: World) -> None:
    world.refused(world.prune(output="/proc/espalier/run"), "--output", "/proc/espalier/run", alone=False)


def test_output_name_too_long(world: World) -> None:
    world.refused(world.prune(output=world.folder / ("x" * 300)), "xxx", "too long", alone=False)


def test_output_is_a_link_to_itself(world: World) -> None:
    world.output.symlink_to(world.output)
    sentence_of(start(world.prune(), world.folder), ["out", "symbolic links"], False)


@pytest.mark.parametrize("file", ["notes.txt", "config.json", "report.html", "blocks/notes.txt", "blocks/00000.h5"])
@pytest.mark.parametrize("fresh", [False, True])
def test_output_holds_something_else(world: World, file: str, fresh: bool) -> None:
    """No file that no run wrote is overwritten or removed, not even one with a name that a run uses."""
    (world.output / file).parent.mkdir(parents=True)
    (world.output / file).write_text('{"owner": "somebody else"}\n')
    world.refused(world.prune(*(["--fresh"] if fresh else [])), "--output", Path(file).parts[0], alone=False)


def test_output_is_the_model(world: World) -> None:
    world.refused(world.prune("--fresh", output=world.model), "--output", "model", alone=False)


def test_output_is_the_run_that_is_pruned(world: World) -> None:
    """--fresh must not remove the model before it is read."""
    world.own_run()
    world.refused(world.prune("--fresh", model=world.output), "--output", "--model", alone=False)


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
    world.refused(world.prune(*more), "--output", "the run has", *words, alone=False)


def test_output_of_another_model(world: World) -> None:
    world.own_run()
    write_config(world.model, {"rms_norm_eps": 1e-4})
    world.refused(world.prune("--method=wanda"), "--output", "model: the run has", alone=False)


def test_output_of_other_tokens(world: World) -> None:
    world.own_run()
    save_npy(with_id(3))(world.tokens)
    world.refused(world.prune("--method=wanda"), "--output", "calibration tokens: the run has", alone=False)


def test_output_locked_by_a_live_run(world: World) -> None:
    """A run that is stopped in the middle holds its folder; a second one names it and changes nothing."""
    command = [str(PROGRAM), *map(str, world.prune("--ro-rounds=100000", "--threads=1"))]
    first = subprocess.Popen(command, cwd=world.folder, env=environment(), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + SECONDS
        while not (world.output / "non_block.h5").exists():
            assert time.monotonic() < deadline and first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        for more in ([], ["--fresh"]):
            world.refused(world.prune("--ro-rounds=100000", *more), "another run", f"process {first.pid}", "host",
                          str(world.output), alone=False)  # fmt: skip
    finally:
        first.kill()
        first.wait()


def test_output_locked_by_somebody_without_a_name(world: World) -> None:
    world.own_run()
    (world.output / "lock").write_text('{"host": 1, "process": 2}')
    with open(world.output / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        world.refused(world.prune("--method=wanda"), "another run", "unknown", alone=False)


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
    world.refused(world.prune("--method=wanda"), "manifest.json", "", alone=False)
    world.refused(["inspect", "out"], "manifest.json")


# ---- evaluate, inspect, export ---------------------------------------------------------------------------------------


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(bytes(content))


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


# ---- several ranks ---------------------------------------------------------------------------------------------------


def spoil_tokens(world: World) -> None:
    save_npy(with_id(256))(world.tokens)


def spoil_weights(world: World) -> None:
    tensors = read_safetensors(world.model / "model.safetensors")
    values = tensors["model.layers.1.mlp.up_proj.weight"].decode()
    values[3, 4] = numpy.nan
    tensors["model.layers.1.mlp.up_proj.weight"] = StoredTensor.encode(values, "F32")
    write_safetensors(world.model / "model.safetensors", tensors)


def spoil_output(world: World) -> None:
    world.own_run()


MPI_CASES: Dict[str, tuple] = {
    "unknown option": (None, ["--sampels=4"], ["--sampels"], 0),
    "tokens out of range": (spoil_tokens, [], ["tokens.npy", "256", "[2, 5]"], 0),
    "output with other options": (spoil_output, [], ["the run has", "method"], 0),
    "weights not finite": (spoil_weights, ["--method=wanda"], ["up_proj", "not a number"], None),
}


def start_ranks(world: World, *arguments_of_rank: Sequence[object]) -> subprocess.CompletedProcess[str]:
    """One rank for each command line."""
    command = [str(MPIRUN), "--oversubscribe"]
    for arguments in arguments_of_rank:
        command += [":"] if len(command) > 2 else []
        command += ["-n", "1", str(PROGRAM), *map(str, arguments)]
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return subprocess.run(
        command, cwd=world.folder, env=environment(**allowed), capture_output=True, text=True, timeout=SECONDS
    )


@pytest.mark.skipif(MPIRUN is None, reason="mpirun is not installed")
def test_the_failing_rank_is_named(world: World) -> None:
    """All ranks end for rank 2's wrong option, and that rank says so, once."""
    good, bad = world.prune("--threads=1"), world.prune("--threads=1", "--samples=99")
    done = start_ranks(world, good, good, bad, good)
    sentences = [line for line in done.stderr.splitlines() if line.startswith("espalier: ")]
    assert done.returncode == 2, done.stderr
    assert len(sentences) == 1 and sentences[0].startswith("espalier: rank 2: ") and "--samples 99" in sentences[0], done.stderr
    assert not world.output.exists()


@pytest.mark.skipif(MPIRUN is None, reason="mpirun is not installed")
@pytest.mark.parametrize("name", MPI_CASES)
def test_two_ranks(world: World, name: str) -> None:
    """Both ranks end soon, the status is 2, and one rank says the sentence for both."""
    spoil, more, words, rank = MPI_CASES[name]
    if spoil is not None:
        spoil(world)
    arguments = world.prune("--threads=1", *more)
    done = start_ranks(world, arguments, arguments)
    sentences = [line for line in done.stderr.splitlines() if line.startswith("espalier: ")]
    assert done.returncode == 2, done.stderr
    assert len(sentences) == 1, done.stderr
    assert sentences[0].startswith("espalier: rank " if rank is None else f"espalier: rank {rank}: "), sentences[0]
    for word in words:
        assert word in sentences[0]
    assert rank is None or spoil is spoil_output or not world.output.exists()
