"""An exported folder loads in transformers as it is, has the pattern's zeros there, and gives the same perplexity."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import safetensors.torch
import torch
import transformers

ROOT = Path(__file__).resolve().parents[2]
ESPALIER = os.environ.get("ESPALIER", str(ROOT / "build/release/espalier"))
RANDOM_MODEL = ROOT / "tests/oracle/random_model.py"
LENGTH = 16
FAMILIES = ("llama2", "llama3", "llama-bias", "mistral", "qwen2", "qwen3", "phi3", "phi3-mini", "olmo2", "smollm3")
# Debian 12's PyTorch is too old for transformers that know all of them, and Phi-4-mini's part of a head (4.49).
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
TYPES = {family: "llama" if family.startswith("llama") else family.split("-")[0] for family in FAMILIES}
KNOWN = [family for family in FAMILIES if (family != "phi3-mini" or VERSION >= (4, 49)) and
         TYPES[family] in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES]

torch.set_num_threads(1)


def espalier(*arguments: object) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([ESPALIER, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def perplexity(model: torch.nn.Module, tokens: torch.Tensor) -> float:
    """Over windows of LENGTH tokens, each predicted from those before it in its window."""
    losses = []
    with torch.no_grad():
        for window in tokens.flatten().unfold(0, LENGTH, LENGTH):
            losses.append(float(model(input_ids=window[None], labels=window[None]).loss))
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("output_dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("family", KNOWN)
def test_an_export_is_an_ordinary_model(family: str, output_dtype: str, tmp_path: Path) -> None:
    dense, tokens, run, exported = (tmp_path / name for name in ("dense", "tokens.npy", "run", "exported"))
    make = [sys.executable, RANDOM_MODEL, "--family", family, "--dtype", "bf16", "--output", dense,
            "--tokens", tokens, "--rows", "8", "--length", "32", *(["--sharded"] if family == "mistral" else [])]
    subprocess.run(make, check=True)
    espalier("prune", "--model", dense, "--calibration", tokens, "--output", run, "--ro-samples", 4, "--ro-rounds", 1,
             "--ro-learning-rate", "1e-4", "--output-dtype", output_dtype)
    espalier("export", "--run", run, "--output", exported)
    espalier("evaluate", "--model", run, "--tokens", tokens, "--sequence-length", LENGTH, "--json", tmp_path / "ours.json")

    stored = transformers.AutoModelForCausalLM.from_pretrained(exported, torch_dtype="auto")
    assert stored.dtype == getattr(torch, output_dtype)
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        exported, torch_dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not any(loading.values()), loading
    pruned = [module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and "lm_head" not in name]
    assert len(pruned) == (4 if family.startswith("phi3") else 7) * model.config.num_hidden_layers
    for module in pruned:
        zeros = (module.weight.detach().view(module.out_features, -1, 4) == 0).sum(-1)
        assert bool((zeros == 2).all())

    ids = torch.from_numpy(numpy.load(tokens).astype("int64"))
    ours = json.loads((tmp_path / "ours.json").read_text())["perplexity"]
    assert perplexity(model, ids) == pytest.approx(ours, rel=1e-5)


@pytest.mark.skipif(
    not hasattr(transformers, "Mistral3ForConditionalGeneration"), reason="these transformers are older"
)
@pytest.mark.parametrize("output_dtype", ["bfloat16", "float32"])
def test_the_decoder_of_a_model_that_also_sees(output_dtype: str, tmp_path: Path) -> None:
    """Mistral Small 3.1's form: the decoder is pruned, the rest is copied, and the whole loads again."""
    dense, tokens, run, exported = (tmp_path / name for name in ("dense", "tokens.npy", "run", "exported"))
    torch.manual_seed(2)
    text = transformers.MistralConfig(hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
                                      num_key_value_heads=2, head_dim=32, vocab_size=256, sliding_window=None)
    vision = transformers.PixtralVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                                              num_attention_heads=2, image_size=32, patch_size=16)
    config = transformers.Mistral3Config(text_config=text, vision_config=vision, tie_word_embeddings=False)
    transformers.Mistral3ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(dense)
    ids = torch.randint(0, 256, (8, 32), generator=torch.Generator().manual_seed(3))
    numpy.save(tokens, ids.numpy())
    espalier("prune", "--model", dense, "--calibration", tokens, "--output", run, "--ro-samples", 4, "--ro-rounds", 1,
             "--ro-learning-rate", "1e-4", "--output-dtype", output_dtype)
    espalier("export", "--run", run, "--output", exported)
    espalier("evaluate", "--model", run, "--tokens", tokens, "--sequence-length", LENGTH, "--json", tmp_path / "ours.json")
    stored = transformers.Mistral3ForConditionalGeneration.from_pretrained(exported, torch_dtype="auto").state_dict()
    decoder = [value.dtype for name, value in stored.items() if "language_model" in name and "_proj" in name]
    assert set(decoder) == {getattr(torch, output_dtype)}
    model, loading = transformers.Mistral3ForConditionalGeneration.from_pretrained(
        exported, torch_dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not any(loading.values()), loading
    whole = transformers.Mistral3ForConditionalGeneration.from_pretrained(dense, torch_dtype=torch.float32).state_dict()
    for name, value in model.state_dict().items():
        pruned = "language_model" in name and "_proj" in name
        assert torch.equal(value, whole[name]) != pruned, name
    ours = json.loads((tmp_path / "ours.json").read_text())["perplexity"]
    assert perplexity(model, ids) == pytest.approx(ours, rel=1e-5)


def test_an_overlay_shard_is_exported_with_its_values(tmp_path: Path) -> None:
    """weight_map sends two tensors to a shard of their own; their old copies stay in the base shards."""
    dense, tokens, run, exported = (tmp_path / name for name in ("dense", "tokens.npy", "run", "exported"))
    make = ["/usr/bin/python3", RANDOM_MODEL, "--family", "llama2", "--dtype", "bf16", "--output", dense,
            "--tokens", tokens, "--rows", "4", "--length", "32", "--sharded"]
    subprocess.run(make, check=True)
    index_file = dense / "model.safetensors.index.json"
    index = json.loads(index_file.read_text())
    overlay = {}
    for name in ("lm_head.weight", "model.layers.1.mlp.up_proj.weight"):
        with safetensors.safe_open(dense / index["weight_map"][name], "pt") as base:
            overlay[name] = -2 * base.get_tensor(name)
        index["weight_map"][name] = "overlay.safetensors"
    safetensors.torch.save_file(overlay, dense / "overlay.safetensors", {"format": "pt"})
    index_file.write_text(json.dumps(index))
    espalier("prune", "--model", dense, "--calibration", tokens, "--output", run, "--method", "magnitude")
    espalier("export", "--run", run, "--output", exported)
    model = transformers.AutoModelForCausalLM.from_pretrained(exported, torch_dtype="auto").state_dict()
    assert torch.equal(model["lm_head.weight"], overlay["lm_head.weight"])
    pruned, whole = (tensors["model.layers.1.mlp.up_proj.weight"] for tensors in (model, overlay))
    kept = pruned != 0
    assert int(kept.sum()) == pruned.numel() // 2 and torch.equal(pruned[kept], whole[kept])


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
