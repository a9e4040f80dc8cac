"""prepare_requests.py with a small byte-level tokenizer."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import textwrap
import types
from pathlib import Path

import h5py
import pytest
from small_tokenizer import save_tokenizer
from tokenizers import Tokenizer

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
prepare_requests = importlib.import_module("prepare_requests")
cloze = importlib.import_module("tasks.cloze")


@pytest.fixture(name="tokenizer")
def tokenizer_in_model_folder(tmp_path: Path) -> Tokenizer:
    """A tokenizer saved in tmp_path/model."""
    return save_tokenizer(tmp_path / "model")


def run(tmp_path: Path, kind: str, *more: object, tokenizer: str = "model") -> int:
    """Call the script's main with output tmp_path/out.h5."""
    fixed = ["--tokenizer", str(tmp_path / tokenizer), "--output", str(tmp_path / "out.h5")]
    return prepare_requests.main([kind, *fixed, *map(str, more)])


def read(tmp_path: Path, tokenizer: Tokenizer) -> list[dict]:
    """The items of the written file, with texts again."""
    with h5py.File(tmp_path / "out.h5") as file:
        content = {name: file[name][:].tolist() for name in file}
        tasks = json.loads(file.attrs["tasks"])

    def texts(kind: str, request: int) -> str:
        begin, end = content[f"{kind}_begin"][request : request + 2]
        return tokenizer.decode(content[f"{kind}_ids"][begin:end], skip_special_tokens=False)

    items = []
    for item, gold in enumerate(content["gold"]):
        requests = range(*content["item_begin"][item : item + 2])
        items.append(
            {
                "task": tasks[content["task"][item]],
                "gold": gold,
                "requests": [(texts("context", r), texts("continuation", r)) for r in requests],
                "characters": [content["characters"][r] for r in requests],
                "bytes": [content["bytes"][r] for r in requests],
            }
        )
    return items


def write_lines(path: Path, *records: object) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_json_lines(tmp_path: Path, tokenizer: Tokenizer):
    first = write_lines(tmp_path / "sums.jsonl", {"context": "One and one is", "choices": ["two", "thrée"], "answer": 0})
    second = write_lines(
        tmp_path / "words.jsonl",
        {"context": "The sky is  ", "choices": ["blue", "a"], "answer": 1},
        {"context": "Say", "choices": ["yes"], "answer": 0},
    )
    second.write_text(second.read_text() + '{"context": "Two\u2028lines", "choices": ["yes"], "answer": 0}\n')
    assert run(tmp_path, "json-lines", "--items", first, second) == 0
    items = read(tmp_path, tokenizer)
    assert items[0] == {
        "task": "sums",
        "gold": 0,
        "requests": [("One and one is", " two"), ("One and one is", " thrée")],
        "characters": [3, 5],
        "bytes": [3, 6],
    }
    # Blanks at a context's end belong to the continuation.
    assert items[1]["requests"] == [("The sky is", "   blue"), ("The sky is", "   a")]
    assert items[1]["task"] == "words" and items[1]["gold"] == 1 and items[2]["requests"] == [("Say", " yes")]
    assert items[3]["requests"] == [("Two\u2028lines", " yes")]
    digest = hashlib.sha256((tmp_path / "out.h5").read_bytes()).hexdigest()
    assert run(tmp_path, "json-lines", "--items", first, second) == 0
    assert hashlib.sha256((tmp_path / "out.h5").read_bytes()).hexdigest() == digest


def test_contexts_begin_as_the_tokenizer_says(tmp_path: Path, tokenizer: Tokenizer):
    save_tokenizer(tmp_path / "with-bos", post_processor=True)
    lines = write_lines(tmp_path / "a.jsonl", {"context": "a", "choices": ["b"], "answer": 0})
    assert run(tmp_path, "json-lines", "--items", lines, tokenizer="with-bos") == 0
    assert read(tmp_path, tokenizer)[0]["requests"] == [("<s>a", " b")]
    assert run(tmp_path, "json-lines", "--items", lines, "--no-add-bos", tokenizer="with-bos") == 0
    assert read(tmp_path, tokenizer)[0]["requests"] == [("a", " b")]


def test_a_context_that_begins_with_bos_gets_no_second_one(tmp_path: Path, tokenizer: Tokenizer):
    save_tokenizer(tmp_path / "with-bos", post_processor=True)
    lines = write_lines(tmp_path / "a.jsonl", {"context": "<s>a", "choices": ["b"], "answer": 0})
    assert run(tmp_path, "json-lines", "--items", lines, tokenizer="with-bos") == 0
    assert read(tmp_path, tokenizer)[0]["requests"] == [("<s>a", " b")]


