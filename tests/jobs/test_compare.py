"""compare.sh with a made-up espalier."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from made_up_runs import made_up_metrics
from report_page import parsed

JOBS = Path(__file__).resolve().parents[2] / "jobs"

FAKE_ESPALIER = """#!/usr/bin/env bash
set -eu
printf '%s\\n' "$*" >>"$CALLS"
action=$1
while (($#)); do case $1 in --output) out=$2 ;; --method) method=$2 ;; --json) json=$2 ;; esac; shift; done
case $action in
    prune)
        [[ $method != "${FAILING:-}" ]] || { echo "espalier: no memory" >&2; exit 3; }
        [[ ! -e $out/manifest.json ]] || exit 0
        mkdir -p "$out" && touch "$out/manifest.json" && cp "$METRICS" "$out/metrics.json" ;;
    evaluate) printf '{\\n "perplexity": 20.5,\\n "windows": 9,\\n "seconds": 4.7\\n}\\n' >"$json" ;;
    inspect) printf 'a long table\\nall holds\\n' ;;
    score) cp "$SCORES" "$out" ;;
esac
"""


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that runs compare.sh with a made-up espalier; returns its result and the calls of espalier."""
    fake, calls, metrics = tmp_path / "espalier", tmp_path / "calls", tmp_path / "metrics.json"
    fake.write_text(FAKE_ESPALIER)
    fake.chmod(0o755)
    metrics.write_text(json.dumps(made_up_metrics("wanda")))
    (tmp_path / "model").mkdir()
    item = {"gold": 1, "log_likelihoods": [-2.0, -1.0], "greedy": [False] * 2, "characters": [2, 2], "bytes": [2, 2]}
    scores = {"tasks": [{"name": "cloze", "items": [item, item | {"gold": 0}]}], "requests_sha256": "abc"}
    (tmp_path / "scores.json").write_text(json.dumps({"format": "espalier-scores", "version": 1, **scores}))
    monkeypatch.setenv("SCORES", str(tmp_path / "scores.json"))
    for name in ("model/config.json", "calibration.h5", "evaluation.h5", "cloze.h5"):
        (tmp_path / name).touch()
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setenv("METRICS", str(metrics))
    monkeypatch.chdir(tmp_path)
    usual = ["--model", "model", "--calibration", "calibration.h5", "--evaluation", "evaluation.h5", "--output", "out"]

    def run(*arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        calls.write_text("")
        command = [str(JOBS / "compare.sh"), *usual, "--espalier", str(fake), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False), calls.read_text().splitlines()

    return run


def test_compare_runs_every_step_and_then_reuses_them(tmp_path: Path, compare):
    arguments = ["--methods", "wanda rgs", "--extra-run", "wanda++ at 3e-7", "--method wanda++ --ro-learning-rate 3e-7"]
    shared = ["--samples", "8", "--", "--seed", "1", "--ro-learning-rate=auto", "--alpha", "50", "--device", "cpu"]
    done, calls = compare(*arguments, *shared)
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in calls] == ["evaluate", *["prune", "inspect", "evaluate"] * 3]
    common = "prune --model model --calibration calibration.h5 --output out/runs/"
    assert calls[1] == common + "wanda --method wanda --seed 1 --device cpu --pattern 2:4 --samples 8"
    assert calls[4] == common + "rgs --method rgs --seed 1 --alpha 50 --device cpu --pattern 2:4 --samples 8"
    own = "wanda++_at_3e-7 --method wanda++ --ro-learning-rate 3e-7"
    assert calls[7] == common + own + " --seed 1 --alpha 50 --device cpu --pattern 2:4 --samples 8"
    assert calls[3].endswith("--sequence-length 2048 --json out/perplexity/wanda.json --device cpu")
    assert "[1/3] wanda\n" in done.stdout and "[2/3] rgs, about" in done.stdout and "a long table" not in done.stdout
    assert re.search(r"^wanda\+\+ at 3e-7 +20\.500", done.stdout, re.MULTILINE)
    parsed((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))

    done, calls = compare(*arguments, *shared)
    assert done.returncode == 0 and [call.split()[0] for call in calls] == ["prune"] * 3
    assert "left for all" not in done.stdout


def test_compare_scores_every_model_in_tasks(tmp_path: Path, compare):
    arguments = ["--methods", "wanda", "--requests", "cloze.h5", "--", "--threads", "2"]
    done, calls = compare(*arguments)
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in calls] == ["evaluate", "score", "prune", "inspect", "evaluate", "score"]
    scored = "score --model out/runs/wanda --requests cloze.h5 --output out/scores/wanda.json --threads 2"
    assert calls[5] == scored
    assert re.search(r"^wanda +20\.500 +1\.000 +50 %", done.stdout, re.MULTILINE)
    assert re.search(r"^wanda +50\.0 ± 50\.0 +50\.0 ± 50\.0$", done.stdout, re.MULTILINE)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    parsed(page)
    assert "<h2>Downstream tasks</h2>" in page and "cloze acc" in page
    # They belong to the comparison from now on.
    done, calls = compare("--methods", "wanda magnitude", "--", "--threads", "2")
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in calls] == ["prune", "prune", "inspect", "evaluate", "score"]
    (tmp_path / "other.h5").touch()
    done, calls = compare("--methods", "wanda", "--requests", "other.h5")
    assert done.returncode == 2 and "holds another comparison" in done.stderr and calls == []


def test_tasks_may_be_added_to_a_comparison(compare):
    assert compare("--methods", "wanda")[0].returncode == 0
    done, calls = compare("--methods", "wanda", "--requests", "cloze.h5")
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in calls] == ["score", "prune", "score"]


def test_compare_goes_on_where_it_failed(tmp_path: Path, compare, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAILING", "wanda")
    done, calls = compare("--methods", "magnitude wanda")
    assert done.returncode == 3 and "prune of wanda ended with status 3" in done.stderr
    assert (tmp_path / "out" / "logs" / "wanda.prune.log").read_text() == "espalier: no memory\n"
    monkeypatch.delenv("FAILING")
    done, calls = compare("--methods", "magnitude wanda")
    assert done.returncode == 0
    assert [call.split()[0] for call in calls] == ["prune", "prune", "inspect", "evaluate"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modell", "x"], "--modell is not an option"),
        (["--methods"], "--methods is not an option with a value"),
        (["--methods", "wanda wanda"], "two runs would be called 'wanda'"),
        (["--extra-run", "dense", "--seed 1"], "two runs would be called 'dense'"),
        (["--extra-run", "../x", "--seed 1"], "does not begin with a letter or a digit"),
        (["--sparsity", "0.6"], "--sparsity has no effect with --pattern 2:4"),
        (["--samples", "many"], "whole numbers"),
        (["--calibration", "absent"], "--calibration absent cannot be read"),
        (["--requests", "absent"], "--requests absent cannot be read"),
        (["--espalier", "absent"], "no espalier program"),
        (["--", "seed"], "'seed' is not an option of espalier prune"),
    ],
)
def test_compare_refuses_wrong_command_lines(tmp_path: Path, compare, arguments: list[str], message: str):
    done, calls = compare(*arguments)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert calls == [] and not (tmp_path / "out").exists()


def test_compare_keeps_comparisons_apart(compare):
    assert compare("--methods", "wanda")[0].returncode == 0
    done, calls = compare("--methods", "wanda", "--sequence-length", "64")
    assert done.returncode == 2 and "out holds another comparison" in done.stderr and calls == []
