"""jobs/quality: texts of domains from made-up packages, closure, and the bench with a program that needs no model."""

from __future__ import annotations

import importlib
import json
import math
import struct
import sys
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
domains = importlib.import_module("quality.domains")
closure = importlib.import_module("quality.closure")
bench = importlib.import_module("quality.bench")


def test_articles_are_prose() -> None:
    """Without markup, dates, links and what is short."""
    prose = "A kind of {data abstraction}   that hides " + "its representation from all who use it " * 12
    text = f"abstract type\n   <programming> {prose}\n   (1994-11-08)\nshort\n   Nothing.\nlinked\n   http://x.y {prose}\n"
    found = domains.articles(text)
    assert len(found) == 1 and found[0].startswith("abstract type A kind of data abstraction that hides its")
    assert "1994" not in found[0] and "<" not in found[0]


def test_strings_of_an_r_database() -> None:
    """Records of a length and zlib data, with flags, a length and bytes for each string."""

    def record(*lines: bytes) -> bytes:
        data = b"XDR" + b"".join(b"\x00\x04\x00\x09" + struct.pack(">i", len(line)) + line for line in lines)
        return struct.pack(">i", len(data)) + zlib.compress(data)

    found = domains.lines_of_r_strings(record(b"It is a truth", b"", b"caf\xe9") + record(b"Emma"))
    assert found == [["It is a truth", "", "café"], ["Emma"]]


def test_parts_share_no_document() -> None:
    """Half, a quarter, a quarter, in the same way every time; what occurs twice is kept once."""
    documents = [f"document {number}" for number in range(40)]
    parts = domains.split([*documents, documents[3]])
    assert {part: len(of_part) for part, of_part in parts.items()} == {"calibration": 20, "validation": 10, "test": 10}
    assert sorted(sum(parts.values(), [])) == sorted(documents)
    assert parts == domains.split(documents)
    assert domains.joined(["a" * 3, "b" * 3, "c"], 5) == ["aaa\n\nbbb"]


def record(method: str, seed: int, inside: float, outside: float) -> dict:
    """A run as the bench keeps it."""
    return {"method": method, "pattern": "2:4", "calibration": "self", "seed": seed, "seconds": 10.0 * (seed + 1),
            "peak_bytes": 2**20, "perplexity": {"a": inside, "b": outside}}  # fmt: skip


def test_closure_is_beside_wanda_of_the_same_seed() -> None:
    """0 for Wanda, 100 for the dense model; mean and standard deviation over seeds."""
    assert closure.closure(200, 200, 50) == 0 and closure.closure(200, 50, 50) == 1
    assert closure.closure(200, 100, 50) == pytest.approx(0.5)
    runs = [record("wanda", 0, 200, 400), record("wanda", 1, 100, 400),
            record("ours", 0, 100, 200), record("ours", 1, 50, 200)]  # fmt: skip
    lines = closure.table(runs, {"a": 50.0, "b": 100.0}, ["a", "b"]).splitlines()
    assert lines[2].split(" | ")[2:7] == ["dense", "50.0", "100.0", "100", "100"]
    assert "| wanda | 150.0 ± 70.7 | 400.0 ± 0.0 | 0.0 ± 0.0 | 0.0 ± 0.0 | 15 ± 7 | 1 ± 0 |" in lines[3]
    assert "| ours | 75.0 ± 35.4 | 200.0 ± 0.0 | 75.0 ± 35.4 | 50.0 ± 0.0 |" in lines[4]
    alone = closure.table(runs[2:3], {"a": 50.0, "b": 100.0}, ["a", "b"]).splitlines()
    assert "| ours | 100.0 | 200.0 |  |  | 10 | 1 |" in alone[3]


def test_a_plot_has_every_method() -> None:
    """Faster ones to the left, better ones higher."""
    runs = [record("wanda", 0, 200, 400), record("a<b", 1, 50, 200), record("wanda", 1, 100, 400)]
    groups = closure.dots_of(runs, {"a": 50.0, "b": 100.0}, ["a"])
    assert list(groups) == ["2:4, calibrated with self"]
    dots = {dot.name: dot for dot in groups["2:4, calibrated with self"]}
    assert dots["wanda"].closure == 0 and dots["a<b"].closure == 1 and dots["wanda"].seconds == 15
    drawn = ElementTree.fromstring(closure.plot("title", list(dots.values())))
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in drawn if c.tag.endswith("circle")]
    assert circles[0][0] < circles[1][0] and circles[0][1] > circles[1][1]
    assert "a<b" in [text.text for text in drawn if text.tag.endswith("text")]