def test_without_a_context_there_is_bos_or_eos(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
):
    lines = write_lines(tmp_path / "a.jsonl", {"context": "", "choices": ["ab", "c"], "answer": 0})
    words = ["json-lines", "--items", lines, "--delimiter", ""]
    assert run(tmp_path, *words) == 0
    assert read(tmp_path, tokenizer)[0]["requests"] == [("<s>", "ab"), ("<s>", "c")]
    config = tmp_path / "model" / "tokenizer_config.json"
    config.write_text(json.dumps({"bos_token": None, "eos_token": {"content": "e"}}))
    assert run(tmp_path, *words) == 0
    assert read(tmp_path, tokenizer)[0]["requests"] == [("e", "ab"), ("e", "c")]
    config.write_text("{}")
    capsys.readouterr()
    assert run(tmp_path, *words) == 2
    assert "names neither bos_token nor eos_token" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no items"),
        ("[1]\n", "line 1 is not a JSON object"),
        ('\n{"context": "a"\n', "line 2 is not JSON"),
        ('{"context": "a", "choices": ["b"]}\n', "no 'answer'"),
        ('{"context": 1, "choices": ["b"], "answer": 0}\n', "'context' is not a string"),
        ('{"context": "a", "choices": ["b", ""], "answer": 0}\n', "'choices' is not a list"),
        ('{"context": "a", "choices": ["b"], "answer": 1}\n', "'answer' is 1; an index from 0 to 0"),
        ('{"context": "a", "choices": ["b"], "answer": true}\n', "'answer' is True"),
        ('{"context": "a", "choices": ["\\ud800"], "answer": 0}\n', "half of a surrogate pair"),
        ('{"context": " ", "choices": ["b"], "answer": 0}\n', "the context of"),
    ],
)
@pytest.mark.usefixtures("tokenizer")
def test_wrong_lines_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, words: str):
    (tmp_path / "a.jsonl").write_text(content)
    assert run(tmp_path, "json-lines", "--items", tmp_path / "a.jsonl") == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.usefixtures("tokenizer")
def test_tasks_need_names_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    line = {"context": "a", "choices": ["b"], "answer": 0}
    (tmp_path / "other").mkdir()
    files = [write_lines(tmp_path / "a.jsonl", line), write_lines(tmp_path / "other/a.jsonl", line)]
    assert run(tmp_path, "json-lines", "--items", *files) == 2
    assert "two tasks would be called 'a'" in capsys.readouterr().err


def prose(sentences: int) -> str:
    """Sentences of about the same length, all different."""
    return " ".join(f"Sentence number {i} says {'more ' * (5 + i % 3)}about the matter {i}." for i in range(sentences))


def test_cloze_asks_for_the_sentence_that_follows(tmp_path: Path, tokenizer: Tokenizer):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(textwrap.wrap(prose(120), 72)) + "\n\f\n" + prose(50).replace("matter", "subject"))
    options = ["--text", text, "--items", 40, "--context-characters", 100]
    assert run(tmp_path, "cloze", *options) == 0
    items = read(tmp_path, tokenizer)
    assert len(items) == 40 and len({item["gold"] for item in items}) == 4
    whole = " ".join(text.read_text().split())
    asked = set()
    for item in items:
        contexts, sentences = zip(*item["requests"])
        right = sentences[item["gold"]]
        asked.add(contexts[0] + right)
        assert len(set(contexts)) == 1 and len(contexts[0]) >= 100 and len(set(sentences)) == 4
        assert contexts[0] + right in whole
        for sentence in sentences:
            assert sentence[1:] in whole and abs(len(sentence) - len(right)) <= len(right) / 4
            assert sentence == right or contexts[0] + sentence not in whole
    assert len(asked) == 40
    first = (tmp_path / "out.h5").read_bytes()
    assert run(tmp_path, "cloze", *options) == 0 and (tmp_path / "out.h5").read_bytes() == first
    assert run(tmp_path, "cloze", *options, "--seed", 1) == 0 and (tmp_path / "out.h5").read_bytes() != first


@pytest.mark.usefixtures("tokenizer")
def test_cloze_says_how_many_items_a_text_is_good_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "text.txt").write_text(prose(30))
    assert run(tmp_path, "cloze", "--text", tmp_path / "text.txt", "--items", 40, "--context-characters", 100) == 2
    assert "good for 2" in capsys.readouterr().err


def test_sentences_do_not_cross_paragraphs():
    document = f"{prose(6)}\n\nA heading of its own\n\n{prose(6)}"
    places = list(cloze.places_of([document], 60))
    sentences = [place.sentence for place in places]
    assert sentences and not any("\n" in sentence for sentence in sentences)
    assert "A heading of its own" not in " ".join(sentences)
    assert any(place.context.endswith("A heading of its own") for place in places)


def test_sentences_of_other_alphabets():
    document = " ".join(f"Предложение номер {i} говорит ещё кое-что об этом деле {i}." for i in range(9))
    assert len(list(cloze.places_of([document], 60))) == 7


