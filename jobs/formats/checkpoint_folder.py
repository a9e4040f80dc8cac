"""Hugging Face model folders: how the scripts find them, and how the import scripts write them."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from formats.json_file import InputRefused


class HeaderEntry(NamedTuple):
    """One tensor of a safetensors file."""

    name: str
    dtype: str  # the format's word: F32, F16, BF16
    shape: tuple[int, ...]
    bytes: int


def locate_model_folder(folder: Path) -> Path:
    """`folder` itself, or the snapshot of refs/main when it is a model's folder in the Hugging Face cache."""
    cache = any((folder / name).is_dir() for name in ("snapshots", "refs", "blobs"))
    if not cache or (folder / "config.json").exists():
        return folder
    try:
        commit = (folder / "refs/main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(
            f"{folder} is a model's folder in the Hugging Face cache, but its refs/main cannot be read ({error}); name "
            f"one of its snapshots, or download the model again"
        ) from error
    if not commit or not commit.replace("-", "").replace("_", "").isalnum():
        raise InputRefused(f"{folder / 'refs/main'} does not hold the name of a snapshot")
    snapshot = folder / "snapshots" / commit
    if not snapshot.is_dir():
        raise InputRefused(f"{folder / 'refs/main'} names the snapshot {commit}, which is not there; download it again")
    return snapshot


@contextmanager
def folder_in_progress(output: Path) -> Iterator[Path]:
    """A fresh OUTPUT.partial folder that gets its final name only when the body succeeds."""
    if output.exists():
        raise InputRefused(f"{output} exists already: name a folder that does not, or remove it")
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        os.rename(partial, output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def safetensors_header(tensors: Iterable[HeaderEntry]) -> bytes:
    """Length and JSON header: the tensors in this order without gaps, padded with spaces to a multiple of 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, dtype, shape, size in tensors:
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, begin + size]}
        begin += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
