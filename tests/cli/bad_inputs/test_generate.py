"""generate with numbers, beginnings and prompts that do not fit: status 2, one sentence, nothing written."""

from __future__ import annotations

import numpy
import pytest

from world import VOCABULARY, World

GENERATE = ["generate", "--model=model", "--output=own.h5", "--samples=4", "--sequence-length=8"]


@pytest.mark.parametrize(
    "more, words",
    [
        (["--temperature=-1"], ["--temperature"]),
        (["--temperature=1e-9"], ["--temperature 1e-9", "0.001"]),
        (["--top-p=0"], ["--top-p"]),
        (["--top-p=1.5"], ["--top-p 1.5", "more than 1"]),
        (["--begin=start"], ["--begin 'start'", "bos, vocabulary"]),
        ([f"--begin={VOCABULARY}"], [f"--begin '{VOCABULARY}'", "token's id"]),
        (["--batch=0"], ["--batch"]),
        (["--stages=2"], ["--stages 2", "1 rank"]),
        (["--prompts=tokens.npy"], ["--sequence-length 8", "prompts of 32 tokens"]),
        (["--prompts=nowhere.npy"], ["nowhere.npy"]),
    ],
)
def test_options_that_do_not_fit(world: World, more: list, words: list) -> None:
    world.refused([*GENERATE, *more], *words)


def test_sequences_that_the_model_does_not_take(world: World) -> None:
    world.refused([*GENERATE[:-1], "--sequence-length=100000"], "100000")
    world.refused([*GENERATE[:-1], "--sequence-length=1", "--begin=vocabulary"], "nothing to generate")


def test_prompts_of_another_tokenizer(world: World) -> None:
    numpy.save(world.folder / "prompts.npy", numpy.array([[VOCABULARY]]))
    world.refused([*GENERATE, "--prompts=prompts.npy"], "prompts.npy", str(VOCABULARY))


def test_files_that_hold_something_else(world: World) -> None:
    world.refused([*GENERATE[:2], "--output=model/config.json"], "model/config.json", "no token file")
    world.refused([*GENERATE[:2], "--output=own.npy"], "own.npy", ".h5")


def test_places_that_are_not_there(world: World) -> None:
    world.refused([*GENERATE[:2], "--output=nowhere/own.h5"], "--output", "nowhere")
