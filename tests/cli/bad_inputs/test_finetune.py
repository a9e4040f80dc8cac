"""finetune with teachers, tokens, targets and numbers that do not fit: status 2, one sentence, nothing written."""

from __future__ import annotations

import shutil

import pytest

from world import VOCABULARY, World
from random_model import ModelRequest, make_model, random_tokens, write_tokens

FINETUNE = ["finetune", "--model=model", "--data=tokens.npy", "--output=tuned"]


@pytest.mark.parametrize(
    "more, words",
    [
        (["--train=all"], ["--train", "'all'", "masked-lora, lora, masked"]),
        (["--loss=l2"], ["--loss", "'l2'", "lm, kl, mix"]),
        (["--loss=kl"], ["--loss kl needs --teacher"]),
        (["--teacher=model"], ["--loss lm does not ask a teacher"]),
        (["--targets=q_proj,qkv_proj"], ["--targets", "'qkv_proj'", "q_proj, k_proj, v_proj"]),
        (["--rank=4096"], ["--rank 4096", "self_attn.q_proj"]),
        (["--rank=0"], ["--rank"]),
        (["--dropout=1"], ["--dropout 1", "below 1"]),
        (["--train=masked", "--dropout=0.1"], ["--dropout", "--train masked"]),
        (["--warm-up=1.5"], ["--warm-up", "share"]),
        (["--held-out=100000"], ["--held-out 100000", "leaves none"]),
        (["--batch=100000"], ["--batch 100000", "trained on"]),
        (["--steps=3", "--epochs=1"], ["--steps or --epochs"]),
        (["--held-out=0", "--patience=2"], ["--patience", "--held-out is 0"]),
        (["--sequence-length=1"], ["--sequence-length"]),
        (["--weights=some"], ["--weights", "auto, resident, shared"]),
        (["--optimizer-state=disk"], ["--optimizer-state", "auto, device, host, file"]),
        (["--optimizer-state=host", "--train=lora"], ["--optimizer-state host", "--train masked"]),
        (["--learning-rate=-1"], ["--learning-rate"]),
    ],
)
def test_options_that_do_not_fit(world: World, more: list, words: list) -> None:
    world.refused([*FINETUNE, *more], *words)


def test_tokens_of_another_tokenizer(world: World) -> None:
    write_tokens(world.folder / "tokens.npy", random_tokens(8, 32, VOCABULARY) + VOCABULARY)
    world.refused(FINETUNE, "tokens.npy", str(VOCABULARY))


@pytest.mark.parametrize("family, words", [("llama2", ["hidden states of 96"]), ("llama1", ["vocabulary of"])])
def test_a_teacher_of_another_shape(world: World, family: str, words: list) -> None:
    request = ModelRequest(family) if family == "llama2" else ModelRequest(family, vocab=VOCABULARY + 8)
    make_model(world.folder / "teacher", request)
    world.refused([*FINETUNE, "--loss=kl", "--teacher=teacher"], "--teacher", *words)


def test_outputs_that_are_something_else(world: World) -> None:
    world.refused([*FINETUNE[:-1], "--output=model"], "--output", "model")
    shutil.copytree(world.run, world.folder / "run")
    world.refused([*FINETUNE[:-1], "--output=run"], "run", "format 'espalier-run'")
