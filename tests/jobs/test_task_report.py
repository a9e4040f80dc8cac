"""task_report.py: accuracies from scores."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
task_report = importlib.import_module("task_report")


def item(gold: int, likelihoods: list[float], characters: list[int], octets: list[int] | None = None) -> dict:
    """One item of a scores file."""
    greedy = [value > -1 for value in likelihoods]
    return {
        "gold": gold,
        "log_likelihoods": likelihoods,
        "greedy": greedy,
        "characters": characters,
        "bytes": octets or characters,
    }


def write_scores(path: Path, tasks: dict[str, list[dict]], requests: str = "abc") -> Path:
    """A file as `espalier score` writes it."""
    named = [{"name": name, "items": items} for name, items in tasks.items()]
    content = {"format": "espalier-scores", "version": 1, "requests_sha256": requests, "tasks": named}
    path.write_text(json.dumps(content))
    return path


CHOICES = [
    item(0, [-2.0, -3.0], [1, 3]),  # right; by characters the other
    item(1, [-2.0, -3.0], [1, 3]),  # the other way round
    item(0, [-2.0, -2.0], [2, 2]),  # the first of equal ones
    item(1, [-4.0, -4.5], [4, 4], [4, 6]),  # right by bytes only
]


def test_accuracies_are_those_of_the_harness(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    greedy = [item(0, [-0.5], [4]), item(0, [-5.0], [4]), item(0, [-5.0], [4])]
    scores = write_scores(tmp_path / "dense.json", {"arc": CHOICES, "lambada": greedy})
    assert task_report.main([str(scores), "--output", str(tmp_path / "table.json")]) == 0
    tasks = json.loads((tmp_path / "table.json").read_text())["models"]["dense"]
    assert tasks["arc"] == {
        "items": 4,
        "acc": 0.5,
        "acc_stderr": math.sqrt(0.25 / 3),
        "acc_norm": 0.5,
        "acc_norm_stderr": math.sqrt(0.25 / 3),
        "acc_bytes": 0.75,
        "acc_bytes_stderr": math.sqrt(0.1875 / 3),
    }
    assert tasks["lambada"] == {"items": 3, "acc": 1 / 3, "acc_stderr": pytest.approx(1 / 3)}
    lines = capsys.readouterr().out.splitlines()
    tasks_and_means = ["arc acc", "acc_norm", "acc_bytes", "lambada acc", "mean acc", "mean acc_norm", "mean acc_bytes"]
    assert lines[0].split() == " ".join(["Model", *tasks_and_means]).split()
    shares = ["50.0 ± 28.9", "50.0 ± 28.9", "75.0 ± 25.0", "33.3 ± 33.3", "41.7 ± 22.0", "50.0 ± 28.9", "75.0 ± 25.0"]
    assert lines[2].split() == " ".join(["dense", *shares]).split()


def test_models_are_put_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = write_scores(tmp_path / "one.json", {"arc": CHOICES})
    other = write_scores(tmp_path / "other.json", {"arc": CHOICES[:1] * 4})
    assert task_report.main([f"dense={one}", f"wanda 2:4={other}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("dense ") and lines[3].startswith("wanda 2:4 ") and "100.0 ± 0.0" in lines[3]
    assert "mean acc" not in lines[0]


def test_one_item_has_no_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scores = write_scores(tmp_path / "one.json", {"arc": CHOICES[:1]})
    assert task_report.main([str(scores), "--output", str(tmp_path / "table.json")]) == 0
    assert json.loads((tmp_path / "table.json").read_text())["models"]["one"]["arc"]["acc"] == 1
    assert capsys.readouterr().out.splitlines()[2].split() == ["one", "100.0", "0.0"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ('{"format": "espalier-metrics"}', "not what `espalier score` writes"),
        (
            '{"format": "espalier-scores", "version": 1, "requests_sha256": "a", "tasks": [{"name": "arc"}]}',
            "its tasks cannot be read",
        ),
    ],
)
def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, words: str):
    (tmp_path / "a.json").write_text(content)
    assert task_report.main([str(tmp_path / "a.json")]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_scores_of_other_requests_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = write_scores(tmp_path / "one.json", {"arc": CHOICES})
    other = write_scores(tmp_path / "other.json", {"arc": CHOICES}, "def")
    assert task_report.main([str(one), str(other)]) == 2
    assert "other requests than those of 'one'" in capsys.readouterr().err
    assert task_report.main([str(one), str(one)]) == 2
    assert "two files are called 'one'" in capsys.readouterr().err
