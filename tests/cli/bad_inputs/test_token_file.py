"""Token files: HDF5 and .npy."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import h5py
import numpy
import pytest

from world import LENGTH, World, good_ids, save_npy, with_id


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
    "strings": (save_npy(numpy.array([["a"]])), ["'<U1'", "integer"]),
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
    "text": (raw(b"1 2 3 4 5 6 7 8\n"), ["HDF5", ".npy", "jobs/prepare_tokens.py calibration", "/tokens.npy "]),
    "neither": (raw(bytes(range(40))), ["neither", "HDF5", ".npy"]),
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


@pytest.mark.parametrize("name", ["c4.jsonl", "c4.json.gz", "c4.parquet", "wiki.txt"])
def test_text_for_evaluation(world: World, name: str) -> None:
    (world.folder / name).write_bytes(b'{"text": "some words"}\n')
    files = f"--text {name} --output {name.split('.')[0]}.h5"
    command = f"jobs/prepare_tokens.py evaluation --tokenizer MODEL_FOLDER {files}"
    world.refused(["evaluate", f"--model={world.model}", f"--tokens={name}"], f"{name} holds text", command)


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
