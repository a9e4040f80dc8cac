"""Request files for `espalier score`, as jobs/prepare_requests.py writes them."""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

import h5py
import numpy

Item = Tuple[List[int], List[List[int]]]  # token ids of a context and of its choices, of which the first is right


def write_requests(path: Path, items: List[Item]) -> Path:
    """A request file as jobs/prepare_requests.py writes it."""
    requests: List[Tuple[List[int], List[int]]] = [(context, choice) for context, choices in items for choice in choices]

    def begins(lists: List[List[int]]) -> numpy.ndarray:
        return numpy.cumsum([0, *map(len, lists)])

    with h5py.File(path, "w") as file:
        for name, part in (("context", 0), ("continuation", 1)):
            file[f"{name}_ids"] = numpy.concatenate([request[part] for request in requests]).astype("<i4")
            file[f"{name}_begin"] = begins([request[part] for request in requests])
        file["item_begin"] = begins([choices for _, choices in items])
        file["characters"] = file["bytes"] = numpy.arange(1, len(requests) + 1, dtype="<i4")
        file["gold"] = file["task"] = numpy.zeros(len(items), dtype="<i4")
        file.attrs["tasks"] = numpy.bytes_('["random"]')
    return path
