"""scaling_report.py on made-up studies, dry runs and plan tables."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Optional

import pytest
from made_up_runs import amdahl

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
study = importlib.import_module("reporting.scaling_study")
report = importlib.import_module("scaling_report")

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Texts by tag, attributes, and whether tags are closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.open, self.texts, self.tags = text, [], {}, []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, Optional[str]]]):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str):
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def all(self, tag: str) -> list[str]:
        return self.texts.get(tag, [])

    titles = property(lambda self: self.all("h3"))


def made_up_metrics(ranks: int, seconds: float) -> dict:
    block = {
        "pruned": True,
        "seconds": {"load": 1.0, "dense_pass": 8.0 / ranks, "optimise": 4.0, "propagate": 2.0},
        "communication": {
            "optimise": {"exchange": {"calls": 9, "bytes_sent": 8_000_000_000, "bytes_received": 6_000_000_000}},
            "load": {"broadcast": {"calls": 1, "bytes_sent": 0, "bytes_received": 2_000_000_000}},
        },
        "peak_bytes": 30_900_000_000,
    }
    options = {
        "model": {"value": "models/tiny-70b", "origin": "command line"},
        "output": {"value": f"ranks-{ranks:04d}", "origin": "command line"},
        "block-groups": {"value": "1", "origin": "default"},
        "shards": {"value": str(8 * ranks), "origin": "default"},
        "ro-batch": {"value": "4", "origin": "ESPALIER_RO_BATCH"},
    }
    return {
        "format": "espalier-metrics",
        "version": 1,
        "program_version": "0.1.0",
        "command_line": f"espalier prune --model models/tiny-70b --output ranks-{ranks:04d}",
        "model": {"path": "models/tiny-70b", "model_type": "llama", "blocks": 2},
        "calibration": {"path": "c.h5", "samples": 128, "sequence_length": 2048, "sha256": "ab" * 32},
        "device": "NVIDIA H100 <80GB>",
        "ranks": ranks,
        "total_seconds": seconds,
        "options": options,
        "blocks": [block | {"index": index} for index in range(2)],
    }


def write_study(folder: Path, times: dict[int, list[Optional[float]]], **about: object) -> Path:
    """A study whose runs take `times` by ranks and repeat; None has not run."""
    folder.mkdir()
    content = {"format": "espalier-scaling", "version": 1, "kind": "strong", "unit": "GPU", "sizes": list(times)}
    content |= {"repeats": max(map(len, times.values())), "command": "espalier prune --model models/tiny-70b"}
    content |= {"submitted": "2026-11-29T10:00:00+00:00", "host": "login1", **about}
    (folder / "study.json").write_text(json.dumps(content))
    for ranks, repeats in times.items():
        for repeat, seconds in enumerate(repeats, 1):
            run = folder / f"ranks-{ranks:04d}" / f"repeat-{repeat}"
            run.mkdir(parents=True)
            if seconds is not None:
                (run / "metrics.json").write_text(json.dumps(made_up_metrics(ranks, seconds)))
    return folder


def made_up_row(ranks: int, seconds: float) -> dict:
    """A row of a plan table."""
    cost = {"seconds": 2.0, "products": 1.0, "memory": 0.5, "host_link": 0.0, "network": 0.5}
    exchange = {"exchange": {"calls": 3, "bytes_sent": 3e9 * (ranks > 1), "bytes_received": 4e9 * (ranks > 1)}}
    return {
        "ranks": ranks,
        "block_groups": 2 if ranks > 2 else 1,
        "shards": 8,
        "ro_batch": ranks,
        "run_seconds": seconds,
        "block_seconds": 4.0,
        "blocks_in_a_row": 40.0,
        "dense_seconds": 5.0 * (ranks > 2),
        "file_seconds": 1.5,
        "memory_bytes": 30_900_000_000,
        "phases": {"optimise": cost | {"communication": exchange}, "dense_pass": cost | {"network": -1e-13}},
    }


RATES = {
    "name": "h100",
    "origin": "measured on one",
    "file_bandwidth": 2e9,
    "network": {
        "inside": {"latency": 5e-6, "bandwidth": 350e9},
        "between": {"latency": 1e-5, "bandwidth": 45e9},
        "ranks_per_machine": 8,
    },
}


def made_up_dry_run() -> dict:
    def row(ranks: int, seconds: float) -> dict:
        dry_run = made_up_row(ranks, seconds) | {"block_groups": 1, "ro_batch": 4}
        for cost in dry_run["phases"].values():
            cost |= {"products": 0.0, "memory": 0.0, "network": cost["seconds"]}
        return {"ranks": ranks, "dry_run": dry_run, "plan": made_up_row(ranks, 0.9 * seconds)}

    strong = [row(ranks, amdahl(ranks)) for ranks in (1, 2, 4)]
    weak = [row(ranks, 100.0 / efficiency) for ranks, efficiency in ((1, 1.0), (2, 0.98), (4, 0.93))]
    about = {"format": "espalier-dry-run", "version": 1, "command_line": "espalier prune --dry-run-ranks 4"}
    about |= {"model": "synthetic:llama-tiny", "device": "a CPU", "rates": RATES}
    return {**about, "strong": strong, "weak": weak}


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def make_page(folder: Path, *arguments: object) -> Page:
    output = folder / "report.html"
    assert report.main([*map(str, arguments), "--output", str(output)]) == 0
    assert not list(folder.glob("*.partial"))
    return Page(output.read_text(encoding="utf-8"))


# ---- Measured runs ---------------------------------------------------------------------------------------------------


def test_strong_study_with_repeats(tmp_path: Path):
    times = [800.0, 790.0, 830.0], [450.0, 440.0, 470.0], [275.0, 270.0, 290.0]
    source = write_study(tmp_path / "study", dict(zip((1, 2, 4), times)))
    page = make_page(tmp_path, source, "--table", tmp_path / "table.md", "--csv", tmp_path / "table.csv")
    assert page.all("h1") == ["Espalier: strong scaling of tiny-70b 13 min 20 s on 1 GPU"]
    assert page.all("h2") == ["Strong scaling, measured"]
    sentence = "1 GPU takes 13 min 20 s; 4 GPUs take 4 min 35 s, 2.91 times as fast, 72.7 % efficiency."
    assert sentence in page.all("p")
    assert page.titles[:4] == ["Time", "Efficiency", "A block by phase", "Shares of the phases"]
    assert page.titles[4:6] == ["Bytes by collective", "Bandwidth by collective"]
    cells = page.all("td")
    assert {"4 min 35 s4 min 30 s – 4 min 50 s", "2.91", "72.7 %", "0.306", "30.9 GB", "16.0 GB", "32"} <= set(cells)
    assert "8.00 GB≥ 2.00 GB/s" in cells and "2.00 GB≥ 2.00 GB/s" in cells
    assert "NVIDIA H100 <80GB>" in page.all("dd") and "2026-11-29T10:00:00+00:00 from login1" in page.all("dd")
    assert "8 (1 GPU); 16 (2 GPUs); 32 (4 GPUs)" in cells and "ranks-0001" not in cells
    commands = page.all("pre")[0].splitlines()
    assert commands[0] == "espalier prune --model models/tiny-70b" and len(commands) == 4
    assert not {"script", "link", "img"} & {tag for tag, _ in page.tags} and "http" not in page.text

    table = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in table if line.startswith("|")]
    assert rows[0].startswith("| GPUs | Time | Speed-up | Efficiency | GPU-hours |") and len(rows) == 5
    assert len({row.count("|") for row in rows}) == 1 and sentence in "\n".join(table)
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        numbers = list(csv.DictReader(file))
    assert [row["ranks"] for row in numbers] == ["1", "2", "4"]
    assert numbers[2]["median_seconds"] == "275.0" and numbers[2]["least_seconds"] == "270.0"
    assert float(numbers[1]["bytes_sent_by_rank"]) == pytest.approx(2 * 8_000_000_000)
    assert float(numbers[1]["dense_pass_seconds_of_block"]) == pytest.approx(4) and numbers[1]["plan_seconds"] == ""


def test_weak_study_has_efficiency_and_no_law(tmp_path: Path):
    source = write_study(tmp_path / "study", {2: [100.0], 4: [105.0], 8: [125.0]}, kind="weak", unit="rank")
    page = make_page(tmp_path, source)
    sentence = "2 ranks take 1 min 40 s; 8 ranks take 2 min 05 s for 4 times the work, 80.0 % efficiency."
    assert sentence in page.all("p") and page.titles[0] == "Efficiency" and "Time" not in page.titles
    assert "Amdahl" not in page.text and "Serial share, fitted" not in page.all("dt")
    assert "6.40" in page.all("td")  # 8 ranks at 80 %


def test_doubts_efficiencies_that_are_too_good(tmp_path: Path):
    notes = make_page(tmp_path, write_study(tmp_path / "study", {1: [100.0], 2: [48.0], 4: [15.0]})).all("li")
    assert notes[0].startswith("Strong scaling to 4 GPUs has 166.7 % efficiency: see") and "166.7" not in notes[1]


def test_ranges_have_whiskers_and_single_runs_have_none(tmp_path: Path):
    def lines(times: dict[int, list[Optional[float]]], name: str) -> int:
        tags = make_page(tmp_path, write_study(tmp_path / name, times)).tags
        return sum(tag == "path" and attributes.get("class") == "line" for tag, attributes in tags)

    assert lines({1: [800.0], 4: [270.0]}, "a") + 2 * 2 * 3 == lines({1: [600.0, 1000.0], 4: [200.0, 340.0]}, "b")


def test_missing_and_broken_runs_are_named_and_left_out(tmp_path: Path):
    times = {1: [800.0, None], 2: [450.0, 440.0], 4: [None, None], 8: [150.0, 160.0]}
    source = write_study(tmp_path / "study", times, sizes=[1, 2, 4, 8, 16])
    written(source / "ranks-0002" / "repeat-1" / "metrics.json", "{")
    half = made_up_metrics(2, 440.0)
    half["blocks"].pop()
    written(source / "ranks-0002" / "repeat-2" / "metrics.json", half)
    written(source / "ranks-0008" / "repeat-2" / "metrics.json", made_up_metrics(4, 160.0))
    (source / "ranks-x").mkdir()
    page = make_page(tmp_path, source, "--table", tmp_path / "table.md")
    notes = page.all("li")[:7]
    missing = "has no metrics.json: it has not run, or was ended before its end."
    assert notes[0] == f"Left out: ranks-0001/repeat-2 {missing}"
    assert notes[1].startswith("Left out: ranks-0002/repeat-1 metrics.json is not JSON")
    assert notes[2] == "Left out: ranks-0002/repeat-2 has 1 of 2 blocks."
    assert notes[3:5] == [f"Left out: ranks-0004/repeat-{repeat} {missing}" for repeat in (1, 2)]
    assert notes[5] == "Left out: ranks-0008/repeat-2 ran on 4 ranks."
    assert notes[6] == "1 of the 5 sizes of study.json have no folder."
    assert "1 GPU takes 13 min 20 s; 8 GPUs take 2 min 30 s, 5.33 times as fast, 66.7 % efficiency." in page.all("p")
    assert notes[0] in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_a_single_size_has_a_table_and_no_lines(tmp_path: Path):
    page = make_page(tmp_path, write_study(tmp_path / "study", {4: [270.0]}))
    assert "4 GPUs take 4 min 30 s." in page.all("p")
    assert page.titles[:2] == ["A block by phase", "Bytes by collective"]


def test_runs_of_an_older_program_without_communication(tmp_path: Path):
    source = write_study(tmp_path / "study", {1: [800.0], 2: [450.0]})
    for path in source.glob("ranks-*/repeat-1/metrics.json"):
        metrics = json.loads(path.read_text())
        for block in metrics["blocks"]:
            del block["communication"], block["peak_bytes"]
        del metrics["options"]
        written(path, metrics)
    page = make_page(tmp_path, source)
    assert "Time" in page.all("th") and not {"Sent by a rank", "Device memory"} & set(page.all("th"))
    assert page.titles[:4] == ["Time", "Efficiency", "A block by phase", "Shares of the phases"]


# ---- Dry runs and plans ----------------------------------------------------------------------------------------------


def test_dry_run_stands_beside_its_plan(tmp_path: Path):
    page = make_page(tmp_path, written(tmp_path / "dry.json", made_up_dry_run()), "--csv", tmp_path / "table.csv")
    assert page.all("h1") == [
        "Espalier: strong and weak scaling in a dry run of synthetic:llama-tiny 13 min 20 s on 1 rank"
    ]
    network = "350 GB/s and 5 µs inside of a machine; 45.0 GB/s and 10 µs between machines; 8 ranks a machine"
    assert {"a CPU", "measured on one", network, "2.00 GB/s of a rank"} <= set(page.all("dd"))
    assert page.all("h2") == ["Strong scaling, dry run", "Weak scaling, dry run"]
    assert page.titles.count("Efficiency") == 2 and page.titles.count("Time") == 1
    assert "What a block waits for" not in page.titles
    assert "12 min 00 s× 0.90" in page.all("td") and "plan" in page.all("li")
    assert "12.5 %" in page.all("dd") and page.all("pre") == ["espalier prune --dry-run-ranks 4"]
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["ranks"]) for row in rows] == [(kind, n) for kind in ("strong", "weak") for n in "124"]
    assert float(rows[0]["plan_seconds"]) == pytest.approx(720)


def plan_table(rows: list) -> dict:
    """As `espalier plan --table --json` prints it."""
    about = {"format": "espalier-plan-table", "version": 1, "command_line": "espalier plan --table", "rates": RATES}
    return {**about, "rows": rows}


def test_plan_table_with_choices_and_rows_that_do_not_fit(tmp_path: Path):
    rows = [{"ranks": 1, "fits": False}, *(made_up_row(ranks, amdahl(ranks)) for ranks in (8, 2, 4))]
    source = written(tmp_path / "plan.json", plan_table(rows))
    page = make_page(tmp_path, source, "--unit", "GPU", "--title", "A & B")
    assert page.all("h1") == ["A & B 7 min 30 s on 2 GPUs"] and page.all("title")[0] == "A & B"
    assert "Does not fit into memory on 1 GPU." in page.all("li")
    assert {"Groups", "Shards", "RO batch"} <= set(page.all("th"))
    assert page.titles[2] == "What the run is made of"
    assert page.titles[5:7] == ["What a block waits for", "Bandwidth by collective"]
    assert "h100" in page.all("dd") and "fitted" not in page.text, "the cases have other groups: no law holds for all"
    assert {"4.00 GB≥ 2.00 GB/s", "120 GB"} <= set(page.all("td"))  # received in a block, sent in the run
    assert [head for head in page.all("th") if head.isdigit()][:3] == ["2", "4", "8"]


@pytest.mark.parametrize("kind", ["strong", "weak"])
def test_dry_run_of_one_kind(tmp_path: Path, kind: str):
    content = {key: value for key, value in made_up_dry_run().items() if key in ("format", "version", kind)}
    page = make_page(tmp_path, written(tmp_path / "dry.json", content))
    assert page.all("h2") == [f"{kind.capitalize()} scaling, dry run"]


# ---- Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("3", "does not hold a JSON object"),
        ({}, "is neither a folder of a scaling study nor a plan table nor a dry run's report"),
        ({"format": "espalier-metrics"}, "is neither a folder"),
        ([], "does not hold a JSON object"),
        (plan_table([]), "has no row that fits into memory"),
        (plan_table([{"ranks": 1, "fits": False}]), "has no row that fits into memory"),
        (plan_table([{"run_seconds": 3}]), "has a row without a number of ranks"),
        (plan_table([{"ranks": 1.5, "run_seconds": 3}]), "has a row without a number of ranks"),
        (plan_table([{"ranks": 2}]), "has no run_seconds for 2 ranks"),
        (plan_table([{"ranks": 2, "run_seconds": 3}] * 2), "has 2 ranks twice"),
        ({"format": "espalier-dry-run", "version": 2}, "has version 2 of its format"),
        ({"format": "espalier-dry-run", "version": 1, "strong": []}, "has no dry runs"),
    ],
)
def test_refuses_wrong_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object, message: str):
    source, output = written(tmp_path / "input.json", content), tmp_path / "report.html"
    assert report.main([str(source), "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"scaling_report: {source} ") and message in error and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"format": "x"}, 'is not a file of the format "espalier-scaling"'),
        ({"version": 2}, "has version 2"),
        ({"kind": "odd"}, 'has the kind "odd", not strong or weak'),
        ({"repeats": None}, "has no number of repeats"),
        ({}, "has no finished run"),
    ],
)
def test_refuses_wrong_studies(tmp_path: Path, capsys: pytest.CaptureFixture[str], about: dict, message: str):
    source = write_study(tmp_path / "study", {1: [None], 2: [None]}, **about)
    assert report.main([str(source), "--output", str(tmp_path / "report.html")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "report.html").exists()


def test_refuses_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty").mkdir()
    plan = written(tmp_path / "plan.json", plan_table([made_up_row(1, 10.0)]))
    assert report.main([str(tmp_path / "absent"), "--output", str(tmp_path / "report.html")]) == 2
    assert report.main([str(tmp_path / "empty"), "--output", str(tmp_path / "report.html")]) == 2
    assert report.main([str(plan), "--output", str(tmp_path / "absent" / "report.html")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
