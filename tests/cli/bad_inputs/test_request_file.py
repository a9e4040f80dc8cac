"""score with requests that are none, that do not fit, or that are for another model."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy
import pytest

from world import VOCABULARY, World
from request_file import write_requests

SCORE = ["score", "--model=model", "--requests=requests.h5", "--output=scores.json"]


def requests_of(world: World) -> Path:
    return write_requests(world.folder / "requests.h5", [([1, 2], [[3], [4, 5]]), ([6], [[7], [8]])])


@pytest.mark.parametrize(
    "dataset, values, words",
    [
        ("context_ids", [1, 2, 1, VOCABULARY, 6, 6], ["/context_ids", str(VOCABULARY), "another tokenizer"]),
        ("continuation_begin", [0, 1, 3, 3, 5], ["/continuation_begin", "no part is empty"]),
        ("gold", [0, 2], ["/gold", "choice 2", "has 2"]),
        ("bytes", [1, 2, 3], ["/bytes", "3 numbers", "4 are expected"]),
        ("item_begin", None, ["no dataset /item_begin", "jobs/prepare_requests.py"]),
    ],
)
def test_requests_that_do_not_fit(world: World, dataset: str, values: object, words: list) -> None:
    with h5py.File(requests_of(world), "r+") as file:
        del file[dataset]
        if values is not None:
            file[dataset] = numpy.array(values, dtype="int64")
    world.refused(SCORE, "requests.h5", *words)


def test_other_files_and_places(world: World) -> None:
    world.refused(SCORE, "requests.h5", "No such file")
    world.refused(["score", "--model=model", "--requests=tokens.npy", "--output=a.json"], "tokens.npy", "not an HDF5 file")
    requests_of(world)
    world.refused([*SCORE[:-1], "--output=nowhere/scores.json"], "--output", "nowhere")
    world.refused(SCORE[:-1], "--output", "missing")


def test_continuations_longer_than_the_model_takes(world: World) -> None:
    write_requests(world.folder / "requests.h5", [([1], [[2] * 5000])])
    world.refused(SCORE, "request 0", "5000 tokens")
