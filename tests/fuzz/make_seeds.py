#!/usr/bin/python3
"""Writes small seed corpora and dictionaries for the fuzz targets: FOLDER/<target>/* and FOLDER/<target>.dict.

Good files of every kind and the known hostile ones, so that the fuzzers begin at the parsers' deep ends.
Needs NumPy and h5py.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import struct
from pathlib import Path
from typing import Any, Dict, List, Union

import h5py
import numpy

Content = Union[bytes, str]


def safetensors(header: Any, data: bytes = b"") -> bytes:
    """A file with this header (text as it is, anything else as JSON) and data."""
    text = header if isinstance(header, str) else json.dumps(header)
    return struct.pack("<Q", len(text)) + text.encode() + data


def tensor(dtype: str, shape: List[int], begin: int, end: int) -> Dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_seeds() -> Dict[str, Content]:
    return {
        "empty": safetensors({}),
        "two": safetensors({"a": tensor("F32", [2, 2], 0, 16), "b": tensor("BF16", [3], 16, 22)}, bytes(22)),
        "metadata": safetensors({"__metadata__": {"format": "pt"}, "a": tensor("F16", [1], 0, 2)}, bytes(2)),
        "scalar": safetensors({"a": tensor("I64", [], 0, 8), "z": tensor("U8", [0, 4], 8, 8)}, bytes(8)),
        "overlap": safetensors({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 2, 6)}, bytes(6)),
        "hole": safetensors({"a": tensor("U8", [1], 0, 1), "b": tensor("U8", [1], 3, 4)}, bytes(4)),
        "overflow": safetensors({"a": tensor("F64", [2**32, 2**32], 0, 0)}),
        "half-byte": safetensors({"a": tensor("F4", [3], 0, 1)}, bytes(1)),
        "twice": safetensors('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'),
        "deep": safetensors('{"a":' + "[" * 70 + "]" * 70 + "}"),
        "long": struct.pack("<Q", 99_999_999) + b"{}",
        "longest": struct.pack("<Q", 2**64 - 1) + b"{}",
    }


def index_seeds() -> Dict[str, Content]:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    good = {"metadata": {"total_size": 16}, "weight_map": {"a": shards[0], "b": shards[1]}}
    return {
        "good": json.dumps(good),
        "float": json.dumps({**good, "metadata": {"total_size": 16.0}}),
        "wrong-shard": json.dumps({"weight_map": {"a": shards[1], "b": shards[0]}}),
        "unmapped": json.dumps({"weight_map": {"a": shards[0]}}),
        "overlay": json.dumps({"weight_map": {"a": shards[1], "b": shards[1]}}),
        "missing": json.dumps({"weight_map": {"a": "model-3.safetensors"}}),
        "traversal": json.dumps({"weight_map": {"a": "../model.safetensors"}}),
        "dot": json.dumps({"weight_map": {"a": "."}}),
        "nul": json.dumps({"weight_map": {"a": "x\0y"}}),
        "config": json.dumps({"weight_map": {"a": "config.json"}}),
        "long-name": json.dumps({"weight_map": {"a": "x" * 300}}),
        "number": json.dumps({"weight_map": {"a": 1}}),
        "empty": "{}",
    }


def config_seeds() -> Dict[str, Content]:
    llama: Dict[str, Any] = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "max_position_embeddings": 256, "rope_theta": 10000.0,
    }  # fmt: skip
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 64}  # fmt: skip
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32,
            "beta_slow": 1, "attention_factor": 1.1}  # fmt: skip
    qwen = {**llama, "model_type": "qwen3", "head_dim": 32, "use_sliding_window": True, "sliding_window": 4}
    return {
        "llama": json.dumps(llama),
        "linear": json.dumps({**llama, "rope_scaling": {"type": "linear", "factor": 2}}),
        "llama3": json.dumps({**llama, "rope_scaling": llama3}),
        "yarn": json.dumps({**llama, "rope_parameters": {**yarn, "rope_theta": 1e6}}),
        "nested": json.dumps({**llama, "rope_parameters": {"full_attention": yarn, "sliding_attention": {}}}),
        "bias": json.dumps({**llama, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        "mistral": json.dumps({**llama, "model_type": "mistral", "sliding_window": 128}),
        "qwen2": json.dumps({**llama, "model_type": "qwen2", "use_sliding_window": True, "sliding_window": 4,
                             "max_window_layers": 1}),
        "qwen3": json.dumps({**qwen, "layer_types": ["full_attention", "sliding_attention"]}),
        "large": json.dumps({**llama, "hidden_size": 2**31, "head_dim": 2**31, "num_hidden_layers": 2**31}),
        "quantised": json.dumps({**llama, "quantization_config": {"bits": 4}}),
        "neutral": json.dumps({**llama, "partial_rotary_factor": 1, "no_rope_layers": [1, 1], "layer_norm_eps": 1e-5,
                               "query_pre_attn_scalar": 16, "layer_types": ["full_attention"], "num_experts": 0}),
        "not-neutral": json.dumps({**llama, "rope_parameters": {"partial_rotary_factor": 0.5}}),
        "scaled": json.dumps({**llama, "embedding_multiplier": 12.0, "logits_scaling": 8, "scale_depth": [1.4]}),
        "nulls": json.dumps({**llama, "num_key_value_heads": None, "head_dim": None, "rope_scaling": None}),
    }  # fmt: skip


def npy(array: numpy.ndarray, version: tuple = (1, 0)) -> bytes:
    stream = io.BytesIO()
    numpy.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def raw_npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def npy_seeds() -> Dict[str, Content]:
    ids = numpy.arange(6).reshape(2, 3)
    seeds: Dict[str, Content] = {
        name: npy(ids.astype(name)) for name in ("int16", "uint16", "int32", "uint32", "int64", "uint64")
    }
    seeds.update(
        {
            "version2": npy(ids, (2, 0)),
            "version3": npy(ids, (3, 0)),
            "flat": npy(ids.ravel()),
            "float": npy(ids.astype("float32")),
            "big-endian": npy(ids.astype(">i4")),
            "fortran": npy(numpy.asfortranarray(ids)),
            "overflow": raw_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }"),
            "object": raw_npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
            "twice": raw_npy("{'shape': (1,), 'shape': (1,), 'descr': '<i4', 'fortran_order': False}", bytes(4)),
            "scalar": raw_npy("{'descr': '<i4', 'fortran_order': False, 'shape': (), }", bytes(4)),
        }
    )
    return seeds


def hdf5(**datasets: Any) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w", track_order=False) as file:
        for name, options in datasets.items():
            file.create_dataset(name, **options)
    return stream.getvalue()


def token_seeds() -> Dict[str, Content]:
    ids = numpy.arange(6).reshape(2, 3)
    good = hdf5(input_ids={"data": ids.astype("int32")})
    seeds: Dict[str, Content] = {
        "int32": good,
        "chunked": hdf5(input_ids={"data": ids, "chunks": (1, 3), "fletcher32": True}),
        "compressed": hdf5(input_ids={"data": ids, "chunks": (2, 3), "compression": "gzip", "shuffle": True}),
        "float": hdf5(input_ids={"data": ids.astype("float32")}),
        "strings": hdf5(input_ids={"data": numpy.array([b"a", b"b"])}),
        "cube": hdf5(input_ids={"data": numpy.zeros((1, 2, 3), "int64")}),
        "empty": hdf5(input_ids={"data": numpy.zeros((0, 3), "int32")}),
        "outside": hdf5(input_ids={"data": numpy.array([[1000]], "int32")}),
        "other-name": hdf5(tokens={"data": ids}),
        "truncated": good[: len(good) // 2],
        "npy": npy(ids.astype("int32")),
    }
    return seeds


def token_dataset_seeds() -> Dict[str, Content]:
    """Choices for token_dataset.cpp: rank, name, (dimension, chunk) of each, type, filters, fill value, ids, damage."""
    fill = bytes(8)
    return {
        "matrix": bytes([2, 0, 2, 0, 3, 0, 0, 0]) + fill + bytes(range(6)),
        "flat": bytes([1, 0, 4, 0, 1, 0]) + fill + bytes(range(4)),
        "checksummed": bytes([2, 0, 2, 1, 3, 2, 4, 3]) + fill + bytes(range(6)) + bytes([0] * 8 + [255]),
        "compressed": bytes([2, 0, 2, 1, 3, 2, 1, 7]) + fill + bytes(range(6)) + bytes([0] * 8 + [255]),
        "filled": bytes([1, 0, 5, 0, 1, 9]) + b"\xff" * 8,
        "terabytes": bytes([2, 0, 255, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0]) + fill,
        "scalar": bytes([0, 0, 0, 0]) + fill,
        "null": bytes([130, 0, 0, 0]) + fill,
        "other": bytes([2, 245, 2, 0, 3, 0, 0, 0]) + fill,
        "float": bytes([2, 0, 2, 0, 3, 0, 9, 0]) + fill,
    }


def request_seeds() -> Dict[str, Content]:
    """Choices for request_file.cpp: of each dataset how many numbers, and those; then the names of the tasks."""
    lists = [[1, 2, 3, 4, 5], [0, 3, 5], [6, 7, 8], [0, 1, 3], [4, 9], [4, 10], [0, 2], [1], [0]]

    def chosen(changes: Dict[int, List[int]], names: bytes = b"") -> bytes:
        changed = [changes.get(place, values) for place, values in enumerate(lists)]
        return b"".join(bytes([len(values), *values]) for values in changed) + names

    return {
        "good": chosen({}),
        "named": chosen({6: [0, 1, 2], 7: [0, 0], 8: [1, 0]}, b'["arc", "cloze"]'),
        "without-choice": chosen({7: [2]}),
        "without-task": chosen({8: [1]}),
        "empty-continuation": chosen({3: [0, 3, 3]}),
        "no-names": chosen({}, b'{"a": 1}'),
    }


def manifest_seeds() -> Dict[str, Content]:
    record = {"file": "blocks/00000.h5", "bytes": 100, "xxh3_128": "0" * 32}
    good: Dict[str, Any] = {
        "format": "espalier-run", "version": 1, "run_id": "r", "program_version": "0.1.0",
        "model": {"path": "m", "identity": "i", "blocks": 2}, "calibration": {"path": "c", "sha256": "s"},
        "options": {"method": "wanda", "pattern": "2:4"}, "provenance": {"seconds": 1.5}, "learning_rate": None,
        "blocks": [{**record, "index": 0, "metrics": {"pruned": True}}],
        "outer_files": [{**record, "file": "non_block.h5"}], "complete": False,
    }  # fmt: skip
    return {
        "good": json.dumps(good),
        "complete": json.dumps({**good, "complete": True, "learning_rate": {"learning_rate": 3e-7}}),
        "fresh": json.dumps({**good, "blocks": [], "outer_files": []}),
        "other-version": json.dumps({**good, "version": 2}),
        "other-format": json.dumps({**good, "format": "x"}),
        "negative": json.dumps({**good, "blocks": [{**record, "index": -1, "metrics": {}}]}),
        "no-blocks": json.dumps({key: value for key, value in good.items() if key != "blocks"}),
    }


def finetune_manifest_seeds() -> Dict[str, Content]:
    def file(prefix: str, index: int) -> Dict[str, Any]:
        return {"file": f"{prefix}{index:05d}.h5", "bytes": 100, "xxh3_128": "0" * 32, "index": index}

    deciding = ["0.1.0", "i", "", "s", {"alpha": 32, "rank": 16, "train": "lora"}]
    step = {"language_model": 2.5, "divergence": 0.0, "gradient_norm": 1.5}
    look = {"steps": 1, "language_model": 2.5, "divergence": 0.0, "total": 2.5}
    good: Dict[str, Any] = {
        "format": "espalier-finetune", "version": 1, "run_id": "r", "program_version": deciding[0],
        "base": {"path": "m", "identity": deciding[1], "blocks": 1}, "teacher": {"path": "", "identity": deciding[2]},
        "data": {"path": "d", "sha256": deciding[3]}, "options": deciding[4], "provenance": {"ranks": 1},
        "configuration_sha256": hashlib.sha256(json.dumps(deciding, separators=(",", ":")).encode()).hexdigest(),
        "progress": {"steps": [step], "held_out": [look, {**look, "total": 2.0}]},
        "checkpoint": {"steps": None, "files": []}, "blocks": [], "outer_files": [], "complete": False,
    }  # fmt: skip
    stopped = {"steps": 1, "files": [file("checkpoint/000001-", 0), file("checkpoint/000001-", 1)]}
    outer = [{"file": name, "bytes": 1, "xxh3_128": "0" * 32} for name in ("adapters.h5", "config.json")]
    return {
        "good": json.dumps(good),
        "stopped": json.dumps({**good, "checkpoint": stopped}),
        "complete": json.dumps({**good, "blocks": [file("blocks/", 0)], "outer_files": outer, "complete": True}),
        "twice": json.dumps({**good, "blocks": [file("blocks/", 0), file("blocks/", 0)]}),
        "no-adapters": json.dumps({**good, "blocks": [file("blocks/", 0)], "complete": True}),
        "other-options": json.dumps({**good, "options": {"train": "masked"}}),
        "other-version": json.dumps({**good, "version": 2}),
    }


def dictionary(words: List[str]) -> str:
    """libFuzzer's dictionary format: one quoted, escaped word a line."""
    return "".join('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"\n' for word in words)


