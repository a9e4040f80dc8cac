"""import_gguf.py on tiny GGUF files that the tests write themselves.

Expected values come from formulas written out here (block formats, row order, bfloat16 rounding), not from the packages
that the script uses.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors
from gguf import GGMLQuantizationType as Type
from tokenizers import Tokenizer, pre_tokenizers

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
import_gguf = importlib.import_module("import_gguf")

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KEY_VALUE_HEADS, HEAD_DIM = 64, 96, 2, 4, 2, 16
SPECIAL = ["<|end|>", "<|start|>"]
MERGES = ["h e", "l l", "he ll", "hell o"]
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = SPECIAL + ALPHABET + [merge.replace(" ", "") for merge in MERGES]

BLOCK_TENSORS = {
    "attn_q.weight": ("self_attn.q_proj.weight", (HEADS * HEAD_DIM, HIDDEN), Type.Q4_1),
    "attn_k.weight": ("self_attn.k_proj.weight", (KEY_VALUE_HEADS * HEAD_DIM, HIDDEN), Type.Q8_0),
    "attn_v.weight": ("self_attn.v_proj.weight", (KEY_VALUE_HEADS * HEAD_DIM, HIDDEN), Type.F16),
    "attn_output.weight": ("self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD_DIM), Type.Q4_1),
    "ffn_gate.weight": ("mlp.gate_proj.weight", (INTERMEDIATE, HIDDEN), Type.Q4_1),
    "ffn_up.weight": ("mlp.up_proj.weight", (INTERMEDIATE, HIDDEN), Type.F32),
    "ffn_down.weight": ("mlp.down_proj.weight", (HIDDEN, INTERMEDIATE), Type.Q8_0),
    "attn_norm.weight": ("input_layernorm.weight", (HIDDEN,), Type.F32),
    "ffn_norm.weight": ("post_attention_layernorm.weight", (HIDDEN,), Type.F32),
}
OUTER_TENSORS = {
    "token_embd.weight": ("model.embed_tokens.weight", (len(TOKENS), HIDDEN), Type.Q8_0),
    "output_norm.weight": ("model.norm.weight", (HIDDEN,), Type.F32),
}
PERMUTED_HEADS = {"attn_q.weight": HEADS, "attn_k.weight": KEY_VALUE_HEADS}


def tensor_table(tied: bool = True) -> dict[str, tuple[str, tuple[int, ...], Type, int]]:
    """GGUF name -> Hugging Face name, shape, stored type, heads whose rows are permuted (or 0)."""
    table = {name: (*entry, 0) for name, entry in OUTER_TENSORS.items()}
    if not tied:
        table["output.weight"] = ("lm_head.weight", (len(TOKENS), HIDDEN), Type.F16, 0)
    for block in range(LAYERS):
        for name, (target, shape, kind) in BLOCK_TENSORS.items():
            table[f"blk.{block}.{name}"] = (f"model.layers.{block}.{target}", shape, kind, PERMUTED_HEADS.get(name, 0))
    return table


def add_metadata(writer: gguf.GGUFWriter, **changed: Any) -> None:
    """The keys of a tiny model; `changed` may set layers, scaling, pre, more_merges or add_bos."""
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(changed.get("layers", LAYERS))
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100000.0)
    writer.add_rope_dimension_count(HEAD_DIM)
    if "scaling" in changed:
        writer.add_string("llama.rope.scaling.type", changed["scaling"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changed.get("pre", "smollm"))
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges([*MERGES, *changed.get("more_merges", [])])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(changed.get("add_bos", False))
    writer.add_chat_template("{{ messages }}")


def write_gguf(
    path: Path, architecture: str = "llama", tied: bool = True, left_out: str = "", **changed: Any
) -> dict[str, bytes]:
    """Write a random tiny model, `left_out` aside; returns the stored bytes of each tensor."""
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, architecture)
    add_metadata(writer, **changed)
    stored: dict[str, bytes] = {}
    for name, (_, shape, kind, _) in tensor_table(tied).items():
        values = random.normal(0, 0.1, shape).astype(np.float32)
        if name == "blk.0.attn_norm.weight":
            values[0] = changed.get("norm_weight", values[0])
        data = gguf.quants.quantize(values, kind)
        stored[name] = data.tobytes()
        if name != left_out:
            writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


def decode(data: bytes, kind: Type, shape: tuple[int, ...]) -> np.ndarray:
    """Values of a tensor by the definition of its block format, in float32 as llama.cpp computes them."""
    if kind in (Type.F32, Type.F16):
        return np.frombuffer(data, "<f4" if kind == Type.F32 else "<f2").astype(np.float32).reshape(shape)
    block_bytes = {Type.Q4_1: 20, Type.Q8_0: 34}[kind]
    values: list[np.float32] = []
    for begin in range(0, len(data), block_bytes):
        block = data[begin : begin + block_bytes]
        scale = np.float32(np.frombuffer(block[:2], "<f2")[0])
        if kind == Type.Q8_0:
            values += [scale * np.float32(number) for number in np.frombuffer(block[2:], np.int8)]
        else:
            minimum = np.float32(np.frombuffer(block[2:4], "<f2")[0])
            nibbles = [byte & 15 for byte in block[4:]] + [byte >> 4 for byte in block[4:]]
            values += [scale * np.float32(nibble) + minimum for nibble in nibbles]
    return np.array(values, np.float32).reshape(shape)


def hugging_face_rows(values: np.ndarray, heads: int) -> np.ndarray:
    """Row order by its definition: GGUF row h*hd + 2i + j is Hugging Face row h*hd + j*hd/2 + i."""
    rows = np.empty_like(values)
    for head in range(heads):
        for i in range(HEAD_DIM // 2):
            for j in range(2):
                rows[head * HEAD_DIM + j * HEAD_DIM // 2 + i] = values[head * HEAD_DIM + 2 * i + j]
    return rows


def nearest_bf16(value: np.float32) -> int:
    """Bits of the bfloat16 nearest to a finite value, ties to the even one, found by comparing the two neighbours."""
    low = int(np.float32(value).view(np.uint32)) >> 16
    low_value, high_value = (np.array([bits << 16], np.uint32).view(np.float32)[0] for bits in (low, low + 1))
    to_low, to_high = abs(float(value) - float(low_value)), abs(float(high_value) - float(value))
    if to_low == to_high:
        return low + low % 2
    return low if to_low < to_high else low + 1


def read_safetensors(path: Path) -> dict[str, dict[str, object]]:
    """Name -> dtype, shape and data, through the reference reader."""
    return dict(safetensors.deserialize(path.read_bytes()))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A tied tiny model and its stored bytes."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return path, write_gguf(path)


@pytest.mark.parametrize(("dtype", "stored_as"), [("f32", "F32"), ("f16", "F16"), ("bf16", "BF16")])
def test_values_and_rows_are_exact(model, tmp_path, dtype, stored_as):
    path, stored = model
    assert import_gguf.main([str(path), str(tmp_path / "out"), "--dtype", dtype]) == 0
    written = read_safetensors(tmp_path / "out/model.safetensors")
    assert len(written) == len(stored)
    for name, (target, shape, kind, heads) in tensor_table().items():
        expected = decode(stored[name], kind, shape)
        expected = hugging_face_rows(expected, heads) if heads else expected
        assert written[target]["dtype"] == stored_as and tuple(written[target]["shape"]) == shape
        if dtype == "bf16":
            found = np.frombuffer(written[target]["data"], "<u2")
            assert found.tolist() == [nearest_bf16(value) for value in expected.ravel()], target
        else:
            numpy_type = "<f4" if dtype == "f32" else "<f2"
            assert written[target]["data"] == expected.astype(numpy_type).tobytes(), target


def test_unpermute_undoes_the_conversion_of_llama_cpp():
    weights = np.arange(HEADS * HEAD_DIM * 3, dtype=np.float32).reshape(HEADS * HEAD_DIM, 3)
    converted = weights.reshape(HEADS, 2, HEAD_DIM // 2, 3).swapaxes(1, 2).reshape(weights.shape)  # conversion/llama.py
    assert not np.array_equal(converted, weights)
    assert np.array_equal(import_gguf.unpermute_rows(converted, HEADS), weights)
    assert np.array_equal(import_gguf.unpermute_rows(converted[:, 0], HEADS), weights[:, 0])  # a bias


def test_bf16_rounds_ties_to_even():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8 + 2**-20), 0.0, -0.0, 1e-40], np.float32)
    assert import_gguf.round_to_bf16(values).tolist() == [nearest_bf16(value) for value in values]


def test_header_follows_the_rules_of_the_format(model, tmp_path):
    assert import_gguf.main([str(model[0]), str(tmp_path / "out")]) == 0
    content = (tmp_path / "out/model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0 and content[8:9] == b"{"
    assert header.pop("__metadata__") == {"format": "pt"}
    assert list(header) == sorted(header)
    offsets = [entry["data_offsets"] for entry in header.values()]
    assert offsets[0][0] == 0 and offsets[-1][1] == len(content) - 8 - length
    assert all(before[1] == after[0] for before, after in zip(offsets, offsets[1:]))


def test_configuration(model, tmp_path):
    assert import_gguf.main([str(model[0]), str(tmp_path / "out")]) == 0
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["model_type"] == "llama"
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "head_dim", "vocab_size")
    assert [config[size] for size in sizes] == [HIDDEN, INTERMEDIATE, LAYERS, HEAD_DIM, len(TOKENS)]
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (HEADS, KEY_VALUE_HEADS)
    assert (config["rms_norm_eps"], config["rope_theta"], config["max_position_embeddings"]) == (1e-5, 1e5, 256)
    assert config["tie_word_embeddings"] is True and config["torch_dtype"] == "bfloat16"
    assert config["attention_bias"] is False and config["mlp_bias"] is False
    assert json.loads((tmp_path / "out/generation_config.json").read_text()) == {"bos_token_id": 1, "eos_token_id": 0}
    tokenizer = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert (tokenizer["bos_token"], tokenizer["eos_token"]) == ("<|start|>", "<|end|>")
    assert tokenizer["chat_template"] == "{{ messages }}"


def test_an_output_tensor_means_untied_embeddings(tmp_path):
    write_gguf(tmp_path / "untied.gguf", tied=False)
    assert import_gguf.main([str(tmp_path / "untied.gguf"), str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    assert "lm_head.weight" in read_safetensors(tmp_path / "out/model.safetensors")


def test_tokenizer_splits_digits_applies_merges_and_knows_special_tokens(model, tmp_path):
    assert import_gguf.main([str(model[0]), str(tmp_path / "out")]) == 0
    tokenizer = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    encoded = tokenizer.encode("hello 2024<|end|>")
    assert encoded.tokens == ["hello", "Ġ", "2", "0", "2", "4", "<|end|>"]
    assert encoded.ids == [TOKENS.index(token) for token in encoded.tokens]
    text = "Grüße, 世界 — 3.14\n\ttabs"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.decode(encoded.ids) == "hello 2024"


@pytest.mark.parametrize(("add_bos", "expected"), [(False, ["hello"]), (True, ["<|start|>", "hello"])])
def test_bos_is_added_as_the_file_says(tmp_path, add_bos, expected):
    write_gguf(tmp_path / "m.gguf", add_bos=add_bos)
    assert import_gguf.main([str(tmp_path / "m.gguf"), str(tmp_path / "out")]) == 0
    assert Tokenizer.from_file(str(tmp_path / "out/tokenizer.json")).encode("hello").tokens == expected


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused import prints."""
    assert import_gguf.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "qwen2"}, "architecture 'qwen2' is not supported"),
        ({"left_out": "blk.1.ffn_up.weight"}, "lacks 1 tensor(s), first blk.1.ffn_up.weight"),
        ({"layers": 1}, "has unknown 9 tensor(s), first blk.1.attn_k.weight"),
        ({"layers": 4_000_000_000}, "4000000000 blocks cannot be made of"),
        ({"scaling": "yarn"}, "RoPE scaling of type 'yarn'"),
        ({"more_merges": ["h ello"]}, "merge 'h ello' does not fit"),
        ({"more_merges": ["hello"]}, "merge 'hello' does not fit"),
        ({"pre": "llama-bpe"}, "pre type 'llama-bpe' is not supported"),
        ({"norm_weight": np.nan}, "tensor blk.0.attn_norm.weight holds values that are not finite in bf16"),
        ({"norm_weight": np.finfo(np.float32).max}, "not finite in bf16"),
    ],
)
def test_refuses_what_it_cannot_import(tmp_path, capsys, changes, reason):
    write_gguf(tmp_path / "m.gguf", **changes)
    assert reason in refusal([str(tmp_path / "m.gguf"), str(tmp_path / "out")], capsys)
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]


