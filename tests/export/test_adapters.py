"""An exported adapter is what peft loads on the exported base: the logits are those of the trained run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
import transformers

peft = pytest.importorskip("peft", reason="tests/run.sh export installs it for transformers 4.46")

ROOT = Path(__file__).resolve().parents[2]
ESPALIER = os.environ.get("ESPALIER", str(ROOT / "build/release/espalier"))
LENGTH = 24

torch.set_num_threads(1)


def espalier(*arguments: object) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([ESPALIER, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def loss_of(model: torch.nn.Module, tokens: numpy.ndarray) -> float:
    with torch.no_grad():
        ids = torch.from_numpy(tokens.astype(numpy.int64))
        return float(torch.stack([model(input_ids=row[None], labels=row[None]).loss for row in ids]).mean())


@pytest.mark.parametrize("family, targets", [("llama3", "all"), ("qwen2", "q_proj,v_proj"), ("phi3", "q_proj,v_proj,up_proj")])
def test_peft_loads_it_on_the_exported_base(family: str, targets: str, tmp_path: Path) -> None:
    dense, tokens, pruned, base, tuned, adapter = (
        tmp_path / name for name in ("dense", "tokens.npy", "pruned", "base", "tuned", "adapter"))
    subprocess.run([sys.executable, ROOT / "tests/oracle/random_model.py", "--family", family, "--output", dense,
                    "--tokens", tokens, "--rows", "8", "--length", str(LENGTH)], check=True)
    espalier("prune", "--model", dense, "--calibration", tokens, "--output", pruned, "--method", "wanda")
    espalier("export", "--run", pruned, "--output", base)
    espalier("finetune", "--model", pruned, "--data", tokens, "--output", tuned, "--train", "lora", "--rank", 4, "--alpha", 6,
             "--targets", targets, "--steps", 4, "--learning-rate", "2e-2", "--held-out", 0)
    espalier("export", "--run", tuned, "--output", adapter, "--adapter", "--base", base)
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    ids = numpy.load(tokens)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, torch_dtype=torch.float32, attn_implementation="eager")
    without = loss_of(model.eval(), ids)
    with_adapter = loss_of(peft.PeftModel.from_pretrained(model, adapter).eval(), ids)
    espalier("evaluate", "--model", tuned, "--tokens", tokens, "--sequence-length", LENGTH, "--json", tmp_path / "ours.json")
    ours = json.loads((tmp_path / "ours.json").read_text())["loss"]
    assert with_adapter == pytest.approx(ours, rel=2e-5)
    assert abs(with_adapter - without) > 1e-3