def json_words(seeds: Dict[str, Content]) -> List[str]:
    """All keys and strings of the JSON seeds, quoted, and JSON's own words."""
    words = {"{", "}", "[", "]", ":", ",", "null", "true", "false", "0", "-1", "1e999", "18446744073709551615"}

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                words.add(json.dumps(key))
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, str):
            words.add(json.dumps(value))

    for content in seeds.values():
        try:
            walk(json.loads(content if isinstance(content, str) else content[8:]))
        except ValueError:
            continue
    return sorted(word for word in words if len(word) <= 64 and "\\" not in word)


def write_corpora(folder: Path) -> None:
    corpora = {
        "safetensors_header": safetensors_seeds(),
        "checkpoint_index": index_seeds(),
        "model_config": config_seeds(),
        "npy_header": npy_seeds(),
        "token_file": token_seeds(),
        "token_dataset": token_dataset_seeds(),
        "request_file": request_seeds(),
        "manifest": manifest_seeds(),
        "finetune_manifest": finetune_manifest_seeds(),
    }
    for target, seeds in corpora.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, content in seeds.items():
            (folder / target / name).write_bytes(content.encode() if isinstance(content, str) else content)
        words = json_words(seeds)
        if target in ("npy_header", "token_file", "token_dataset"):
            words = ["'descr'", "'fortran_order'", "'shape'", "True", "False", "'<i4'", "'<u2'", "(", ")", ",", "NUMPY"]
        (folder / f"{target}.dict").write_text(dictionary(words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    write_corpora(parser.parse_args().folder)


if __name__ == "__main__":
    main()
