#!/usr/bin/env python3
"""Turn a model folder with PyTorch's pickled weights into one with safetensors, without running code in them.

    import_pytorch.py FOLDER OUTPUT

FOLDER is a Hugging Face folder of a LLaMA-like model with pytorch_model.bin, or pytorch_model.bin.index.json and the
shards that it names (OpenLLaMA and other models of 2023 exist only so). A pickle can have any function called when it
is loaded; here none is: what a file asks for beyond descriptions of tensors is refused by name. PyTorch is not needed.

OUTPUT gets model.safetensors, or shards of the same division with model.safetensors.index.json, and FOLDER's other
files. Names, shapes and types of all tensors are checked against config.json before anything is written; the values
stay bit for bit. Left out are rotary_emb.inv_freq, which carries nothing, and a head that is the embedding itself where
config.json ties them. One tensor is in memory at a time. Everything is written to OUTPUT.partial, which is renamed at
the very end. Exit status 2 and one sentence on stderr when the folder cannot be imported.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formats.checkpoint_folder import HeaderEntry, folder_in_progress, locate_model_folder, safetensors_header
from formats.json_file import InputRefused, read_json, write_json

try:
    from safetensors import SafetensorError, safe_open

    from formats.pytorch_file import ITEM_BYTES, PickledTensor, PytorchFile
except ModuleNotFoundError as missing:
    sys.exit(f"import_pytorch.py: the Python package {missing.name} is missing; run "
             "jobs/virtual_environment.sh build/venv jobs/requirements.txt and then this with build/venv/bin/python")

SINGLE_FILE, INDEX_FILE = "pytorch_model.bin", "pytorch_model.bin.index.json"
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WEIGHT_ENDINGS = (".bin", ".bin.index.json", ".safetensors", ".safetensors.index.json", ".pt", ".pth", ".ckpt", ".h5",
                  ".msgpack", ".gguf", ".onnx")  # fmt: skip


@dataclass(frozen=True)
class Configuration:
    """config.json, with refusals instead of KeyErrors."""

    path: Path
    fields: dict[str, Any]

    def size(self, name: str, otherwise: int | None = None) -> int:
        """A positive whole number."""
        value = self.fields.get(name)
        value = otherwise if value is None else value
        if type(value) is not int or value < 1:
            raise InputRefused(f"{self.path}: {name!r} is {value!r}; a positive whole number is expected")
        return value

    def flag(self, name: str) -> bool:
        """True or false; false where the field is absent."""
        return self.fields.get(name) is True

    def family(self) -> str:
        """The model type, one of FAMILIES."""
        family = self.fields.get("model_type")
        if family not in FAMILIES:
            raise InputRefused(f"{self.path}: 'model_type' is {family!r}; {', '.join(FAMILIES)} are supported")
        return family


def block_shapes(config: Configuration) -> dict[str, tuple[int, ...]]:
    """Name below model.layers.N -> shape, of one block."""
    family, hidden, intermediate = config.family(), config.size("hidden_size"), config.size("intermediate_size")
    heads = config.size("num_attention_heads")
    head_size = config.size("head_dim", hidden // heads)
    query, key_value = heads * head_size, config.size("num_key_value_heads", heads) * head_size
    attention_bias = config.flag("attention_bias") and family in ("llama", "qwen3")
    mlp_bias = config.flag("mlp_bias") and family == "llama"
    linears = (
        ("self_attn.q_proj", query, hidden, attention_bias or family == "qwen2"),
        ("self_attn.k_proj", key_value, hidden, attention_bias or family == "qwen2"),
        ("self_attn.v_proj", key_value, hidden, attention_bias or family == "qwen2"),
        ("self_attn.o_proj", hidden, query, attention_bias),
        ("mlp.gate_proj", intermediate, hidden, mlp_bias),
        ("mlp.up_proj", intermediate, hidden, mlp_bias),
        ("mlp.down_proj", hidden, intermediate, mlp_bias),
    )
    shapes: dict[str, tuple[int, ...]] = {}
    for name, rows, columns, bias in linears:
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)
    shapes |= {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
    if family == "qwen3":
        shapes |= {"self_attn.q_norm.weight": (head_size,), "self_attn.k_norm.weight": (head_size,)}
    return shapes


def expected_shapes(config: Configuration) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that config.json implies, the head among them."""
    hidden, vocabulary = config.size("hidden_size"), config.size("vocab_size")
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (vocabulary, hidden), "model.norm.weight": (hidden,)}
    shapes[HEAD] = (vocabulary, hidden)
    of_block = block_shapes(config)
    for block in range(config.size("num_hidden_layers")):
        shapes |= {f"model.layers.{block}.{name}": shape for name, shape in of_block.items()}
    return shapes


@dataclass(frozen=True)
class Shard:
    """One pickled file and the tensors of it that are written, in order."""

    file: PytorchFile
    name: str  # of the safetensors file
    tensors: dict[str, PickledTensor]


def find_files(folder: Path) -> dict[str, set[str] | None]:
    """File -> the tensors that the index maps to it, or None for a single file, whose tensors are all taken."""
    if (folder / SINGLE_FILE).exists():
        return {SINGLE_FILE: None}
    if not (folder / INDEX_FILE).exists():
        raise InputRefused(f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}")
    weight_map = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputRefused(f"{folder / INDEX_FILE} has no object 'weight_map' with entries")
    files: dict[str, set[str] | None] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or file in ("", ".", "..") or "/" in file or "\0" in file:
            raise InputRefused(f"{folder / INDEX_FILE}: {file!r} for tensor {name!r} is not a plain file name")
        files.setdefault(file, set()).add(name)
    return files


