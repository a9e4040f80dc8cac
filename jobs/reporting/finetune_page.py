"""A report of runs of fine-tuning: loss curves, and what each run took."""

from __future__ import annotations

from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any, Optional

from formats.json_file import read_json
from reporting.comparison import Comparison
from reporting.drawing import (
    HEIGHT,
    WIDTH,
    Curve,
    Points,
    draw_axes,
    draw_curve,
    draw_tooltips,
    drawn_points,
    figure,
    left_margin,
    legend,
    line_key,
    linear_scale,
    style_key,
    svg,
)
from reporting.metrics import Run, mapping, number, read_format
from reporting.style import html_page
from reporting.texts import commands, distinct, options_table
from reporting.units import seconds_text, tick_text

FORMAT = "espalier-finetune-metrics"
LOSSES = {"lm": (1.0, 0.0), "kl": (0.0, 1.0), "mix": (0.33, 0.67)}


def metrics_of(path: Path) -> Path:
    """Of a run folder, or the file itself."""
    return path / "metrics.json" if path.is_dir() else path


def is_finetune_run(path: Path) -> bool:
    """Whether it is a run of fine-tuning, rather than of pruning."""
    return read_json(metrics_of(path)).get("format") == FORMAT


def load_finetune_run(path: Path) -> Run:
    """A run folder or its metrics.json."""
    file = metrics_of(path)
    metrics = read_format(file, FORMAT)
    decided = mapping(metrics.get("decided_by"))
    label = f"{file.resolve().parent.name}: {decided.get('train')}, {decided.get('loss')}"
    return Run(label, file, metrics)


def decided(run: Run, name: str) -> Any:
    """An option's value, as it decided the run."""
    return mapping(run.metrics.get("decided_by")).get(name)


def training_points(run: Run) -> Points:
    """(step, loss) of the batches: what is minimised."""
    of_text, of_teacher = LOSSES.get(str(decided(run, "loss")), (1.0, 0.0))
    steps = mapping(run.metrics.get("curves")).get("steps") or []
    return [
        (float(index + 1), of_text * step["language_model"] + of_teacher * step["divergence"])
        for index, step in enumerate(steps)
    ]


def held_out_points(run: Run) -> Points:
    """(steps, loss) of the looks at the held-out samples."""
    looks = mapping(run.metrics.get("curves")).get("held_out") or []
    return [(float(look["steps"]), number(look["total"])) for look in looks]


def loss_figure(runs: list[Run]) -> str:
    """Losses over the steps of all runs."""
    curves = [Curve(run.label, position, training_points(run), True) for position, run in enumerate(runs)]
    curves += [
        Curve(run.label, position, held_out_points(run)) for position, run in enumerate(runs) if held_out_points(run)
    ]
    points = drawn_points(curves, False)
    if not points:
        return ""
    y = linear_scale([value for _, value in points], HEIGHT - 42, 28.0, 6)
    x = linear_scale([at for at, _ in points], left_margin(y, tick_text), WIDTH - 6.0, 6, from_zero=True)
    tips = draw_tooltips(curves, x, y, lambda at, value: f"after {at:.0f} steps: {value:.4f}")
    lines = [draw_curve(curve, x, y) for curve in curves]
    axes = draw_axes(x, y, ("Steps", "Loss, nats a token"), (tick_text, tick_text))
    keys = [(line_key(position), run.label) for position, run in enumerate(runs)]
    keys += [(style_key(""), "held-out samples"), (style_key("dashed"), "the batch of each step")]
    caption = "What is minimised: lm is the cross-entropy with the text, kl the divergence from the teacher."
    return figure("Loss", svg(HEIGHT, "Loss by step", [*axes, *lines, *tips]) + legend(keys), caption)


def results_table(runs: list[Run]) -> str:
    """A row for every run."""
    head = ("Run", "Trained values", "Steps", "Held-out loss before", "best", "after", "Time", "Peak memory")
    rows = []
    for run in runs:
        looks = [loss for _, loss in held_out_points(run) if loss is not None]
        seconds, peak = number(run.metrics.get("total_seconds")), number(run.metrics.get("peak_bytes"))
        cells = [
            run.label,
            f"{run.metrics.get('trained_values', 0):,}",
            str(len(training_points(run))),
            f"{looks[0]:.4f}" if looks else "",
            f"{min(looks):.4f}" if looks else "",
            f"{run.metrics.get('best_steps')} steps" if looks else "",
            seconds_text(seconds) if seconds is not None else "",
            f"{peak / 2**20:,.0f} MiB" if peak is not None else "",
        ]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def facts(runs: list[Run], written: datetime) -> str:
    """What all runs have in common."""
    entries = {
        "Model": distinct(str(mapping(run.metrics.get("model")).get("path") or "") for run in runs),
        "Teacher": distinct(str(run.metrics.get("teacher") or "") for run in runs),
        "Text": distinct(str(mapping(run.metrics.get("data")).get("path") or "") for run in runs),
        "Device": distinct(str(run.metrics.get("device") or "") for run in runs),
        "Report of": written.strftime("%Y-%m-%d %H:%M"),
    }
    items = "".join(f"<div><dt>{term}</dt><dd>{escape(value)}</dd></div>" for term, value in entries.items() if value)
    return f'<dl class="facts">{items}</dl>'


def finetune_page(runs: list[Run], title: Optional[str], written: datetime) -> str:
    """The whole page."""
    heading = title or "Espalier: fine-tuning after pruning"
    folded = options_table(runs) + commands(runs, Comparison(Path()))
    sections = [
        f"<header><h1>{escape(heading)}</h1>{facts(runs, written)}</header>",
        f"<h2>Runs</h2>{results_table(runs)}",
        f'<h2>Plots</h2><div class="plots">{loss_figure(runs)}</div>',
        f"<details><summary>Effective options and how to reproduce</summary>{folded}</details>",
    ]
    return html_page(heading, sections)
