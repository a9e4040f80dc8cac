"""jobs/import_pytorch.py on what torch.save and transformers write gives the same model."""

import sys
from pathlib import Path

import pytest
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "jobs"))
import import_pytorch  # noqa: E402


def make_model(folder: Path, dtype: torch.dtype, **options: object) -> transformers.LlamaForCausalLM:
    """A small model saved with pickled weights, as models of 2023 are."""
    torch.manual_seed(1)
    config = transformers.LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                                      num_key_value_heads=2, vocab_size=128, **options)
    model = transformers.LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder, safe_serialization=False, max_shard_size="100KB" if not options else "1GB")
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_same_model(dtype: torch.dtype, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", dtype)
    assert len(list((tmp_path / "model").glob("*.bin"))) > 1
    assert import_pytorch.main([str(tmp_path / "model"), str(tmp_path / "out")]) == 0
    imported, loading = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", torch_dtype="auto", output_loading_info=True)
    assert not any(loading.values()), loading
    assert imported.dtype == dtype
    expected = model.state_dict()
    assert imported.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in imported.state_dict().items())


def test_a_tied_head_and_parameters_and_views(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", torch.float32, tie_word_embeddings=True)
    tensors = dict(model.state_dict())
    tensors["model.norm.weight"] = torch.nn.Parameter(torch.arange(64.0))
    up_proj = "model.layers.0.mlp.up_proj.weight"
    tensors[up_proj] = tensors[up_proj].t().contiguous().t()  # column by column in memory
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.arange(8.0)
    torch.save(tensors, tmp_path / "model/pytorch_model.bin")
    assert import_pytorch.main([str(tmp_path / "model"), str(tmp_path / "out")]) == 0
    imported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert torch.equal(imported["model.norm.weight"], torch.arange(64.0))
    assert torch.equal(imported[up_proj], tensors[up_proj])
    assert torch.equal(imported["lm_head.weight"], tensors["model.embed_tokens.weight"])


def test_the_format_before_1_6_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = make_model(tmp_path / "model", torch.float16, tie_word_embeddings=True)
    torch.save(model.state_dict(), tmp_path / "model/pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert import_pytorch.main([str(tmp_path / "model"), str(tmp_path / "out")]) == 2
    assert "PyTorch before 1.6" in capsys.readouterr().err and not (tmp_path / "out").exists()


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
