"""Names of drawn tokens that are none, or that the model does not take: status 2, one sentence, nothing written."""

from __future__ import annotations

import pytest

from world import World


@pytest.mark.parametrize("name", ["self:", "self:8", "self:8x", "self:0x4", "self:8x4x2", "self: 4x 8", "self:-1x-1", "self:99999999x99999999"])
def test_names(world: World, name: str) -> None:
    sentence = ["self:SAMPLESxTOKENS", name]
    world.refused(["prune", "--model=model", f"--calibration={name}", "--output=run2"], *sentence)
    world.refused(["finetune", "--model=model", f"--data={name}", "--output=run2"], *sentence)


def test_sequences_that_the_model_does_not_take(world: World) -> None:
    world.refused(["prune", "--model=model", "--calibration=self:2x100000", "--output=run2"], "100000")


def test_places_that_hold_something_else(world: World) -> None:
    """Before anything is drawn."""
    world.refused(["prune", "--model=model", "--calibration=self:4x8", "--output=model"], "--output", "model")


def test_continuations(world: World) -> None:
    tune = ["finetune", "--model=model", "--steps=1", f"--output={world.output}"]
    world.refused([*tune, "--data=tokens.npy", "--continuations=99999999999"], "99999999999 continuations")
    world.refused([*tune, "--data=tokens.npy", "--continuations=1", "--sequence-length=2", "--samples=1", "--held-out=0",
                   "--begin=1"], "--begin")  # fmt: skip


def test_presets_and_the_last_stage(world: World) -> None:
    world.refused(world.prune("--preset=most"), "--preset", "'most'", "fast, paper, best")
    world.refused(world.prune("--finetune-epochs=-1"), "--finetune-epochs", "'-1'")
    world.refused(world.prune("--finetune-epochs=1", "--finetune-batch=0"), "--finetune-batch", "'0'")
    world.refused(world.prune("--preset=best", output=world.model), "--output", "--model itself")
    world.refused(["prune", "--model=model", "--calibration=tokens.npy", "--preset=best"], "--output", "is missing")
    world.refused(world.prune("--preset=best", "--only-blocks=0-0"), "--only-blocks", "--finetune-epochs")
    world.refused(world.prune("--finetune-epochs=1", "--finetune-continuations=99999999999"), "99999999999", "billion")
    world.refused(world.prune("--finetune-epochs=1", "--finetune-learning-rate=x"), "--finetune-learning-rate", "'x'")
    world.refused(["plan", "--model=model", "--finetune-epochs=1", "--continuations=99999999999"], "99999999999")
    (world.model / "model.safetensors").write_bytes((world.model / "model.safetensors").read_bytes()[:-8])
    world.refused(world.prune("--preset=best"), "model.safetensors")
