"""continue_text.py with a small tokenizer and a program that goes on with every prompt in its own way."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from small_tokenizer import save_tokenizer

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
continue_text = importlib.import_module("continue_text")

# Repeats the prompt's last token, and notes what it was called with.
PROGRAM = """#!{python}
import sys, json, h5py, numpy
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
json.dump([sys.argv[1], words], open({notes!r}, "w"))
ids = numpy.load(words["--prompts"])
length = int(words["--sequence-length"])
if words["--temperature"] == "9.0":
    sys.exit("espalier: --temperature 9 is too hot")
with h5py.File(words["--output"], "w") as file:
    file["input_ids"] = numpy.concatenate([ids, numpy.full((1, length - ids.shape[1]), ids[0, -1])], 1).astype("int32")
"""


@pytest.fixture(name="program")
def program_and_models(tmp_path: Path) -> Path:
    """A program; model/ with a tokenizer, a run of it, and a fine-tuned run of that."""
    save_tokenizer(tmp_path / "model")
    # What was pruned first lies in the folder of the run itself.
    for name, key, base in (("tuned/pruned", "model", str(tmp_path / "model")), ("tuned", "base", "pruned"),
                            ("run", "model", str(tmp_path / "model"))):  # fmt: skip
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "manifest.json").write_text(json.dumps({key: {"path": base}}))
    program = tmp_path / "espalier"
    program.write_text(PROGRAM.format(python=sys.executable, notes=str(tmp_path / "notes.json")))
    program.chmod(0o755)
    return program


def run(program: Path, *words: object) -> int:
    """Call the script's main."""
    return continue_text.main(["--espalier", str(program), *map(str, words)])


def test_every_model_goes_on(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs have the tokenizer of the model that they began with."""
    folder = program.parent
    models = [word for name in ("model", "tuned") for word in ("--model", folder / name)]
    assert run(program, *models, "--prompt", "ab", "--prompt", "ü", "--tokens", 3) == 0
    first, second = "  ab|bbb\n", "  ü|" + b"\xbc\xbc\xbc".decode(errors="replace") + "\n"
    assert capsys.readouterr().out == f"{folder / 'model'}:\n{first}{second}{folder / 'tuned'}:\n{first}{second}"
    command, words = json.loads((folder / "notes.json").read_text())
    assert command == "generate" and words["--model"] == str(folder / "tuned") and words["--sequence-length"] == "5"
    assert words["--temperature"] == "0.0" and words["--samples"] == "1"


def test_text_ends_where_it_ends(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At a token that config.json names: here each of what the program says."""
    folder = program.parent / "model"
    ids = continue_text.load_tokenizer(folder, None).encode("ab")
    (folder / "config.json").write_text(json.dumps({"eos_token_id": [ids[1], 7]}))
    assert run(program, "--model", folder, "--prompt", "ab") == 0
    assert capsys.readouterr().out == f"{folder}:\n  ab|\n"


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--prompt", ""], "a prompt is empty"),
        (["--prompt", "a", "--temperature", "9"], "too hot"),
        (["--prompt", "a", "--tokenizer", "nowhere"], "nowhere"),
        (["--prompt", "a", "--model", "missing"], "missing is no folder"),
    ],
)
def test_refusals(program: Path, capsys: pytest.CaptureFixture[str], words: list, sentence: str) -> None:
    """Status 2 and one sentence."""
    assert run(program, "--model", program.parent / "run", *words) == 2
    assert sentence in capsys.readouterr().err


def test_a_program_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says how to build it."""
    assert run(tmp_path / "none", "--model", tmp_path, "--prompt", "a") == 2
    assert "cmake" in capsys.readouterr().err