class HarnessTask:
    """What prepare_requests.py uses of a task of lm-evaluation-harness."""

    def __init__(self, kind: str, documents: list[dict], multiple_input: bool = False, **config: object) -> None:
        self.OUTPUT_TYPE, self.documents, self.multiple_input = kind, documents, multiple_input
        self.instances: list[types.SimpleNamespace] = []
        self.config = types.SimpleNamespace(**{"num_fewshot": None, "process_results": None, **config})

    def get_config(self, key: str) -> object:
        return getattr(self.config, key)

    def set_config(self, key: str, value: object) -> None:
        setattr(self.config, key, value)

    def set_fewshot_seed(self, seed: int) -> None:
        self.config.seed = seed

    def build_all_requests(self, limit: int | None, rank: int, world_size: int) -> None:
        assert (rank, world_size) == (0, 1)
        if not self.documents:
            raise ValueError("did not find any docs\nat all")
        for number, document in enumerate(self.documents[:limit]):
            for index, pair in enumerate(document["pairs"]):
                instance = types.SimpleNamespace(doc=document, doc_id=number, idx=index, args=pair)
                self.instances.insert(0, instance)  # the order is not the harness's promise

    def doc_to_choice(self, document: dict) -> list[str]:
        return document["choices"]

    def doc_to_target(self, document: dict) -> object:
        return document["target"]

    def doc_to_text(self, document: dict) -> object:
        return document["text"]


@pytest.fixture(name="harness")
def made_up_harness(monkeypatch: pytest.MonkeyPatch) -> dict[str, HarnessTask]:
    """A package lm_eval whose tasks are those of the returned dictionary."""
    tasks: dict[str, HarnessTask] = {}
    module = types.ModuleType("lm_eval.tasks")
    module.TaskManager = lambda include_path: types.SimpleNamespace(all_tasks=[*tasks, "group"])
    module.get_task_dict = lambda names, manager: {"group": tasks} if names == ["group"] else {n: tasks[n] for n in names}
    monkeypatch.setitem(sys.modules, "lm_eval", types.ModuleType("lm_eval"))
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", module)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.4" if name == "lm_eval" else "")
    return tasks


def test_tasks_of_the_harness(tmp_path: Path, tokenizer: Tokenizer, harness: dict[str, HarnessTask]):
    two = [("Q", " yes"), ("Q", " no")]
    harness["letters"] = HarnessTask("multiple_choice", [{"pairs": two, "choices": ["yes", "no"], "target": "no"}])
    # Contexts differ, continuations do not; and the requests of acc_mutual_info come last.
    pairs = [("He", " went"), ("She", " went"), ("", " went"), ("", " went")]
    harness["pronouns"] = HarnessTask("multiple_choice", [{"pairs": pairs, "choices": ["He", "She"], "text": 1}], True)
    harness["last"] = HarnessTask("loglikelihood", [{"pairs": [("The sky is", " blue")]}] * 3)
    harness["none"] = HarnessTask("loglikelihood", [{"pairs": [("a", " b")]}], num_fewshot=0)
    assert run(tmp_path, "lm-eval", "--tasks", "group", "--fewshot", 2, "--limit", 2) == 0
    items = read(tmp_path, tokenizer)
    assert [(item["task"], item["gold"]) for item in items] == [
        *(("letters", 1), ("pronouns", 1), ("last", 0), ("last", 0), ("none", 0))
    ]
    assert items[0]["requests"] == two and items[0]["characters"] == [3, 2]
    assert items[1]["requests"] == pairs[:2] and items[2]["requests"] == [("The sky is", " blue")]
    assert harness["letters"].config.num_fewshot == 2 and harness["none"].config.num_fewshot == 0
    with h5py.File(tmp_path / "out.h5") as file:
        assert (file.attrs["lm_eval"], file.attrs["fewshot"], file.attrs["limit"]) == ("0.4", 2, 2)


def test_what_cannot_be_scored_is_refused(
    tmp_path: Path, tokenizer: Tokenizer, harness: dict[str, HarnessTask], capsys: pytest.CaptureFixture[str]
):
    assert tokenizer
    harness["essay"] = HarnessTask("generate_until", [])
    document = {"pairs": [("Q", " a"), ("Q", " b")], "choices": ["a", "b"], "target": [0, 1]}
    harness["several"] = HarnessTask("multiple_choice", [document])
    harness["own"] = HarnessTask("multiple_choice", [document], process_results=len)
    harness["empty"] = HarnessTask("multiple_choice", [])
    for names, words in (
        ("essay", "'generate_until'"),
        ("several", "without one right choice"),
        ("own", "by a function of its own"),
        ("empty", "the requests of empty cannot be built (ValueError: did not find any docs at all)"),
        ("x", "no task x"),
    ):
        assert run(tmp_path, "lm-eval", "--tasks", names) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
    assert not (tmp_path / "out.h5").exists()
