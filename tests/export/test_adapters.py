"""An exported adapter is what peft loads on the exported base: every token is as likely as in the trained run."""

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
sys.path.insert(0, str(ROOT / "tests" / "oracle"))
from request_file import write_requests  # noqa: E402

ESPALIER = os.environ.get("ESPALIER", str(ROOT / "build/release/espalier"))
LENGTH = 24

torch.set_num_threads(1)


def espalier(*arguments: object) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([ESPALIER, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def likelihoods_of(model: torch.nn.Module, tokens: numpy.ndarray) -> numpy.ndarray:
    """log p of every token but the first of each sample."""
    with torch.no_grad():
        ids = torch.from_numpy(tokens.astype(numpy.int64))
        logarithms = torch.log_softmax(model(input_ids=ids).logits[:, :-1], -1)
        return logarithms.gather(-1, ids[:, 1:, None])[..., 0].numpy()


def our_likelihoods(model: Path, tokens: numpy.ndarray, folder: Path) -> numpy.ndarray:
    items = [(row[:i].tolist(), [[int(row[i])]]) for row in tokens for i in range(1, len(row))]
    write_requests(folder / "requests.h5", items)
    espalier("score", "--model", model, "--requests", folder / "requests.h5", "--output", folder / "scores.json")
    (task,) = json.loads((folder / "scores.json").read_text())["tasks"]
    return numpy.array([item["log_likelihoods"][0] for item in task["items"]]).reshape(len(tokens), -1)


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
    ids = numpy.load(tokens)[:4]
    model = transformers.AutoModelForCausalLM.from_pretrained(base, torch_dtype=torch.float32, attn_implementation="eager")
    without = likelihoods_of(model.eval(), ids)
    with_adapter = likelihoods_of(peft.PeftModel.from_pretrained(model, adapter).eval(), ids)
    numpy.testing.assert_allclose(with_adapter, our_likelihoods(tuned, ids, tmp_path), rtol=2e-5, atol=2e-5)
    assert numpy.abs(with_adapter - without).max() > 1e-2