def safetensors_name(file: str) -> str:
    """pytorch_model-00001-of-00002.bin -> model-00001-of-00002.safetensors."""
    return file.removeprefix("pytorch_").removesuffix(".bin") + ".safetensors"


def open_shards(folder: Path, config: Configuration) -> list[Shard]:
    """All files, and what is taken of each; checks names, shapes and types against config.json."""
    shapes, shards, found = expected_shapes(config), [], {}
    for name, mapped in sorted(find_files(folder).items()):
        file = PytorchFile(folder / name)
        if mapped is not None and mapped - file.tensors.keys():
            raise InputRefused(f"{folder / INDEX_FILE}: tensor {min(mapped - file.tensors.keys())} is not in {name}")
        taken = {key: tensor for key, tensor in file.tensors.items() if mapped is None or key in mapped}
        taken = {key: tensor for key, tensor in taken.items() if not key.endswith(".rotary_emb.inv_freq")}
        if config.flag("tie_word_embeddings") and HEAD in taken and taken[HEAD] == taken.get(EMBEDDING):
            del taken[HEAD]
        for key, tensor in taken.items():
            check_tensor(key, tensor, shapes, file.path, config)
        # Wide types first, so that every tensor lies at a multiple of its element's size.
        order = sorted(taken, key=lambda key, of=taken: (-ITEM_BYTES[of[key].storage.dtype], key))
        shards.append(Shard(file, safetensors_name(name), {key: taken[key] for key in order}))
        found |= taken
    optional = {HEAD} if config.flag("tie_word_embeddings") else set()
    missing = shapes.keys() - found.keys() - optional
    if missing:
        raise InputRefused(f"{folder} lacks {len(missing)} tensor(s) that config.json implies, first {min(missing)}")
    return shards


def check_tensor(
    name: str, tensor: PickledTensor, shapes: dict[str, tuple[int, ...]], file: Path, config: Configuration
) -> None:
    """Refuses a tensor that config.json does not imply, or not so."""
    if name not in shapes:
        raise InputRefused(
            f"tensor {name[:200]} in {file} does not belong to a model of type {config.family()} with "
            f"{config.size('num_hidden_layers')} blocks as config.json describes it"
        )
    if tensor.shape != shapes[name]:
        raise InputRefused(
            f"tensor {name} in {file} has shape {list(tensor.shape)}; config.json implies {list(shapes[name])}"
        )
    if tensor.storage.dtype not in ("F32", "F16", "BF16"):
        raise InputRefused(f"tensor {name} in {file} has dtype {tensor.storage.dtype}; F32, F16 or BF16 is needed")


def header_entries(shard: Shard) -> Iterator[HeaderEntry]:
    """What the safetensors file of a shard says of its tensors."""
    for name, tensor in shard.tensors.items():
        size = ITEM_BYTES[tensor.storage.dtype]
        for dimension in tensor.shape:
            size *= dimension
        yield HeaderEntry(name, tensor.storage.dtype, tensor.shape, size)


def write_shard(path: Path, shard: Shard) -> None:
    """Write one safetensors file tensor by tensor and let the reference reader check the result."""
    with path.open("wb") as output:
        output.write(safetensors_header(header_entries(shard)))
        for name in shard.tensors:
            output.write(shard.file.read(name))
    shard.file.close()
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise InputRefused(f"the written {path.name} does not read back: {error}") from error


def write_folder(source: Path, folder: Path, shards: list[Shard]) -> None:
    """Weights, index and all files that hold no weights."""
    for shard in shards:
        write_shard(folder / shard.name, shard)
    if len(shards) > 1 or shards[0].name != "model.safetensors":
        total = sum(entry.bytes for shard in shards for entry in header_entries(shard))
        weight_map = {name: shard.name for shard in shards for name in shard.tensors}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(folder / "model.safetensors.index.json", index)
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.endswith(WEIGHT_ENDINGS):
            shutil.copyfile(file, folder / file.name)


def import_pytorch(source: Path, output: Path) -> list[Shard]:
    """Write the folder `output` from the folder `source`."""
    folder = locate_model_folder(source)
    if not folder.is_dir():
        raise InputRefused(f"{folder} is not a folder")
    if any(folder.glob("*.safetensors")):
        raise InputRefused(f"{folder} holds safetensors already: there is nothing to import")
    config = Configuration(folder / "config.json", read_json(folder / "config.json"))
    shards = open_shards(folder, config)
    with folder_in_progress(output) as partial:
        write_folder(folder, partial, shards)
    return shards


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, import, and map refusals to exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="model folder with pytorch_model.bin or its shards and index")
    parser.add_argument("output", type=Path, help="Hugging Face folder to write; must not exist")
    options = parser.parse_args(arguments)
    try:
        shards = import_pytorch(options.folder, options.output)
    except (InputRefused, OSError) as error:
        print(f"import_pytorch: {error}", file=sys.stderr)
        return 2
    print(f"{options.output}: {sum(len(shard.tensors) for shard in shards)} tensors in {len(shards)} file(s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
