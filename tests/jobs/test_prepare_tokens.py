"""prepare_tokens.py with a small byte-level tokenizer."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import sentencepiece
from small_tokenizer import BOS, save_tokenizer
from tokenizers import Tokenizer

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
prepare_tokens = importlib.import_module("prepare_tokens")

@pytest.fixture(name="tokenizer")
def tokenizer_without_bos(tmp_path: Path) -> Tokenizer:
    """A tokenizer saved in tmp_path/model."""
    return save_tokenizer(tmp_path / "model")


def sentences(count: int, seed: int) -> str:
    """Random lower-case text of `count` characters."""
    generator = random.Random(seed)
    return "".join(generator.choice("abcdefghij klmnop qrstuvwxyz 0123456789") for _ in range(count))


def run(tmp_path: Path, kind: str, text: Path | list[Path], length: int, *more: str, tokenizer: str = "model") -> int:
    """Call the script's main with output tmp_path/out.h5."""
    texts = [str(file) for file in (text if isinstance(text, list) else [text])]
    fixed = ["--tokenizer", str(tmp_path / tokenizer), "--sequence-length", str(length)]
    output = ["--output", str(tmp_path / "out.h5")]
    return prepare_tokens.main([kind, *fixed, *output, "--text", *texts, *more])


def read(tmp_path: Path) -> tuple[np.ndarray, dict[str, object]]:
    """Rows and attributes of the written file."""
    with h5py.File(tmp_path / "out.h5") as file:
        return file["input_ids"][:], dict(file["input_ids"].attrs)


def wanda_samples(documents: list[str], encode, samples: int, length: int, seed: int) -> list[list[int]]:
    """get_c4 of Wanda's lib/data.py, word for word and without any cache."""
    random.seed(seed)
    rows = []
    for _ in range(samples):
        while True:
            i = random.randint(0, len(documents) - 1)
            ids = encode(documents[i])
            if len(ids) > length:
                break
        i = random.randint(0, len(ids) - length - 1)
        rows.append(ids[i : i + length])
    return rows


@pytest.mark.parametrize(("seed", "length"), [(0, 40), (0, 64), (44, 40), (7, 99)])
def test_calibration_follows_wandas_rule(tmp_path, tokenizer, seed, length):
    documents = [sentences(size, size) for size in (30, 100, 41, 500, 40, 64, 65, 5, 300)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": text, "url": "x"}) + "\n" for text in documents))
    assert run(tmp_path, "calibration", tmp_path / "c.jsonl", length, "--samples", "25", "--seed", str(seed)) == 0
    rows, attributes = read(tmp_path)
    assert rows.dtype == np.int32
    assert rows.tolist() == wanda_samples(documents, lambda text: tokenizer.encode(text).ids, 25, length, seed)
    assert (attributes["samples"], attributes["sequence_length"], attributes["seed"]) == (25, length, seed)


def test_documents_come_from_json_lines_gzip_separators_and_whole_files(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(b'{"text": "three"}\n'))
    (tmp_path / "c.txt").write_text("four\n\nstill four\n\f\n\n\f\nfive\n\f\n")
    (tmp_path / "d.txt").write_text("six\fsame line\n")
    files = [tmp_path / name for name in ("a.jsonl", "b.json.gz", "c.txt", "d.txt")]
    documents, digest = prepare_tokens.read_documents(files, "\f")
    assert documents == ["one", "two", "three", "four\n\nstill four", "five", "six\fsame line\n"]
    assert digest == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert prepare_tokens.read_documents([tmp_path / "c.txt"], "five")[0] == ["four\n\nstill four\n\f\n\n\f"]


def test_documents_come_from_json_arrays_and_tables(tmp_path):
    (tmp_path / "a.json").write_text(' [{"text": "one\\n"},\n {"text": "two", "id": 2}]')
    (tmp_path / "b.csv").write_text('id,text\n1,"three, with a\nline break and ""quotes"""\n2,four\n')
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress("text\r\nfünf\r\n".encode()))
    files = [tmp_path / name for name in ("a.json", "b.csv", "c.csv.gz")]
    documents, _ = prepare_tokens.read_documents(files, "\f")
    assert documents == ["one\n", "two", 'three, with a\nline break and "quotes"', "four", "fünf"]


