"""report.py and comparison.py on made-up metrics."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path

import pytest
from made_up_runs import MATRICES, made_up_metrics, write_run
from report_page import PageParser, parsed

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
comparison = importlib.import_module("comparison")
report = importlib.import_module("report")
units = importlib.import_module("reporting.units")
metrics = importlib.import_module("reporting.metrics")
report_drawing = importlib.import_module("reporting.drawing")
report_figures = importlib.import_module("reporting.figures")

PERPLEXITIES = {"dense": 34.5, "magnitude": 400.0, "wanda": 60.0, "wanda++": 46.0}


@pytest.fixture
def compared(tmp_path: Path) -> Path:
    """A comparison.json of three methods, made by `comparison.py add`."""
    path = tmp_path / "comparison.json"
    for name, perplexity in PERPLEXITIES.items():
        evaluated = {
            "perplexity": perplexity,
            "sequence_length": 128,
            "windows": 7,
            "tokens": "/data/e.h5",
            "seconds": 1,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(evaluated))
        arguments = ["add", str(path), "--name", name, "--perplexity", str(tmp_path / f"{name}.json")]
        if name != "dense":
            run = write_run(tmp_path / "runs" / name, made_up_metrics(name))
            arguments += ["--run", str(run), "--inspected", "--command-line", "compare.sh --samples 64"]
        assert comparison.main(arguments) == 0
    return path


def make_page(tmp_path: Path, *arguments: str | Path) -> PageParser:
    """Run report.py and parse what it wrote."""
    output = tmp_path / "report.html"
    assert report.main([*map(str, arguments), "--output", str(output)]) == 0
    assert not list(tmp_path.glob("*.partial"))
    return parsed(output.read_text(encoding="utf-8"))


def titles(page: PageParser) -> list[str]:
    """Titles of the plots."""
    return [text for text in page.all("h3") if text not in ("Effective options", "How to reproduce")]


ALL_PLOTS = ["Error by block", "Perplexity", "Time by phase", "Changed mask by block", "Search for the learning rate"]


def test_comparison_has_every_plot_and_dense_on_top(tmp_path: Path, compared: Path):
    page = make_page(tmp_path, "--comparison", compared)
    assert titles(page) == ALL_PLOTS
    rows = [text for text in page.all("th") if text in PERPLEXITIES]
    assert rows[:4] == list(PERPLEXITIES)
    assert page.all("h1") == ["Espalier: Tiny<1> at 2:4"]
    assert "Lowest perplexity after pruning: wanda++ with 46.000, 1.333 times the dense model's." in page.all("p")
    assert "50 % of the weights are zero in each pruned matrix of every pruned block, in every run." in page.all("p")
    assert any(text.startswith("compare.sh --samples 64") for text in page.all("pre"))
    assert any("espalier evaluate" in text and "--sequence-length 128" in text for text in page.all("pre"))
    assert ("tr", "class", "best") in page.attributes


def test_only_optimised_methods_have_dashed_lines(tmp_path: Path, compared: Path):
    page = make_page(tmp_path, "--comparison", compared)
    dashed = [value for tag, name, value in page.attributes if name == "class" and value == "line dashed"]
    assert len(dashed) == 2  # wanda++ after its first mask, and the legend


def test_single_run_without_perplexity(tmp_path: Path):
    page = make_page(tmp_path, write_run(tmp_path / "run", made_up_metrics("wanda")), "--title", "A & B")
    assert titles(page) == ["Error by block", "Time by phase"]
    assert page.all("h1") == ["A & B"]
    assert "Perplexity" not in page.all("th") and "dense" not in page.all("th")


def test_search_leaves_diverged_rates_out_and_marks_the_choice(tmp_path: Path):
    page = make_page(tmp_path, write_run(tmp_path / "run", made_up_metrics("wanda++")))
    caption = next(text for text in page.all("figcaption") if "did not see" in text)
    assert "wanda++: 10⁻⁴." in caption and "Diverged, so not drawn: 10⁻³ (wanda++)." in caption
    assert len([value for _, name, value in page.attributes if value.startswith("ring k")]) == 1


def test_missing_values_are_left_out(tmp_path: Path):
    metrics = made_up_metrics("wanda")
    for key in (
        "total_seconds",
        "peak_resident_bytes",
        "flops",
        "options",
        "command_line",
        "calibration",
        "ranks",
        "sparsity",
    ):
        del metrics[key]
    metrics["blocks"][0]["error_final"] = None
    metrics["blocks"][1]["error_final"] = math.nan
    metrics["blocks"][2] |= {"pruned": False, "error_final": 0.0, "sparsity": dict.fromkeys(MATRICES, 0.0)}
    for block in metrics["blocks"]:
        del block["seconds"], block["changed_mask_share"]
    page = make_page(tmp_path, write_run(tmp_path / "run", metrics))
    assert titles(page) == ["Error by block"]
    assert page.all("thead") == [] and "Seconds" not in page.all("th") and "Mean error" in page.all("th")
    assert len([tag for tag, name, _ in page.attributes if tag == "circle" and name == "cx"]) == 1
    assert "wanda: 50 % of the weights are zero in each pruned matrix of every pruned block." in page.all("p")


def test_barest_metrics_still_make_a_page(tmp_path: Path):
    metrics = {"format": "espalier-metrics", "version": 1, "blocks": [{"index": 0}]}
    page = make_page(tmp_path, write_run(tmp_path / "first", metrics))
    assert titles(page) == [] and page.all("h1") == ["Espalier: Pruning runs"]


def test_varying_sparsity_is_a_heat_map_drawn_once_for_equal_runs(tmp_path: Path):
    runs = []
    for method in ("wanda", "rgs", "magnitude"):
        metrics = made_up_metrics(method) | {"pattern": "unstructured"}
        if method != "magnitude":
            metrics["blocks"][1]["sparsity"]["mlp.up_proj"] = 0.6
        runs.append(write_run(tmp_path / method, metrics))
    page = make_page(tmp_path, *runs)
    assert "Sparsity: wanda, rgs" in titles(page)
    assert "magnitude: 50 % of the weights are zero in each pruned matrix of every pruned block." in page.all("p")
    assert len([tag for tag, name, value in page.attributes if tag == "rect" and value == "heat"]) == 4 * len(MATRICES)


def test_runs_of_one_method_are_told_apart(tmp_path: Path):
    runs = [write_run(tmp_path / name, made_up_metrics("wanda")) for name in ("first", "second")]
    page = make_page(tmp_path, *runs)
    assert {"first", "second"} <= set(page.all("th"))


def test_device_memory_and_pattern_have_columns_only_when_they_tell_something(tmp_path: Path):
    metrics = made_up_metrics("wanda") | {"device": "NVIDIA H100", "pattern": "4:8"}
    runs = [write_run(tmp_path / "a", metrics), write_run(tmp_path / "b", made_up_metrics("magnitude"))]
    heads = make_page(tmp_path, *runs).all("th")
    assert "Device memory" in heads and "Pattern" in heads
    heads = make_page(tmp_path, runs[1]).all("th")
    assert "Device memory" not in heads and "Pattern" not in heads


def test_phases_that_are_unknown_or_tiny():
    run = metrics.Run("x", Path("x"), made_up_metrics("wanda"))
    for block in run.metrics["blocks"]:
        block["seconds"]["brand_new"] = 5.0
        run.metrics["total_seconds"] += 5.0
    phases = report_figures.fold_small_phases([report_figures.phase_seconds(run)])[0]
    assert set(phases) == {"dense_pass", "brand_new", "propagate", "mask", "other"}
    assert phases["other"] == pytest.approx(4 * 0.01 + 1.5)
    assert "brand new" in report_figures.time_figure([run])


def test_table_on_a_terminal(compared: Path, capsys: pytest.CaptureFixture[str]):
    assert comparison.main(["print", str(compared)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == list(PERPLEXITIES)
    assert lines[2].split() == ["dense", "34.500", "1.000"]
    assert lines[5].split()[:4] == ["wanda++", "*", "46.000", "1.333"]
    assert lines[6] == "Perplexity on e.h5, T = 128, 7 windows."


def test_adding_again_replaces_the_row(tmp_path: Path, compared: Path):
    (tmp_path / "wanda.json").write_text('{"perplexity": 61.5}')
    arguments = ["add", str(compared), "--name", "wanda", "--perplexity", str(tmp_path / "wanda.json")]
    assert comparison.main(arguments) == 0
    rows = json.loads(compared.read_text())["rows"]
    assert [row["name"] for row in rows] == list(PERPLEXITIES) and rows[2]["perplexity"] == 61.5


def test_comparison_can_be_moved_and_survives_lost_runs(tmp_path: Path, compared: Path):
    (tmp_path / "runs" / "wanda" / "metrics.json").unlink()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("comparison.json", "runs"):
        (tmp_path / name).rename(moved / name)
    page = make_page(tmp_path, "--comparison", moved / "comparison.json")
    assert "60.000" in page.all("td")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "does not hold a JSON object"),
        ("{}", 'is not a file of the format "espalier-metrics"'),
        ('{"format": "espalier-metrics", "version": 2}', "has version 2 of its format"),
        ('{"format": "espalier-metrics", "version": 1}', "has no list of blocks"),
        ('{"format": "espalier-metrics", "version": 1, "blocks": []}', "has no blocks"),
    ],
)
def test_refuses_what_is_not_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str):
    source, output = tmp_path / "metrics.json", tmp_path / "report.html"
    source.write_text(content)
    assert report.main([str(source), "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"report: {source} ") and message in error and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == [source]


def test_refuses_no_runs_and_a_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert report.main(["--output", str(tmp_path / "report.html")]) == 2
    assert report.main([str(tmp_path / "absent"), "--output", str(tmp_path / "report.html")]) == 2
    run = write_run(tmp_path / "run", made_up_metrics("wanda"))
    assert report.main([str(run), "--output", str(tmp_path / "absent" / "report.html")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.parametrize(
    ("low", "high"), [(1e-9, 3e-9), (0.00023, 0.2), (5, 5), (1, 1e30), (49.4, 62.3), (0.999, 1.001), (2e-5, 2.1e-5)]
)
def test_scales_cover_their_values_with_few_ticks(low: float, high: float):
    linear, logarithmic = report_drawing.linear_scale([low, high], 0, 100, 6), report_drawing.log_scale([low, high], 0, 100, 8)
    for scale in (linear, logarithmic):
        assert scale.low <= low * (1 + 1e-9) and high <= scale.high * (1 + 1e-9)
        assert 2 <= len(scale.ticks) <= 9
        assert all(-1e-6 <= scale(tick) <= 100 + 1e-6 for tick in scale.ticks)
        assert len({units.tick_text(tick) for tick in scale.ticks}) == len(scale.ticks)


def test_a_run_that_trained_at_the_end_has_the_costs_of_both_stages(tmp_path: Path):
    pruned = {**made_up_metrics("wanda"), "total_seconds": 20.5, "peak_resident_bytes": 7, "flops": 1e12}
    write_run(tmp_path / "run" / "pruned", pruned)
    last = {"format": "espalier-finetune-metrics", "version": 1, "pruning": {"total_seconds": 20.5},
            "total_seconds": 10, "peak_resident_bytes": 9, "flops": 2e12}  # fmt: skip
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(last))
    run = metrics.load_run(tmp_path / "run")
    assert (run.metrics["total_seconds"], run.metrics["peak_resident_bytes"], run.metrics["flops"]) == (30.5, 9, 3e12)
    assert run.label == "wanda" and len(run.blocks) == len(pruned["blocks"])
    del last["flops"]
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(last))
    assert metrics.load_run(tmp_path / "run").metrics["flops"] is None
