"""Reads Hugging Face model folders and Espalier's run folders into stored tensors by checkpoint name."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import h5py
import numpy
import torch

from safetensors_file import BYTES_OF, StoredTensor, read_safetensors

PRUNED_MODULES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


@dataclass(frozen=True)
class RopeSettings:
    """Rotary embedding: kind (default, linear, dynamic, llama3, yarn, longrope), base and the scaling's own numbers.
    `width`: channels of a head that are rotated, from the first one."""

    kind: str
    theta: float
    scaling: Dict[str, Any]
    max_positions: int
    width: int


@dataclass(frozen=True)
class ModelConfig:
    """The architecture, free of the two spellings of config.json."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    block_count: int
    head_count: int
    kv_head_count: int
    head_dim: int
    vocab_size: int
    norm_epsilon: float
    rope: Optional[RopeSettings]
    sliding_window: Optional[int]
    norms_after: bool = False  # of what attention and MLP give, instead of what they get
    blocks_without_rope: Tuple[int, ...] = ()

    def of_block(self, index: int) -> "ModelConfig":
        """The architecture as one block has it."""
        return replace(self, rope=None) if index in self.blocks_without_rope else self


def parse_rope(config: Dict[str, Any], head_dim: int) -> RopeSettings:
    """Reads `rope_theta` and `rope_scaling` (transformers 4) or `rope_parameters` (transformers 5)."""
    scaling = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if "full_attention" in scaling:
        scaling = dict(scaling["full_attention"])
    theta = scaling.pop("rope_theta", None) or config.get("rope_theta") or 10000.0
    kind = scaling.pop("rope_type", None) or scaling.pop("type", None) or "default"
    part = scaling.pop("partial_rotary_factor", None) or config.get("partial_rotary_factor") or 1.0
    if config.get("original_max_position_embeddings"):
        scaling.setdefault("original_max_position_embeddings", config["original_max_position_embeddings"])
    max_positions = config.get("max_position_embeddings", 0)
    return RopeSettings(kind, float(theta), scaling, max_positions, int(head_dim * part))


def parse_config(config: Dict[str, Any]) -> ModelConfig:
    """Interprets the content of config.json."""
    if "text_config" in config:
        config = {**config["text_config"], "model_type": config["model_type"]}
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    uses_window = config["model_type"] in ("mistral", "mistral3", "phi3") or config.get("use_sliding_window", False)
    rotates = config.get("no_rope_layers")
    if rotates is None and config["model_type"] == "smollm3":
        interval = config.get("no_rope_layer_interval", 4)
        rotates = [(index + 1) % interval != 0 for index in range(config["num_hidden_layers"])]
    return ModelConfig(
        model_type=config["model_type"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        block_count=config["num_hidden_layers"],
        head_count=heads,
        kv_head_count=config.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        vocab_size=config["vocab_size"],
        norm_epsilon=config["rms_norm_eps"],
        rope=parse_rope(config, head_dim),
        sliding_window=config.get("sliding_window") if uses_window else None,
        norms_after=config["model_type"] == "olmo2",
        blocks_without_rope=tuple(index for index, does in enumerate(rotates or []) if not does),
    )


@dataclass(frozen=True)
class Model:
    """Stored tensors by checkpoint name; `masks` (bool, true = kept) only where a run folder was read."""

    tensors: Dict[str, StoredTensor]
    masks: Dict[str, numpy.ndarray]

    def block(self, index: int) -> Dict[str, torch.Tensor]:
        """The float64 tensors of one decoder block by their names inside the block."""
        prefix = f"model.layers.{index}."
        return {name[len(prefix) :]: self.value(name) for name in self.tensors if name.startswith(prefix)}

    def value(self, name: str) -> torch.Tensor:
        """The exact values of one tensor as float64."""
        return torch.from_numpy(self.tensors[name].decode())

    def mask(self, index: int, module: str) -> torch.Tensor:
        """The keep mask [out, in] of one pruned matrix as the run wrote it."""
        return torch.from_numpy(self.masks[f"model.layers.{index}.{module}"])


def read_config(folder: Path) -> ModelConfig:
    """Reads config.json of a Hugging Face folder."""
    return parse_config(json.loads((Path(folder) / "config.json").read_text()))


DECODER_INSIDE = "language_model."
TOGETHER = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}


def rows_of(config: ModelConfig, module: str) -> int:
    """Rows of a matrix that other models store together with others."""
    if module.startswith("mlp."):
        return config.intermediate_size
    return config.head_dim * (config.head_count if module.endswith("q_proj") else config.kv_head_count)


def plain_model(config: ModelConfig, tensors: Dict[str, StoredTensor], masks: Dict[str, numpy.ndarray]) -> Model:
    """By LLaMA's names: without what lies beside the decoder, and with each matrix by itself."""
    if any(name.startswith(DECODER_INSIDE) for name in tensors):
        cut = len(DECODER_INSIDE)
        tensors = {name[cut:]: value for name, value in tensors.items() if name.startswith(DECODER_INSIDE)}
        masks = {name[cut:]: value for name, value in masks.items()}
    plain: Dict[str, StoredTensor] = {}
    plain_masks = dict(masks)
    for name, tensor in tensors.items():
        fused = next((fused for fused in TOGETHER if name.endswith(f"{fused}.weight")), None)
        if fused is None:
            plain[name] = tensor
            continue
        prefix, row = name[: -len(f"{fused}.weight")], 0
        row_bytes = len(tensor.data) // tensor.shape[0]
        mask = plain_masks.pop(prefix + fused, None)
        for module in TOGETHER[fused]:
            end = row + rows_of(config, module)
            data = tensor.data[row * row_bytes : end * row_bytes]
            plain[f"{prefix}{module}.weight"] = StoredTensor(tensor.dtype, (end - row, tensor.shape[1]), data)
            if mask is not None:
                plain_masks[prefix + module] = mask[row:end]
            row = end
        assert row == tensor.shape[0], name
    return Model(plain, plain_masks)


