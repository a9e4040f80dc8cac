"""collect_runs.py: runs that are complete, under way and not started, in one table."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
collect_runs = importlib.import_module("collect_runs")


def options(samples: str) -> dict[str, dict[str, str]]:
    return {name: {"value": value, "origin": "command line"}
            for name, value in (("samples", samples), ("method", "wanda"), ("pattern", "2:4"))}  # fmt: skip


def test_states_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in ("000", "001", "002", "003/pruned", "004/pruned", "005/pruned"):
        (tmp_path / number).mkdir(parents=True)
    block = {"pruned": True, "error_final": 0.25, "peak_bytes": 2**30}
    metrics = {"format": "espalier-metrics", "version": 1, "options": options("64"), "method": "wanda", "pattern": "2:4", "ranks": 2, "total_seconds": 12.34,
               "blocks": [block, {**block, "error_final": 0.75}]}  # fmt: skip
    (tmp_path / "000" / "metrics.json").write_text(json.dumps(metrics))
    # As io/run_folder.cpp writes it.
    manifest = {"model": {"path": "m", "identity": "i", "blocks": 32}, "provenance": {"options": options("128")},
                "blocks": [{"index": index} for index in range(3)]}  # fmt: skip
    (tmp_path / "001" / "manifest.json").write_text(json.dumps(manifest))
    # Runs that train the whole model at the end: done, training, pruning.
    last = {"format": "espalier-finetune-metrics", "version": 1, "pruning": {"total_seconds": 12.34}, "total_seconds": 10}
    (tmp_path / "003" / "metrics.json").write_text(json.dumps(last))
    for number in ("003", "004"):
        (tmp_path / number / "pruned" / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "005" / "pruned" / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(sys, "argv", ["collect_runs.py", str(tmp_path)])
    assert collect_runs.main() == 1, "not all are complete"
    with open(tmp_path / "runs.csv", encoding="utf-8", newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert [rows[run]["state"] for run in ("000", "001", "002")] == ["complete", "3 of 32 blocks", "not started"]
    assert rows["000"]["mean_error"] == "0.5" and rows["000"]["ranks"] == "2"
    states = [rows[run]["state"] for run in ("003", "004", "005")]
    assert states == ["complete", "pruned, in training", "3 of 32 blocks"]
    assert rows["003"]["seconds"] == "22.3" and rows["003"]["mean_error"] == "0.5" and rows["004"]["seconds"] == ""
    assert rows["001"]["options"] == "--samples 128" and rows["001"]["method"] == "wanda"