def test_refuses_values_beyond_the_asked_dtype(tmp_path, capsys):
    write_gguf(tmp_path / "m.gguf", norm_weight=1e5)
    assert "not finite in f16" in refusal([str(tmp_path / "m.gguf"), str(tmp_path / "out"), "--dtype", "f16"], capsys)


def test_refuses_an_unsupported_tensor_type(tmp_path, capsys):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    add_metadata(writer)
    for name, (_, shape, _, _) in tensor_table().items():
        writer.add_tensor(name, np.zeros(shape, np.int8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "unsupported type I8 (24)" in refusal([str(tmp_path / "m.gguf"), str(tmp_path / "out")], capsys)
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]


def test_refuses_truncated_and_foreign_files(model, tmp_path, capsys):
    content = model[0].read_bytes()
    damaged = tmp_path / "damaged.gguf"
    for length in (8, 24, 200, len(content) // 2, len(content) - 1000):
        damaged.write_bytes(content[:length])
        assert "is damaged" in refusal([str(damaged), str(tmp_path / "out")], capsys), length
    damaged.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "is not a GGUF file" in refusal([str(damaged), str(tmp_path / "out")], capsys)
    assert "cannot read" in refusal([str(tmp_path / "absent.gguf"), str(tmp_path / "out")], capsys)
    assert not (tmp_path / "out").exists()


def test_never_touches_an_existing_folder(model, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert "exists already" in refusal([str(model[0]), str(tmp_path / "out")], capsys)
    assert not any((tmp_path / "out").iterdir())


def test_an_interrupted_import_leaves_nothing_and_a_stale_partial_folder_does_no_harm(model, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial/stale").touch()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(import_gguf, "load_tensor", interrupt)
        import_gguf.main([str(model[0]), str(tmp_path / "out")])
    assert not any(tmp_path.iterdir())
    assert import_gguf.main([str(model[0]), str(tmp_path / "out")]) == 0
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    json_files = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    assert names == sorted([*json_files, "model.safetensors"])


def test_runs_as_a_script_with_the_same_bytes_each_time(model, tmp_path):
    for name in ("first", "second"):
        command = [sys.executable, JOBS / "import_gguf.py", model[0], tmp_path / name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "2 blocks, hidden size 64" in done.stdout and done.stderr == ""
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes()
