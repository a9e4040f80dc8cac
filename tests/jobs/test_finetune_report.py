"""report.py on runs of fine-tuning: curves, table, refusals."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
report = importlib.import_module("report")


def make_run(folder: Path, loss: str = "kl", looks: int = 3) -> Path:
    """A run folder with made-up metrics."""
    folder.mkdir()
    curves = {
        "steps": [{"language_model": 5.0 - step / 4, "divergence": 2.0 - step / 8, "gradient_norm": 1} for step in range(6)],
        "held_out": [{"steps": 2 * i, "language_model": 5, "divergence": 2, "total": 2.5 - i / 4} for i in range(looks)],
    }
    metrics = {"format": "espalier-finetune-metrics", "version": 1, "curves": curves, "trained_values": 1234567,
               "best_steps": 4 if looks else None, "total_seconds": 75.0, "peak_bytes": 2**30,
               "decided_by": {"train": "masked-lora", "loss": loss}, "device": "CPU <two>", "teacher": "DENSE",
               "model": {"path": "PRUNED"}, "data": {"path": "tokens.h5", "sha256": "ab"},
               "options": {"rank": {"value": "16", "origin": "default"}}, "command_line": "espalier finetune --model PRUNED"}  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_curves_and_table(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "one"), make_run(tmp_path / "two", "lm")]
    page = tmp_path / "report.html"
    assert report.main([*map(str, runs), "--output", str(page)]) == 0
    text = page.read_text()
    for part in ("one: masked-lora, kl", "two: masked-lora, lm", "1,234,567", "2.5000", "2.0000", "4 steps", "1,024 MiB",
                 "after 4 steps: 2.0000", "CPU &lt;two&gt;", "espalier finetune --model PRUNED"):  # fmt: skip
        assert part in text, part
    # Of `kl` the batches' divergence is drawn, of `lm` their cross-entropy: the axis reaches the latter's 5.
    assert ">5<" in text


def test_a_run_without_held_out_samples(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert report.main([str(make_run(tmp_path / "run", looks=0)), "--output", str(page)]) == 0
    assert "None" not in page.read_text()


def test_runs_of_two_kinds_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pruned = tmp_path / "pruned"
    pruned.mkdir()
    (pruned / "metrics.json").write_text(json.dumps({"format": "espalier-metrics", "version": 1, "blocks": [{}]}))
    runs = [str(make_run(tmp_path / "run")), str(pruned)]
    assert report.main([*runs, "--output", str(tmp_path / "report.html")]) == 2
    assert "espalier-metrics" in capsys.readouterr().err