def read_model_folder(folder: Path) -> Model:
    """Reads a Hugging Face folder, a single file or shards with their index."""
    folder = Path(folder)
    index_path = folder / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if index_path.exists():
        files = sorted(set(json.loads(index_path.read_text())["weight_map"].values()))
    tensors: Dict[str, StoredTensor] = {}
    for file in files:
        tensors.update(read_safetensors(folder / file))
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    return plain_model(read_config(folder), kept, {})


def float_dtype_name(dataset: h5py.Dataset) -> str:
    """The safetensors name of a dataset's float type; bfloat16 is the 16-bit type with an 8-bit exponent."""
    stored = dataset.id.get_type()
    exponent_bits = stored.get_fields()[2]
    names = {(4, 8): "F32", (2, 5): "F16", (2, 8): "BF16"}
    return names[(stored.get_size(), exponent_bits)]


def read_bits(dataset: h5py.Dataset) -> bytes:
    """The dataset's bytes without any conversion."""
    stored = dataset.id.get_type()
    buffer = numpy.empty(dataset.shape, dtype={4: "<u4", 2: "<u2"}[stored.get_size()])
    if buffer.size:
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, buffer, mtype=stored)
    return buffer.tobytes()


def unpack_mask(packed: numpy.ndarray, shape: Tuple[int, int]) -> numpy.ndarray:
    """Unpacks [rows, ceil(columns/8)] bytes, bit 0 first, to bool [rows, columns]; refuses set bits in the padding."""
    rows, columns = shape
    expected = (rows, (columns + 7) // 8)
    if packed.shape != expected or packed.dtype != numpy.uint8:
        raise ValueError(f"mask is {packed.dtype} {packed.shape}, expected uint8 {expected}")
    bits = numpy.unpackbits(packed, axis=1, bitorder="little")
    if bits[:, columns:].any():
        raise ValueError("mask has set bits in its padding")
    return bits[:, :columns].astype(bool)


def read_hdf5(path: Path, tensors: Dict[str, StoredTensor], masks: Dict[str, numpy.ndarray]) -> None:
    """Adds the tensors and masks of one HDF5 file; `/meta` and optional `scores` are passed over."""
    packed_masks: Dict[str, numpy.ndarray] = {}

    def visit(location: str, item: h5py.HLObject) -> None:
        if not isinstance(item, h5py.Dataset) or location.split("/")[0] == "meta":
            return
        parent, _, kind = location.replace("/", ".").rpartition(".")
        if kind == "mask":
            packed_masks[parent] = item[()]
        elif kind != "scores":
            tensors[f"{parent}.{kind}"] = StoredTensor(float_dtype_name(item), item.shape, read_bits(item))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    for module, packed in packed_masks.items():
        rows, columns = tensors[f"{module}.weight"].shape
        masks[module] = unpack_mask(packed, (rows, columns))


def read_run_folder(folder: Path) -> Model:
    """Reads `blocks/*.h5` and `non_block.h5` of a run."""
    folder = Path(folder)
    tensors: Dict[str, StoredTensor] = {}
    masks: Dict[str, numpy.ndarray] = {}
    for path in [*sorted((folder / "blocks").glob("*.h5")), folder / "non_block.h5"]:
        read_hdf5(path, tensors, masks)
    return plain_model(read_config(folder), tensors, masks)


def read_draws(folder: Path) -> Dict[int, List[List[int]]]:
    """The drawn samples of every block, round by round, from `events.jsonl`."""
    draws: Dict[int, Dict[int, List[int]]] = {}
    for line in (Path(folder) / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event.get("event") == "draw":
            draws.setdefault(event["block"], {})[event["round"]] = event["samples"]
    return {block: [rounds[index] for index in range(len(rounds))] for block, rounds in draws.items()}


def read_tokens(path: Path) -> numpy.ndarray:
    """Token ids of a .npy or HDF5 file as int64, in the file's shape."""
    path = Path(path)
    if path.suffix == ".npy":
        return numpy.load(path).astype(numpy.int64)
    with h5py.File(path, "r") as file:
        return file["input_ids"][()].astype(numpy.int64)


def calibration_samples(tokens: numpy.ndarray, samples: int, length: int) -> torch.Tensor:
    """[samples, length] ids: the first `length` of each of the first rows; a flat file is cut into windows."""
    if tokens.ndim == 1:
        tokens = tokens[: len(tokens) // length * length].reshape(-1, length)
    if tokens.shape[0] < samples or tokens.shape[1] < length:
        raise ValueError(f"{samples} samples of {length} tokens asked of a file of shape {tokens.shape}")
    return torch.from_numpy(numpy.ascontiguousarray(tokens[:samples, :length]))


def round_to_dtype(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """Rounds float64 values through float32 (the master copy) to a stored dtype and back."""
    assert dtype in BYTES_OF
    return torch.from_numpy(StoredTensor.encode(values.detach().numpy().astype(numpy.float32), dtype).decode())
