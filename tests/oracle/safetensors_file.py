"""Tensors as a file stores them, and a strict reader and writer of single safetensors files.

Needs NumPy only, so that random models can be made where PyTorch is absent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Tuple

import numpy

BYTES_OF = {"F32": 4, "F16": 2, "BF16": 2}


def bfloat16_bits(values: numpy.ndarray) -> numpy.ndarray:
    """Rounds finite float values to bfloat16 (nearest, ties to even) and returns the bits as uint16."""
    bits = values.astype(numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


@dataclass(frozen=True)
class StoredTensor:
    """The dtype (safetensors name), shape and little-endian row-major bytes of one tensor."""

    dtype: str
    shape: Tuple[int, ...]
    data: bytes

    @staticmethod
    def encode(values: numpy.ndarray, dtype: str) -> "StoredTensor":
        """Rounds `values` to `dtype` (F32, F16 or BF16)."""
        if dtype == "BF16":
            stored = bfloat16_bits(values).astype("<u2")
        else:
            stored = values.astype({"F32": "<f4", "F16": "<f2"}[dtype])
        return StoredTensor(dtype, tuple(values.shape), stored.tobytes())

    def decode(self) -> numpy.ndarray:
        """Returns the exact values as float64."""
        if self.dtype == "BF16":
            bits = numpy.frombuffer(self.data, "<u2").astype(numpy.uint32) << 16
            values = bits.view(numpy.float32)
        else:
            values = numpy.frombuffer(self.data, {"F32": "<f4", "F16": "<f2"}[self.dtype])
        return values.astype(numpy.float64).reshape(self.shape)


def read_safetensors(path: Path) -> Dict[str, StoredTensor]:
    """Reads every tensor of one file; refuses holes, overlaps and trailing bytes."""
    content = Path(path).read_bytes()
    header_length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_length])
    data = content[8 + header_length :]
    header.pop("__metadata__", None)
    position = 0
    tensors: Dict[str, StoredTensor] = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        expected = int(numpy.prod(shape, dtype=numpy.int64)) * BYTES_OF[entry["dtype"]]
        if begin != position or end - begin != expected:
            raise ValueError(f"{path}: {name} lies at [{begin}, {end}), expected {expected} bytes from {position}")
        tensors[name] = StoredTensor(entry["dtype"], shape, data[begin:end])
        position = end
    if position != len(data):
        raise ValueError(f"{path}: {len(data) - position} bytes after the last tensor")
    return tensors


def write_safetensors(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Writes the strict form: wider dtypes first, then by name; header padded with spaces to a multiple of 8."""
    header: Dict[str, object] = {"__metadata__": {"format": "pt"}}
    ordered = sorted(tensors, key=lambda name: (-BYTES_OF[tensors[name].dtype], name))
    position = 0
    for name in ordered:
        tensor = tensors[name]
        end = position + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in ordered:
            file.write(tensors[name].data)
