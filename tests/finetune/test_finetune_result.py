"""What a run of fine-tuning leaves: a model for evaluate, inspect, export and prune."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Dict

import h5py
import numpy
import pytest

from finetune_program import BLOCKS, World, make_world, run, trained_bytes
from checkpoint import read_model_folder

TOLERANCE = 2e-6


def perplexity(model: Path, world: World) -> float:
    said = run(["evaluate", f"--model={model}", f"--tokens={world.folder / 'tokens.npy'}"]).stdout
    return float(re.match(r"perplexity ([\d.]+)", said).group(1))


@pytest.mark.parametrize("training", ["masked-lora", "masked"])
def test_merged_export_keeps_every_zero(world: World, tmp_path: Path, training: str) -> None:
    output, exported, pruned = tmp_path / "run", tmp_path / "exported", tmp_path / "pruned"
    run(world.finetune(training, output))
    inspected = run(["inspect", str(output), f"--model={world.folder / 'dense'}"]).stdout
    zeros = re.search(r"checked: all (\d+) zeros of .*/pruned, one by one", inspected)
    assert zeros and "all holds" in inspected and "50.0000%" in inspected
    run(["export", f"--run={output}", f"--output={exported}"])
    run(["export", f"--run={world.folder / 'pruned'}", f"--output={pruned}"])
    before, after = read_model_folder(pruned), read_model_folder(exported)
    assert sorted(before.tensors) == sorted(after.tensors)
    counted = 0
    for name in before.tensors:
        if not name.endswith("_proj.weight"):
            continue
        assert bool(((before.value(name) == 0) == (after.value(name) == 0)).all()), name
        assert bool((before.value(name) != after.value(name)).any()), name
        counted += int((after.value(name) == 0).sum())
    assert counted == int(zeros.group(1))
    assert perplexity(exported, world) == pytest.approx(perplexity(output, world), rel=TOLERANCE)
    if training == "masked-lora":  # the other follows its teacher only, not the text
        assert perplexity(output, world) < 0.98 * perplexity(world.folder / "pruned", world)
    provenance = json.loads((exported / "pruning.json").read_text())
    assert provenance["finetuning"]["options"]["train"] == training and provenance["options"]["method"] == "wanda"
    assert "all holds" in run(["inspect", str(exported)]).stdout
    # And it can be trained on, and pruned again, as any model.
    run([word.replace(f"--model={world.folder / 'pruned'}", f"--model={exported}")
         for word in world.finetune(training, tmp_path / "again", steps=1)])  # fmt: skip


def test_an_export_has_the_norms_of_all_runs_that_led_to_it(world: World, tmp_path: Path) -> None:
    """Trained in the first run, kept by the second, which is then pruned further."""
    first, second, third, exported = (tmp_path / name for name in ("first", "second", "third", "exported"))
    run(world.finetune("masked-lora", first))
    again = [word.replace(f"--model={world.folder / 'pruned'}", f"--model={first}") for word in world.finetune("lora", second)]
    run([word.replace("--train=lora", "--train=masked") for word in again if not word.startswith("--dropout")])
    run(["prune", f"--model={second}", f"--calibration={world.folder / 'tokens.npy'}", f"--output={third}",
         "--method=magnitude", "--pattern=1:4"])  # fmt: skip
    run(["export", f"--run={third}", f"--output={exported}"])
    assert perplexity(exported, world) == pytest.approx(perplexity(third, world), rel=TOLERANCE)
    inspected = run(["inspect", str(first), f"--model={world.folder / 'dense'}"]).stdout
    assert "(the norms were trained)" in inspected and "all holds" in inspected
    refused = run(["finetune", f"--model={second}", f"--data={world.folder / 'tokens.npy'}", f"--output={first}", "--fresh"], status=2)
    assert "is what --model is built on" in refused.stderr and (first / "manifest.json").exists()


def test_plain_lora_is_not_merged_unasked(world: World, tmp_path: Path) -> None:
    output, exported = tmp_path / "run", tmp_path / "exported"
    run(world.finetune("lora", output))
    refused = run(["export", f"--run={output}", f"--output={exported}"], status=2).stderr
    assert "--merge-masked" in refused and "--adapter" in refused and not exported.exists()
    said = run(["export", f"--run={output}", f"--output={exported}", "--merge-masked"]).stderr
    before, after = map(float, re.search(r"held-out samples goes from ([\d.]+) to ([\d.]+)", said).groups())
    assert before < after
    assert "all holds" in run(["inspect", str(exported)]).stdout
    assert "the model is dense" in run(["inspect", str(output)]).stderr
    for option in ("--adapter", "--merge-masked"):
        words = ["export", f"--run={world.folder / 'pruned'}", f"--output={tmp_path / 'none'}", option]
        assert "is for runs of finetune --train lora" in run(words, status=2).stderr


def test_adapter_of_fused_matrices(tmp_path: Path) -> None:
    """Its update of a tensor that holds three matrices is what was trained of each."""
    world = make_world(tmp_path, "phi3")
    output, adapter = tmp_path / "run", tmp_path / "adapter"
    arguments = [word.replace("q_proj,down_proj", "q_proj,v_proj,down_proj") for word in world.finetune("lora", output)]
    run(arguments)
    run(["export", f"--run={output}", f"--output={adapter}", "--adapter", "--base=PRUNED"])
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "qkv_proj"] and config["base_model_name_or_path"] == "PRUNED"
    assert config["rank_pattern"] == {"qkv_proj": 8} and config["alpha_pattern"] == {"qkv_proj": 64.0}
    tensors = read_adapter(adapter / "adapter_model.safetensors")
    with h5py.File(output / "blocks" / "00001.h5", "r") as file:
        attention = file["model/layers/1/self_attn"]
        update = {name: attention[name]["lora_B/weight"][()] @ attention[name]["lora_A/weight"][()]
                  for name in ("q_proj", "v_proj")}  # fmt: skip
    prefix = "base_model.model.model.layers.1.self_attn.qkv_proj"
    fused = tensors[f"{prefix}.lora_B.weight"] @ tensors[f"{prefix}.lora_A.weight"]
    rows = len(update["q_proj"])
    numpy.testing.assert_allclose(fused[:rows], update["q_proj"], rtol=1e-5, atol=1e-8)
    numpy.testing.assert_allclose(fused[-len(update["v_proj"]) :], update["v_proj"], rtol=1e-5, atol=1e-8)
    assert not fused[rows : -len(update["v_proj"])].any()


def read_adapter(file: Path) -> Dict[str, numpy.ndarray]:
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__")
    return {name: numpy.frombuffer(content[8 + size :][slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
            for name, entry in header.items()}  # fmt: skip


def test_what_cannot_be_used_is_said(world: World, tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(world.finetune("masked-lora", output))
    refused = run(["export", f"--run={output}", f"--output={tmp_path / 'a'}", "--adapter"], status=2).stderr
    assert "is for runs of finetune --train lora" in refused
    moved = tmp_path / "moved"
    shutil.copytree(output, moved)
    file = moved / "blocks" / "00001.h5"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert "is not the file that the manifest names" in run(["inspect", str(moved)], status=2).stdout
    assert str(file) in run(["evaluate", f"--model={moved}", f"--tokens={world.folder / 'tokens.npy'}"], status=2).stderr
    (moved / "config.json").write_text((moved / "config.json").read_text() + "\n")
    assert "config.json is not the file" in run(["inspect", str(moved)], status=2).stderr
    shutil.copy(output / "config.json", moved / "config.json")
    manifest = json.loads((output / "manifest.json").read_text())
    renamed = json.loads(json.dumps(manifest))
    renamed["blocks"][0]["file"] = "blocks/00007.h5"
    (moved / "manifest.json").write_text(json.dumps(renamed))
    assert "block 0 has a wrong file name" in run(["inspect", str(moved)], status=2).stderr
    manifest["base"]["path"] = str(world.folder / "dense")
    (moved / "manifest.json").write_text(json.dumps(manifest))
    assert "is not the model that" in run(["inspect", str(moved)], status=2).stderr
    assert len(trained_bytes(output)) == BLOCKS + 1


def test_metrics_tell_the_run(world: World, tmp_path: Path) -> None:
    run(world.finetune("masked-lora", tmp_path / "run"))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics["curves"]["steps"]) == 7 and metrics["best_steps"] in (2, 4, 6, 7)
    assert metrics["trained_values"] > 1000 and metrics["flops"] > 1e6 and metrics["peak_bytes"] > 1e5
    links = h5py.File(tmp_path / "run" / "adapters.h5", "r")
    assert links["model/layers/1/mlp/up_proj/lora_A/weight"].shape[0] == 4 and links["model/norm/weight"].ndim == 1
