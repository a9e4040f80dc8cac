"""Model folders: missing and damaged files, safetensors headers, indexes, tensors."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from world import World, sentence_of, start
from random_model import ModelRequest, make_model
from safetensors_file import StoredTensor, read_safetensors, write_safetensors


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
    "pickled": (pickled, ["pytorch_model.bin", "jobs/import_pytorch.py ", "/model ", "/model-safetensors"]),
    "LoRA adapter": (adapter, ["adapter_config.json"]),
    "git-lfs pointer": (pointer, ["model.safetensors", "git-lfs", "git lfs pull"]),
    "weights link to themselves": (link_loop, ["model.safetensors", "symbolic links"]),
    "weights link to nothing": (dangling, ["model.safetensors", "blobs/0123", "download the model again"]),
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
    "unmapped tensor": (forget, ["model.norm.weight", SECOND, "weight_map", "does not name it"]),
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


def test_a_stale_copy_in_another_shard_is_one_warning(world: World) -> None:
    make_sharded(world.model)
    first, second = (read_safetensors(world.model / name) for name in (FIRST, SECOND))
    second["model.embed_tokens.weight"] = first["model.embed_tokens.weight"]
    write_safetensors(world.model / SECOND, second)
    done = start(world.prune("--method=magnitude"), world.folder)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1 and f"'model.embed_tokens.weight' in {SECOND}" in warnings[0], done.stderr


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