def test_parquet_without_pyarrow_names_the_command_that_installs_it(tmp_path, tokenizer, capsys, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status = run(tmp_path, "evaluation", tmp_path / "a.parquet", 16)
    assert f"{sys.executable} -m pip install pyarrow" in refusal(capsys, tmp_path, status)


def save_sentencepiece(folder: Path, **config: object) -> sentencepiece.SentencePieceProcessor:
    """A small tokenizer.model like LLaMA's (BPE, bytes for what it does not know), alone in its folder."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([sentences(60, seed) for seed in range(200)]), model_writer=model, vocab_size=400,
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, minloglevel=2,
    )  # fmt: skip
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.mark.parametrize(
    ("config", "options", "bos", "eos"),
    [
        ({}, [], True, False),
        ({"add_bos_token": True, "bos_token": {"content": "<s>"}, "legacy": False}, [], True, False),
        ({"add_bos_token": False}, [], False, False),
        ({"add_eos_token": True}, [], True, True),
        ({"add_bos_token": False, "add_eos_token": True}, ["--add-bos"], True, False),
        ({}, ["--no-add-bos"], False, False),
    ],
)
def test_a_folder_with_tokenizer_model_only(tmp_path, config, options, bos, eos):
    processor = save_sentencepiece(tmp_path / "pieces", **config)
    text = "ab cd  ef\n\nGrüße 2024 " * 3
    (tmp_path / "a.txt").write_text(text)
    plain = processor.encode(text)
    expected = [1] * bos + plain + [2] * eos
    status = run(tmp_path, "evaluation", tmp_path / "a.txt", len(expected), *options, tokenizer="pieces")
    assert status == 0
    rows, attributes = read(tmp_path)
    assert rows.tolist() == [expected] and attributes["add_bos"] == int(bos)
    content = (tmp_path / "pieces/tokenizer.model").read_bytes()
    assert attributes["tokenizer_sha256"] == hashlib.sha256(content).hexdigest()


def test_special_tokens_are_cut_out_before_pieces_are_made(tmp_path):
    processor = save_sentencepiece(tmp_path / "pieces", added_tokens_decoder={"400": {"content": "<pad>"}})
    tokenizer = prepare_tokens.load_tokenizer(tmp_path / "pieces", None)
    expected = [1, *processor.encode("ab"), 2, *processor.encode(" cd"), 1, 400, *processor.encode("e")]
    assert tokenizer.encode("ab</s> cd<s><pad>e") == expected
    assert prepare_tokens.load_tokenizer(tmp_path / "pieces/tokenizer.model", None).encode("ab") == expected[:1] + \
        processor.encode("ab")  # fmt: skip


def test_a_tokenizer_json_goes_before_tokenizer_model(tmp_path, tokenizer):
    (tmp_path / "model/tokenizer.model").write_bytes(b"not read")
    assert prepare_tokens.load_tokenizer(tmp_path / "model", None).encode("ab") == tokenizer.encode("ab").ids


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"legacy": False}, "special token '</s>', and tokenizer_config.json says 'legacy': false"),
        ({"bos_token": "<start>"}, "does not know the bos token '<start>'"),
        ({"added_tokens_decoder": {"400": {"content": "<x>", "rstrip": True}}}, "added token '<x>' takes white space"),
    ],
)
def test_refuses_what_tokenizer_model_alone_does_not_decide(tmp_path, capsys, config, reason):
    save_sentencepiece(tmp_path / "pieces", **config)
    (tmp_path / "a.txt").write_text("ab</s>cd")
    assert reason in refusal(capsys, tmp_path, run(tmp_path, "evaluation", tmp_path / "a.txt", 2, tokenizer="pieces"))


def test_a_folder_of_the_hubs_cache_is_its_snapshot(tmp_path, capsys):
    cache = tmp_path / "models--org--name"
    (cache / "refs").mkdir(parents=True)
    (cache / "snapshots").mkdir()
    (cache / "refs/main").write_text("abc\n")
    (tmp_path / "a.txt").write_text(sentences(100, 1))
    arguments = ("evaluation", tmp_path / "a.txt", 16)
    status = run(tmp_path, *arguments, tokenizer="models--org--name")
    assert "names the snapshot abc, which is not there" in refusal(capsys, tmp_path, status)
    tokenizer = save_tokenizer(cache / "snapshots/abc")
    assert run(tmp_path, *arguments, tokenizer="models--org--name") == 0
    assert read(tmp_path)[0].ravel().tolist() == tokenizer.encode(sentences(100, 1)).ids[:96]
    (cache / "refs/main").unlink()
    (tmp_path / "out.h5").unlink()
    status = run(tmp_path, *arguments, tokenizer="models--org--name")
    assert "refs/main cannot be read" in refusal(capsys, tmp_path, status)


def test_evaluation_is_one_string_cut_into_windows(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text(sentences(100, 1) + "\n")
    (tmp_path / "b.txt").write_text("b1\n\f\nb2")
    assert run(tmp_path, "evaluation", [tmp_path / "a.txt", tmp_path / "b.txt"], 16) == 0
    rows, attributes = read(tmp_path)
    whole = tokenizer.encode(sentences(100, 1) + "\n" + "\n\n" + "b1" + "\n\n" + "b2").ids
    assert len(whole) % 16 != 0  # so there is a tail to drop
    assert rows.ravel().tolist() == whole[: len(whole) // 16 * 16]
    assert (attributes["kind"], attributes["samples"]) == ("evaluation", len(whole) // 16)
    assert attributes["dataset"] == "a.txt, b.txt"
    assert "seed" not in attributes


def test_attributes_name_the_sources(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text(sentences(100, 1))
    assert run(tmp_path, "evaluation", tmp_path / "a.txt", 16) == 0
    attributes = read(tmp_path)[1]
    assert attributes["text_sha256"] == hashlib.sha256((tmp_path / "a.txt").read_bytes()).hexdigest()
    tokenizer_json = (tmp_path / "model/tokenizer.json").read_bytes()
    assert attributes["tokenizer_sha256"] == hashlib.sha256(tokenizer_json).hexdigest()
    assert attributes["add_bos"] == 0 and attributes["sampling_rule"].startswith("WikiText-2")
    assert attributes["created_by"].startswith("prepare_tokens.py")


@pytest.mark.parametrize(
    ("post_processor", "options", "bos"),
    [
        (False, [], False),
        (True, [], True),
        (False, ["--add-bos"], True),
        (True, ["--add-bos"], True),
        (True, ["--no-add-bos"], False),
    ],
)
def test_bos_comes_once_and_only_where_asked(tmp_path, post_processor, options, bos):
    tokenizer = save_tokenizer(tmp_path / "bos", post_processor)
    (tmp_path / "a.txt").write_text("abcdefgh" * 4)
    assert run(tmp_path, "evaluation", tmp_path / "a.txt", 8, *options, tokenizer="bos") == 0
    rows, attributes = read(tmp_path)
    plain = tokenizer.encode("abcdefgh" * 4, add_special_tokens=False).ids
    expected = [tokenizer.token_to_id(BOS), *plain] if bos else plain
    assert rows.ravel().tolist() == expected[:32] and attributes["add_bos"] == int(bos)


def test_same_input_gives_the_same_bytes(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text(sentences(3000, 1))
    contents = []
    for _ in range(2):
        assert run(tmp_path, "calibration", tmp_path / "a.txt", 32, "--samples", "20") == 0
        contents.append((tmp_path / "out.h5").read_bytes())
    assert contents[0] == contents[1]


def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path, status: int) -> str:
    """The one line of a refused run, which must leave no file."""
    message = capsys.readouterr().err
    assert status == 2 and message.count("\n") == 1
    assert not list(tmp_path.glob("out.h5*"))
    return message


def test_refuses_when_no_document_is_long_enough(tmp_path, tokenizer, capsys):
    (tmp_path / "a.txt").write_text("a" * 32 + "\n\f\n" + "b" * 10)  # a document of exactly T tokens does not do
    status = run(tmp_path, "calibration", tmp_path / "a.txt", 32)
    assert "none of the 2 documents has more than 32 tokens" in refusal(capsys, tmp_path, status)
    assert run(tmp_path, "calibration", tmp_path / "a.txt", 31, "--samples", "3") == 0


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"short", "only 5 tokens, fewer than one window of 32"),
        ("a.txt", b" \n", "the text is empty"),
        ("a.txt", b"\xff\xfe", "as UTF-8 text"),
        ("a.jsonl", b'{"text": "x"}\n{"body": 1}\n', 'a.jsonl, line 2: not a JSON object with a "text" field'),
        ("a.jsonl", b'{"text": 1}\n', 'the "text" field is not a string'),
        ("a.txt.gz", b"not gzip", "cannot read"),
        ("a.json", b'[{"text": "x"}', "a.json is not JSON"),
        ("a.json", b'[{"text": "x"}, 3]', "a.json, record 2: not a JSON object"),
        ("a.csv", b"id,body\n1,x\n", 'a.csv has no column "text"'),
        ("a.csv", b"id,text\n1,x\n2\n", 'a.csv, record 2: no column "text"'),
        ("a.csv", b'text\n"x', "a.csv is not CSV"),
    ],
)
def test_refuses_unusable_text(tmp_path, tokenizer, capsys, name, content, reason):
    (tmp_path / name).write_bytes(content)
    assert reason in refusal(capsys, tmp_path, run(tmp_path, "evaluation", tmp_path / name, 32))


def test_refuses_missing_files_and_broken_tokenizers(tmp_path, tokenizer, capsys):
    text = tmp_path / "a.txt"
    text.write_text(sentences(100, 1))
    assert "cannot read" in refusal(capsys, tmp_path, run(tmp_path, "evaluation", tmp_path / "absent.txt", 32))
    status = run(tmp_path, "evaluation", text, 32, tokenizer="absent")
    assert "cannot read the tokenizer" in refusal(capsys, tmp_path, status)
    (tmp_path / "model/tokenizer_config.json").write_text("{}")
    status = run(tmp_path, "evaluation", text, 32, "--add-bos")
    assert "names no bos_token" in refusal(capsys, tmp_path, status)
    (tmp_path / "model/tokenizer.json").write_text("{}")
    assert "is not a tokenizer.json" in refusal(capsys, tmp_path, run(tmp_path, "evaluation", text, 32))
    (tmp_path / "model/tokenizer.json").unlink()
    (tmp_path / "model/tokenizer.model").write_bytes(b"{}")
    assert "is not a SentencePiece model" in refusal(capsys, tmp_path, run(tmp_path, "evaluation", text, 32))


def test_an_unwritable_output_is_one_sentence(tmp_path, tokenizer, capsys):
    (tmp_path / "a.txt").write_text(sentences(100, 1))
    output = str(tmp_path / "a.txt/out.h5")  # below a file
    arguments = ["--tokenizer", str(tmp_path / "model"), "--text", str(tmp_path / "a.txt"), "--output", output]
    assert prepare_tokens.main(["evaluation", "--sequence-length", "16", *arguments]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_runs_as_a_script(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text(sentences(3000, 1))
    script = [sys.executable, JOBS / "prepare_tokens.py", "calibration", "--sequence-length", "64"]
    files = ["--tokenizer", tmp_path / "model", "--text", tmp_path / "a.txt", "--output", tmp_path / "new/out.h5"]
    done = subprocess.run([*script, *files, "--samples", "4"], capture_output=True, text=True, check=True)
    assert "calibration, 4 rows of 64 tokens" in done.stdout and done.stderr == ""
    bad = subprocess.run([*script, *files, "--samples", "0"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2 and "0 is not positive" in bad.stderr


def test_a_file_system_without_locks(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Whatever HDF5_USE_FILE_LOCKING says, as site modules set it."""
    del tokenizer  # saved in tmp_path/model
    source = JOBS.parent / "tests" / "faults" / "refuse_calls.c"
    library = tmp_path / "refuse_calls.so"
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
    (tmp_path / "text.txt").write_text(sentences(400, 1))
    mount = tmp_path / "mount"
    mount.mkdir()
    environment = {**os.environ, "LD_PRELOAD": str(library), "REFUSED_UNDER": str(mount),
                   "REFUSED_CALLS": "flock=ENOLCK,fcntl_lock=ENOLCK", "HDF5_USE_FILE_LOCKING": "TRUE"}  # fmt: skip
    command = [sys.executable, JOBS / "prepare_tokens.py", "evaluation", "--tokenizer", tmp_path / "model", "--text",
               tmp_path / "text.txt", "--sequence-length", "8", "--output", mount / "out.h5"]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (mount / "out.h5").exists()
