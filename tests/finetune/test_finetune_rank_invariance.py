"""What is trained is the same bits on any number of ranks and threads, wherever the weights lie, under real mpirun."""

from pathlib import Path

import pytest

from finetune_program import TRAININGS, World, losses_of, run, trained_bytes


@pytest.mark.parametrize("training", TRAININGS)
def test_bits_are_those_of_one_rank(world: World, tmp_path: Path, training: str) -> None:
    run(world.finetune(training, tmp_path / "one"))
    expected, losses = trained_bytes(tmp_path / "one"), losses_of(tmp_path / "one")
    assert sorted(expected) == ["00000.h5", "00001.h5", *(["00002.h5"] if training != "lora" else [])]
    assert len(losses["steps"]) == 7 and [look["steps"] for look in losses["held_out"]] == [0, 2, 4, 6, 7]
    assert losses["held_out"][-1]["total"] < losses["held_out"][0]["total"]
    for ranks, weights, more in [(1, "shared", ["--threads=2"]), (2, "resident", []), (3, "shared", []), (4, "shared", []),
                                 (5, "resident", [])]:  # fmt: skip
        output = tmp_path / f"{ranks}-{weights}"
        arguments = [word for word in world.finetune(training, output, f"--weights={weights}", *more)]
        if more:
            arguments.remove("--threads=1")
        run(arguments, ranks)
        assert trained_bytes(output) == expected, f"{ranks} ranks, {weights} weights"
        assert losses_of(output) == losses
