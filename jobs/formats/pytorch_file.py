"""Tensors of a file written by torch.save, read without PyTorch and without running anything that the file names.

Such a file is a zip archive: NAME/data.pkl, a pickle of names and tensor descriptions, and NAME/data/KEY, the numbers
of one storage each, uncompressed. A pickle may name any function of any module and have it called, so the unpickler
here knows a handful of names, gives its own harmless stand-ins for them, and refuses every other by name.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from formats.json_file import InputRefused

LARGEST_PICKLE = 64 << 20
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
BYTES_OF_WORD = {1: np.dtype("u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}


class Storage(NamedTuple):
    """What a pickle says about the numbers that tensors are views of."""

    dtype: str  # safetensors' word
    key: str
    size: int


class PickledTensor(NamedTuple):
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def is_sizes(value: Any) -> bool:
    """Whether the value is a tuple of whole numbers that are not negative."""
    return isinstance(value, tuple) and all(type(item) is int and item >= 0 for item in value)


class TensorBuilder:
    """Stands in for torch._utils._rebuild_tensor_v2; what it is called with decides nothing but a description."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> PickledTensor:
        if not isinstance(storage, Storage) or not is_sizes((offset,)) or not is_sizes(shape) or not is_sizes(stride):
            raise ValueError("a tensor is not described by storage, offset, shape and stride")
        if len(shape) != len(stride):
            raise ValueError("a tensor's shape and stride have different lengths")
        count = 1
        for size in shape:
            count *= size
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride)) if count else 0
        if count > storage.size or last >= max(storage.size, 1):
            raise ValueError("a tensor reaches beyond its storage")
        return PickledTensor(storage, offset, shape, stride)


class ParameterBuilder:
    """Stands in for torch._utils._rebuild_parameter: the tensor itself."""

    __slots__ = ()

    def __call__(self, tensor: Any, *_: Any) -> Any:
        return tensor


KNOWN_NAMES = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): TensorBuilder(),
    ("torch._utils", "_rebuild_tensor_v2"): TensorBuilder(),
    ("torch._utils", "_rebuild_parameter"): ParameterBuilder(),
} | {("torch", storage): dtype for storage, dtype in STORAGES.items()}


# The unpickler written in Python: the one in C lets a file of twenty bytes ask for 64 GiB of memo.
class TensorUnpickler(pickle._Unpickler):
    """Knows KNOWN_NAMES and nothing else."""

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name, or a refusal."""
        try:
            return KNOWN_NAMES[module, name]
        except KeyError:
            full_name = f"{module}.{name}"[:100]
            raise InputRefused(
                f"{self.path} asks for {full_name!r} when it is loaded, which a file of weights does not need and "
                f"which could run code; it was not called"
            ) from None

    def persistent_load(self, pid: Any) -> Storage:
        """A storage by the description that torch.save writes."""
        kind, dtype, key, _, size = pid
        if kind != "storage" or dtype not in ITEM_BYTES or not isinstance(key, str) or not is_sizes((size,)):
            raise ValueError("a storage is not described by type, key and size")
        return Storage(dtype, key, size)


class PytorchFile:
    """The tensors of one file; their numbers are read when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_read: tuple[str, bytes] | None = None  # tensors that share a storage follow each other
        try:
            self.bytes = path.stat().st_size
            with path.open("rb") as file:
                beginning = file.read(64)
            refuse_other_formats(beginning, path)
            self.archive = zipfile.ZipFile(path)
            self.folder = self.find_folder()
            self.tensors = self.read_tensors()
        except OSError as error:
            raise InputRefused(f"cannot read {path}: {error.strerror}") from error
        except zipfile.BadZipFile as error:
            raise InputRefused(f"{path} is damaged, or not a file of torch.save ({error})") from error

    def find_folder(self) -> str:
        """The folder of the archive that holds data.pkl."""
        names = [name for name in self.archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(names) != 1:
            raise InputRefused(f"{self.path} is a zip archive, but not one of torch.save: it holds no data.pkl")
        folder = names[0].removesuffix("data.pkl")
        if folder + "constants.pkl" in self.archive.namelist():
            raise InputRefused(f"{self.path} is a TorchScript program, not a file of weights")
        if folder + "byteorder" in self.archive.namelist() and self.member(folder + "byteorder", 16) != b"little":
            raise InputRefused(f"{self.path} was written on a big-endian machine, which is not supported")
        return folder

    def member(self, name: str, most_bytes: int) -> bytes:
        """The bytes of a file in the archive, its checksum verified."""
        try:
            info = self.archive.getinfo(name)
            # What is compressed could be larger than any memory.
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > min(most_bytes, self.bytes):
                raise InputRefused(f"{self.path}: {name} is compressed or larger than {most_bytes} bytes")
            return self.archive.read(name)
        except (KeyError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise InputRefused(f"{self.path} is damaged: {name} cannot be read ({error})") from error

    def read_tensors(self) -> dict[str, PickledTensor]:
        """Name -> description of every tensor."""
        content = self.member(self.folder + "data.pkl", LARGEST_PICKLE)
        try:
            value = TensorUnpickler(content, self.path).load()
        except InputRefused:
            raise
        except Exception as error:  # a damaged pickle can make anything happen but a call of what we do not know
            raise InputRefused(f"{self.path} is damaged: its data.pkl cannot be read ({error})") from error
        if not isinstance(value, dict):
            raise InputRefused(f"{self.path} holds no dictionary of tensors")
        for name, tensor in dict.items(value):
            if not isinstance(name, str) or not isinstance(tensor, PickledTensor):
                raise InputRefused(f"{self.path}: the entry {str(name)[:100]!r} is not a tensor")
        return dict(dict.items(value))

    def read(self, name: str) -> bytes:
        """The elements of a tensor in row-major order, little-endian."""
        tensor = self.tensors[name]
        item = BYTES_OF_WORD[ITEM_BYTES[tensor.storage.dtype]]
        if self.last_read is None or self.last_read[0] != tensor.storage.key:
            self.last_read = None
            size = tensor.storage.size * item.itemsize
            content = self.member(f"{self.folder}data/{tensor.storage.key}", size)
            if len(content) != size:
                raise InputRefused(f"{self.path} is damaged: tensor {name} has {len(content)} bytes instead of {size}")
            self.last_read = (tensor.storage.key, content)
        values = np.frombuffer(self.last_read[1], item)[tensor.offset :]
        strides = [step * item.itemsize for step in tensor.stride]
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(values, tensor.shape, strides)).tobytes()

    def close(self) -> None:
        """Closes the file and forgets what was read."""
        self.last_read = None
        self.archive.close()


def refuse_other_formats(beginning: bytes, path: Path) -> None:
    """Says what a file is that is no zip archive."""
    if beginning.startswith(b"PK"):
        return
    if beginning.startswith(b"version https://git-lfs"):
        raise InputRefused(f"{path} is a git-lfs pointer, not the file itself; run 'git lfs pull' in the model folder")
    if beginning.startswith(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"):
        raise InputRefused(
            f"{path} was written by a PyTorch before 1.6; write it anew with a newer one, where you trust it: "
            f"torch.save(torch.load(NAME, weights_only=True), NAME)"
        )
    raise InputRefused(f"{path} is not a file of torch.save (no zip archive)")
