"""jobs/prepare_tokens.py on tokenizer.model gives the ids of transformers' LlamaTokenizer; and it reads Parquet."""

import json
import random
import sys
from pathlib import Path

import h5py
import numpy
import pyarrow
import pyarrow.parquet
import pytest
import sentencepiece
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "jobs"))
import prepare_tokens  # noqa: E402
from formats.text_tokenizer import load_tokenizer  # noqa: E402

TEXTS = ["", " ", "ab cd", "  two  spaces ", "\n\nlines\n", "Grüße, 世界 — 3.14\ttab", "▁ marked ▁▁", "a</s> b<s>c", "<s>",
         "</s></s> x", "<unk>x", "<pad> y<pad>", "a" * 500, "2024 12"]  # fmt: skip


@pytest.fixture(scope="module", name="pieces")
def train_pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer.model like LLaMA's."""
    generator = random.Random(3)
    lines = ["".join(generator.choice("abcdefgh ijkl mnop 0123") for _ in range(60)) for _ in range(200)]
    folder = tmp_path_factory.mktemp("pieces")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "tokenizer"), vocab_size=400, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
        minloglevel=2,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    "config",
    [
        {},
        # OpenLLaMA's
        {"add_bos_token": True, "add_eos_token": False, "model_max_length": 2048, "pad_token": None,
         "sp_model_kwargs": {}, "clean_up_tokenization_spaces": False,
         "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": True, "rstrip": False,
                       "single_word": False}},
        {"add_bos_token": False, "add_eos_token": True},
        {"added_tokens_decoder": {"400": {"content": "<pad>", "lstrip": False, "normalized": False, "rstrip": False,
                                          "single_word": False, "special": True}}, "pad_token": "<pad>"},
    ],
)  # fmt: skip
def test_the_ids_of_transformers(config: dict, pieces: Path) -> None:
    (pieces / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **config}))
    theirs = transformers.LlamaTokenizer.from_pretrained(pieces)
    for add_bos in (None, False):
        ours = load_tokenizer(pieces, add_bos)
        for text in TEXTS:
            expected = theirs.encode(text, add_special_tokens=add_bos is None)
            assert ours.encode(text) == expected, repr(text)


def test_parquet_is_read(pieces: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    texts = ["ab cd " * 10, None, "ef gh " * 20]
    pyarrow.parquet.write_table(pyarrow.table({"url": ["a", "b", "c"], "text": texts}), tmp_path / "a.parquet",
                                row_group_size=1)  # fmt: skip
    (pieces / "tokenizer_config.json").unlink(missing_ok=True)
    arguments = ["evaluation", "--tokenizer", str(pieces), "--sequence-length", "8", "--output", str(tmp_path / "t.h5")]
    assert prepare_tokens.main([*arguments, "--text", str(tmp_path / "a.parquet")]) == 0
    expected = transformers.LlamaTokenizer.from_pretrained(pieces).encode(texts[0] + "\n\n" + texts[2])
    with h5py.File(tmp_path / "t.h5") as file:
        rows = file["input_ids"][:]
    assert numpy.array_equal(rows.ravel(), expected[: rows.size]) and rows.size > len(expected) - 8

    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 damaged")
    for name, reason in (("b", 'has no column "text" of strings'), ("c", "as Parquet")):
        assert prepare_tokens.main([*arguments, "--text", str(tmp_path / f"{name}.parquet")]) == 2
        message = capsys.readouterr().err
        assert reason in message and message.count("\n") == 1


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