PROGRAM = """#!{python}
import json, sys
from pathlib import Path
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
if sys.argv[1] == "prune":
    run = Path(words["--output"])
    run.mkdir()
    (run / "metrics.json").write_text(json.dumps({{"format": "espalier-metrics", "version": 1, "blocks": [{{}}],
                                                   "peak_resident_bytes": 1 << 20}}))
    (run / "method").write_text(words["--method"])
    with open({notes!r}, "a") as file:
        file.write(" ".join(sys.argv[1:]) + "\\n")
else:
    method = Path(words["--model"]) / "method"
    value = {{"wanda": 200, "sparsegpt": 100}}[method.read_text()] if method.exists() else 50
    print(json.dumps({{"perplexity": value}}))
"""


PEER = """#!{python}
import json, sys
from pathlib import Path
assert Path(sys.argv[1]).name == "llm_compressor.py"
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
Path(words["--output"]).mkdir()
(Path(words["--output"]) / "method").write_text(words["--method"])
print("another program's line")
print(json.dumps({{"peak_resident_bytes": 1 << 30}}))
"""


def test_the_bench_does_each_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Two methods, two seeds, one calibration; then one more method."""
    program, notes = tmp_path / "espalier", tmp_path / "notes"
    program.write_text(PROGRAM.format(python=sys.executable, notes=str(notes)))
    program.chmod(0o755)
    (tmp_path / "model").mkdir()
    files = {name: {part: tmp_path / f"{name}.{part}.txt" for part in domains.PARTS} for name in domains.DOMAINS}
    monkeypatch.setattr(bench, "write_domains", lambda folder: files)
    monkeypatch.setattr(bench.Bench, "tokens", lambda self, kind, text, seed=0: text)
    words = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--espalier", str(program),
             "--calibrations", "self", "--seeds", "2", "--samples", "8", "--sequence-length", "16"]  # fmt: skip
    document = tmp_path / "quality.md"
    document.write_text("before\n<!-- bench -->\nold\n<!-- end of bench -->\nafter\n")
    words += ["--part", "test"]
    assert bench.main([*words, "--methods", "wanda"]) == 0
    assert bench.main([*words, "--methods", "wanda,sparsegpt", "--document", str(document)]) == 0
    called = notes.read_text().splitlines()
    assert len(called) == 4 and all("--calibration self:8x16" in line for line in called)
    assert [line.split("--seed ")[1][0] for line in called] == ["0", "1", "0", "1"]
    table = (tmp_path / "out" / "table-test.md").read_text()
    share = 100 * math.log(2) / math.log(4)
    assert f"| sparsegpt | 100.0 ± 0.0 | 100.0 ± 0.0 | 100.0 ± 0.0 | {share:.1f} ± 0.0 |" in table
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 4
    assert (tmp_path / "out" / "closure-outside-test-24-self.svg").exists()
    assert json.loads((tmp_path / "out" / "dense-test.json").read_text())["novels"] == 50
    assert document.read_text() == f"before\n<!-- bench -->\n{table}<!-- end of bench -->\nafter\n"
    # Another part is measured on by runs of its own.
    assert bench.main([*words[:-1], "validation", "--methods", "wanda", "--seeds", "1"]) == 0
    assert len(notes.read_text().splitlines()) == 5
    # Another number of tokens, and another program on the tokens of a text.
    assert bench.main([*words, "--calibrations", "self:4x8", "--methods", "wanda", "--seeds", "1"]) == 0
    assert "--calibration self:4x8" in notes.read_text().splitlines()[-1]
    peer = tmp_path / "peer"
    peer.write_text(PEER.format(python=sys.executable))
    peer.chmod(0o755)
    words += ["--peer-python", str(peer), "--calibrations", "manuals,self", "--seeds", "1"]
    assert bench.main([*words, "--methods", "wanda;llm-compressor sparsegpt"]) == 0
    table = (tmp_path / "out" / "table-test.md").read_text()
    assert table.count("llm-compressor") == 1
    assert f"| manuals | llm-compressor sparsegpt | 100.0 | 100.0 | 100.0 | {share:.1f} | {share:.1f} |" in table
    document.write_text("no marks")
    assert bench.main([*words, "--methods", "wanda", "--document", str(document)]) == 2
    capsys.readouterr()
    program.write_text("#!/bin/sh\necho 'espalier: no' >&2; exit 2\n")
    assert bench.main([*words, "--methods", "wanda,rgs"]) == 2
    assert "espalier: no" in capsys.readouterr().err
