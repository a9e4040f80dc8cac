"""HDF5 files that the same content always gives the same bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from formats.json_file import InputRefused


def write_hdf5(
    output: Path,
    datasets: Mapping[str, np.ndarray],
    attributes: Mapping[str, str | int | bytes],
    attributes_of: str = "/",
) -> None:
    """Write datasets, and attributes of one of them or of the file, readable by HDF5 1.8 and later, without any time
    stamp, under a temporary name first. Integers are stored as little-endian int32 or int64."""
    partial = output.with_name(output.name + ".partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            with h5py.File(partial, "w", libver=("v108", "v110"), locking=False) as file:
                for name, values in datasets.items():
                    kind = values.dtype.newbyteorder("<")
                    file.create_dataset(name, data=values, dtype=kind, track_times=False)
                for name, value in attributes.items():
                    file[attributes_of].attrs[name] = value
            os.replace(partial, output)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error  # HDF5's own message is a paragraph
        raise InputRefused(f"cannot write {output}: {reason}") from error
