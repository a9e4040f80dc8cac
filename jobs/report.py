#!/usr/bin/env python3
"""Draw the metrics of pruning runs as one HTML page.

    report.py RUN_FOLDER_OR_metrics.json... [--comparison comparison.json] --output report.html [--title TEXT]

The page holds a table of the methods, plots and the effective options. It is one file without scripts and without
anything fetched from elsewhere: the plots are SVG drawn here. It follows the reader's light or dark setting, fits a
phone and can be printed. Without run folders the runs of the comparison are taken.

Only the standard library is needed (Python 3.9 or later). What a run did not measure is left out of tables and plots.
The page is written under a temporary name and renamed; exit status 2 and one sentence on stderr when an input is not
what it should be.

Read from below: `page` puts the sections together, each `*_figure` makes one plot from runs with report_drawing.py.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any, Optional

import comparison as measured
from comparison import Comparison, InputRefused, Result, Run, mapping, number
from report_drawing import (
    COLOURS,
    Curve,
    HEIGHT,
    Points,
    ROW,
    Row,
    Scale,
    Text,
    WIDTH,
    area_key,
    block_chart,
    block_scale,
    box,
    colour,
    draw_axes,
    draw_curve,
    draw_tooltips,
    drawn_points,
    figure,
    label,
    left_margin,
    legend,
    line_key,
    linear_scale,
    log_scale,
    marker,
    percent_text,
    rate_text,
    row_chart,
    row_margin,
    seconds_text,
    small_key,
    stroke,
    style_key,
    svg,
    tick_text,
)

# ----------------------------------------------------------------------------------------------------------------------
# Figures
# ----------------------------------------------------------------------------------------------------------------------

PHASES = {
    "load": "load",
    "dense_pass": "dense pass",
    "statistics": "input statistics",
    "mask": "mask",
    "first_mask_error": "error after first mask",
    "optimise": "optimise",
    "learning_rate_search": "learning-rate search",
    "final_mask": "final mask",
    "propagate": "propagate",
    "rounding_loss": "rounding loss",
    "hand_over": "hand over",
    "write_wait": "wait for writing",
    "write": "write",
}
OTHER = "other"


def run_legend(runs: Iterable[tuple[int, Run]]) -> list[tuple[str, str]]:
    """Legend entries of runs, given with their positions."""
    return [(line_key(position), run.label) for position, run in runs]


def optimisation_moved_error(run: Run) -> bool:
    """Whether the errors after the first mask and at the end differ anywhere."""
    pairs = zip(run.by_block("error_after_first_mask"), run.by_block("error_final"))
    return any(first is not None and last is not None and first != last for (_, first), (_, last) in pairs)


def error_figure(runs: list[Run]) -> str:
    """Error of every block for each method."""
    shown = [
        (position, run) for position, run in enumerate(runs) if any(error > 0 for error in run.known("error_final"))
    ]
    if not shown:
        return ""
    moved = [(position, run) for position, run in shown if optimisation_moved_error(run)]
    curves = [Curve(run.label, position, run.by_block("error_after_first_mask"), True) for position, run in moved]
    curves += [Curve(run.label, position, run.by_block("error_final")) for position, run in shown]
    styles = [(style_key("dashed"), "after the first mask"), (style_key(""), "final")] if moved else []
    body = block_chart(curves, "Relative squared error", True, lambda value: tick_text(float(f"{value:.3g}")))
    caption = "‖f − f₀‖² / ‖f₀‖² of each block's output over all samples, on inputs from the pruned blocks before it."
    if 0 < len(moved) < len(shown):
        caption += " A dashed line is missing where nothing happens between the first mask and the final weights."
    return figure("Error by block", body + legend(run_legend(shown) + styles), caption)


def perplexity_figure(results: list[Result], runs: list[Run], caption: str) -> str:
    """Perplexities as dots, with a line through the dense model."""
    shown = [result for result in results if result.perplexity is not None and result.perplexity > 0]
    if len(shown) < 2:
        return ""
    values = [result.perplexity for result in shown]
    start, end = row_margin(result.name for result in shown), WIDTH - 72.0
    logarithmic = max(values) > 3 * min(values)
    x = log_scale(values, start, end, 7) if logarithmic else linear_scale(values, start, end, 5)
    positions = {run.label: position for position, run in enumerate(runs)}
    rows = [Row(result.name, perplexity_dot(result, positions.get(result.name), x)) for result in shown]
    dense = next((x(result.perplexity) for result in shown if result.name == measured.DENSE), None)
    line = stroke(dense, 4, dense, 8 + ROW * len(rows), "reference") if dense is not None else ""
    note = f"On {caption}. Lower is better" if caption else "Lower is better"
    note += "; the axis is logarithmic." if logarithmic else "; the axis does not begin at zero." if x.low > 0 else "."
    return figure("Perplexity", row_chart(rows, x, "Perplexity", "Perplexity of each method", line), note)


def perplexity_dot(result: Result, position: Optional[int], x: Scale) -> Text:
    """Draws the dot of one row and its value; what has no run is in the colour of text."""
    at, value = x(result.perplexity), measured.format_perplexity(result.perplexity)

    def draw(y: float) -> str:
        kind = "" if position is None else f' class="{colour(position)}"'
        return f"<g{kind}>{marker(position or 0, at, y)}</g>{label(at + 9, y + 4, value, kind='value')}"

    return draw


def phase_seconds(run: Run) -> Counter[str]:
    """Seconds of a run by phase; what no phase accounts for is `other`."""
    phases: Counter[str] = Counter()
    for block in run.blocks:
        for phase, seconds in mapping(block.get("seconds")).items():
            phases[phase] += number(seconds) or 0.0
    total = number(run.metrics.get("total_seconds"))
    if phases and total is not None:
        phases[OTHER] += max(0.0, total - sum(phases.values()))
    return phases


def phase_colours(used: list[str]) -> dict[str, str]:
    """A colour for each phase, the same in every figure as long as no two of one figure want one."""
    wanted = {"dense_pass": 0, "optimise": 1, "statistics": 2, "propagate": 3, "mask": 4, "first_mask_error": 5, "load": 6}
    taken: dict[str, int] = {}
    for phase in sorted(used, key=lambda phase: phase not in wanted):  # those with a colour of their own first
        if phase != OTHER:
            free = [place for place in range(COLOURS) if place not in taken.values()]
            taken[phase] = wanted[phase] if wanted.get(phase) in free else free[-1]
    return {phase: "rest" if phase == OTHER else colour(taken[phase]) for phase in used}


def fold_small_phases(by_run: list[Counter[str]]) -> list[Counter[str]]:
    """Put phases into `other` that have less than 2 % of every run, and those beyond the number of colours."""
    largest = {
        phase: max(phases[phase] / sum(phases.values()) for phases in by_run)
        for phase in set().union(*by_run) - {OTHER}
    }
    named = [phase for phase, share in sorted(largest.items(), key=lambda item: -item[1]) if share >= 0.02][
        : COLOURS - 1
    ]
    folded = []
    for phases in by_run:
        kept = Counter({phase: phases[phase] for phase in named if phases[phase] > 0})
        kept[OTHER] = sum(phases.values()) - sum(kept.values())
        folded.append(kept)
    return folded


def time_unit(longest: float) -> tuple[float, str]:
    """A unit in which the longest time is a number of few digits."""
    return (1.0, "s") if longest < 180 else (60.0, "min") if longest < 10_800 else (3600.0, "h")


def time_figure(runs: list[Run]) -> str:
    """Time of every run by phase."""
    timed = [(run, phases) for run in runs if sum((phases := phase_seconds(run)).values()) > 0]
    if not timed:
        return ""
    folded = fold_small_phases([phases for _, phases in timed])
    order = [*PHASES, *sorted(set().union(*folded) - set(PHASES) - {OTHER}), OTHER]
    used = [phase for phase in order if any(phases[phase] > 0 for phases in folded)]
    colours = phase_colours(used)
    longest = max(sum(phases.values()) for phases in folded)
    unit, unit_name = time_unit(longest)
    x = linear_scale([longest / unit], row_margin(run.label for run, _ in timed), WIDTH - 88.0, 5, from_zero=True)
    rows = [Row(run.label, time_bar(phases, colours, x, unit)) for (run, _), phases in zip(timed, folded)]
    body = row_chart(rows, x, f"Time ({unit_name})", "Time of each run by phase")
    keys = [(area_key(kind), PHASES.get(phase, phase.replace("_", " "))) for phase, kind in colours.items()]
    caption = "Summed over the blocks."
    if any(
        sum(phases.values()) > 1.02 * (number(run.metrics.get("total_seconds")) or math.inf) for run, phases in timed
    ):
        caption += " Some blocks were pruned at the same time, so a bar can be longer than the run took."
    return figure("Time by phase", body + legend(keys), caption)


def time_bar(phases: Counter[str], colours: dict[str, str], x: Scale, unit: float) -> Text:
    """Draws the stacked bar of one run, its length written at its end."""

    def draw(y: float) -> str:
        parts, done = [], 0.0
        for phase, kind in colours.items():
            seconds = phases[phase]
            if seconds > 0:
                left, right = x(done / unit), x((done + seconds) / unit)
                tip = f"{PHASES.get(phase, phase)}: {seconds_text(seconds)}"
                parts.append(box(left, y - 9, max(right - left - 0.7, 0.3), 18, f"area {kind}", tip))
            done += seconds
        return "".join(parts) + label(x(done / unit) + 6, y + 4, seconds_text(done), kind="value")

    return draw


def search_figure(runs: list[Run]) -> str:
    """Held-out error against learning rate, for the runs that searched one."""
    curves, chosen, lost = [], [], []
    for position, run in enumerate(runs):
        search = mapping(run.metrics.get("learning_rate"))
        pairs = [
            (number(entry.get("learning_rate")), number(entry.get("held_out_error"))) for entry in candidates(search)
        ]
        points = sorted((rate, error) for rate, error in pairs if rate and error)
        if not points:
            continue
        curves.append(Curve(run.label, position, list(points)))
        rate = number(search.get("learning_rate"))
        chosen += [(position, run.label, rate, error) for at, error in points if at == rate]
        lost += [f"{rate_text(rate)} ({run.label})" for rate, error in pairs if rate and error is None]
    if not curves:
        return ""
    keys = run_legend((curve.position, runs[curve.position]) for curve in curves)
    keys += [(chosen_key(), "chosen")] if chosen else []
    caption = "Error on calibration samples that the optimiser did not see, on the first block."
    caption += "".join(f" {name}: {rate_text(rate)}." for _, name, rate, _ in chosen)
    caption += f" Diverged, so not drawn: {', '.join(lost)}." if lost else ""
    return figure("Search for the learning rate", search_chart(curves, chosen) + legend(keys), caption)


def candidates(search: dict[str, Any]) -> list[dict[str, Any]]:
    """The tried learning rates of a search."""
    entries = search.get("candidates")
    return [mapping(entry) for entry in entries] if isinstance(entries, list) else []


def chosen_key() -> str:
    """The ring around a chosen point for the legend."""
    return small_key('<circle cx="6" cy="6" r="4.8" class="ring"/>')


def search_chart(curves: list[Curve], chosen: list[tuple[int, str, float, float]]) -> str:
    """Log-log plot with rings around the chosen points."""
    points = drawn_points(curves, True)
    y = log_scale([error for _, error in points], HEIGHT - 42, 28.0, 8)
    x = log_scale([rate for rate, _ in points], left_margin(y, tick_text), WIDTH - 20.0, 6)
    lines = [draw_curve(curve, x, y) for curve in curves]
    rings = [
        f'<circle cx="{x(rate):.1f}" cy="{y(error):.1f}" r="8" class="ring {colour(position)}"/>'
        for position, _, rate, error in chosen
    ]
    tips = draw_tooltips(curves, x, y, lambda rate, error: f"rate {rate_text(rate)}: error {error:.3g}")
    titles = ("Learning rate", "Held-out relative squared error")
    return svg(
        HEIGHT,
        "Held-out error against learning rate",
        [*draw_axes(x, y, titles, (rate_text, tick_text)), *lines, *rings, *tips],
    )


def changed_figure(runs: list[Run]) -> str:
    """Share of the first mask that optimisation reversed."""
    shown = [(position, run) for position, run in enumerate(runs) if run.optimised and run.known("changed_mask_share")]
    if not shown:
        return ""
    curves = [Curve(run.label, position, run.by_block("changed_mask_share")) for position, run in shown]
    body = block_chart(curves, "Changed decisions", False, percent_text)
    caption = "Share of all weights of a block that the first mask kept and the last one removes, or the reverse."
    return figure("Changed mask by block", body + legend(run_legend(shown)), caption)


def sparsity_map(run: Run) -> dict[str, Points]:
    """Share of zeros by matrix and block, as far as it is known."""
    matrices = list(dict.fromkeys(name for block in run.pruned_blocks for name in mapping(block.get("sparsity"))))
    return {
        name: [
            (index, number(mapping(block.get("sparsity")).get(name)))
            for block in run.pruned_blocks
            if (index := number(block.get("index"))) is not None
        ]
        for name in matrices
    }


def sparsity_section(runs: list[Run]) -> str:
    """A sentence for runs of the same sparsity everywhere, a heat map for the others; equal maps are drawn once."""
    constant: dict[str, list[str]] = {}
    varying: list[tuple[dict[str, Points], list[str]]] = []
    for run in runs:
        cells = sparsity_map(run)
        values = [value for points in cells.values() for _, value in points if value is not None]
        if not values:
            continue
        if max(values) - min(values) < 0.0005:
            constant.setdefault(percent_text(round(math.fsum(values) / len(values), 4)), []).append(run.label)
        elif same := next((names for known, names in varying if known == cells), None):
            same.append(run.label)
        else:
            varying.append((cells, [run.label]))
    where = "of the weights are zero in each pruned matrix of every pruned block"
    sentences = [
        f"{share} {where}, in every run." if len(names) == len(runs) > 1 else f"{', '.join(names)}: {share} {where}."
        for share, names in constant.items()
    ]
    text = f'<p class="plain">{escape(" ".join(sentences))}</p>' if sentences else ""
    return text + "".join(sparsity_figure(cells, names) for cells, names in varying)


def sparsity_figure(cells: dict[str, Points], names: list[str]) -> str:
    """A heat map, matrices by blocks; unknown cells stay empty."""
    known = [(index, value) for points in cells.values() for index, value in points if value is not None]
    low, high = min(value for _, value in known), max(value for _, value in known)
    short = {name: name.rpartition(".")[2] for name in cells}
    x = block_scale([index for index, _ in known], row_margin(short.values()), WIDTH - 6.0)
    cell, height = x(1) - x(0), 22.0
    bottom = 6 + height * len(cells)
    parts = [label((x.start + x.end) / 2, bottom + 35, "Block", "middle", "title")]
    parts += [label(x(tick), bottom + 16, tick_text(tick), "middle") for tick in x.ticks]
    for position, (name, points) in enumerate(cells.items()):
        top = 6 + height * position
        parts.append(label(x.start - 9, top + 15, short[name], "end", "name"))
        for index, value in points:
            if value is not None:
                shade = f' fill-opacity="{heat(value, low, high):.3f}"'
                tip = f"{name}, block {index:.0f}: {percent_text(round(value, 5))}"
                parts.append(box(x(index - 0.5), top, max(cell - 0.8, 0.5), height - 1, "heat", tip, shade))
    shades = [low + (high - low) * step / 4 for step in range(5)]
    keys = [(heat_key(heat(shade, low, high)), percent_text(float(f"{shade:.3g}"))) for shade in shades]
    body = svg(bottom + 42, "Sparsity by matrix and block", parts) + legend(keys)
    return figure(
        f"Sparsity: {', '.join(names)}",
        body,
        "Share of zeros in each matrix; unknown cells and blocks that were not pruned are empty.",
    )


def heat(value: float, low: float, high: float) -> float:
    """Opacity of a heat-map cell: 0.12 for the lowest value, 1 for the highest."""
    return 0.12 + 0.88 * (value - low) / (high - low)


def heat_key(opacity: float) -> str:
    """A shade for the legend of a heat map."""
    return small_key(f'<path d="M0,0h12v12h-12z" class="heat" fill-opacity="{opacity:.3f}"/>')


# ----------------------------------------------------------------------------------------------------------------------
# Text sections
# ----------------------------------------------------------------------------------------------------------------------


def distinct(values: Iterable[Any]) -> str:
    """The different values in order of appearance, joined."""
    return "; ".join(dict.fromkeys(str(value) for value in values if value))


def model_text(run: Run) -> Optional[str]:
    """Name and size of the model."""
    model = mapping(run.metrics.get("model"))
    if not model.get("path"):
        return None
    blocks, weights = number(model.get("blocks")), number(model.get("block_weights"))
    parts = [str(model["model_type"])] if model.get("model_type") else []
    parts += [f"{blocks:.0f} blocks"] if blocks else []
    parts += [f"{weights:,.0f} weights a block"] if weights else []
    name = Path(str(model["path"])).name or str(model["path"])
    return f"{name} ({', '.join(parts)})" if parts else name


def pattern_text(run: Run) -> Optional[str]:
    """Pattern, with the sparsity where the name does not say it."""
    pattern, sparsity = run.metrics.get("pattern"), number(run.metrics.get("sparsity"))
    if not pattern:
        return None
    return f"{pattern}, {percent_text(sparsity)}" if sparsity is not None and ":" not in str(pattern) else str(pattern)


def calibration_text(run: Run) -> Optional[str]:
    """File and shape of the calibration tokens."""
    calibration = mapping(run.metrics.get("calibration"))
    samples, length = number(calibration.get("samples")), number(calibration.get("sequence_length"))
    parts = [Path(str(calibration["path"])).name] if calibration.get("path") else []
    parts += [f"{samples:.0f} samples × {length:.0f} tokens"] if samples and length else []
    return ", ".join(parts) or None


def parallel_text(run: Run) -> Optional[str]:
    """Ranks and threads."""
    ranks, threads = number(run.metrics.get("ranks")), number(run.metrics.get("threads_per_rank"))
    parts = [f"{ranks:.0f} {'rank' if ranks == 1 else 'ranks'}"] if ranks else []
    parts += [f"{threads:.0f} {'thread' if threads == 1 else 'threads'} each"] if threads else []
    return " × ".join(parts) or None


def facts(runs: list[Run], written: datetime) -> str:
    """What all runs have in common, as a list of terms."""
    version = (str(run.metrics.get("program_version") or "") for run in runs)
    entries = {
        "Model": distinct(map(model_text, runs)),
        "Pattern": distinct(map(pattern_text, runs)),
        "Calibration": distinct(map(calibration_text, runs)),
        "Device": distinct(str(run.metrics.get("device") or "") for run in runs),
        "Parallel": distinct(map(parallel_text, runs)),
        "Version": distinct(f"Espalier {number_}" if number_ else None for number_ in version),
        "Report of": written.strftime("%Y-%m-%d %H:%M"),
    }
    items = "".join(f"<div><dt>{term}</dt><dd>{escape(value)}</dd></div>" for term, value in entries.items() if value)
    return f'<dl class="facts">{items}</dl>'


def verdict(results: list[Result]) -> str:
    """One sentence with the best pruned model."""
    best = measured.best_of(results)
    if best is None:
        return ""
    ratio = f", {best.ratio:.3f} times the dense model's" if best.ratio is not None else ""
    sentence = (
        f"Lowest perplexity after pruning: {best.name} with {measured.format_perplexity(best.perplexity)}{ratio}."
    )
    return f'<p class="verdict">{escape(sentence)}</p>'


def results_table(results: list[Result]) -> str:
    """The comparison of all methods."""
    columns, best = measured.columns_for(results), measured.best_of(results)
    head = "".join(
        f'<th scope="col" title="{escape(column.meaning)}">{escape(column.heading)}</th>' for column in columns
    )
    body = ""
    for result in results:
        kind = "dense" if result.name == measured.DENSE else "best" if result is best else ""
        badge = ' <span class="badge">best</span>' if result is best else ""
        values = "".join(
            f"<td>{escape(cell) or '<span class=none>–</span>'}</td>" for cell in measured.cells(result, columns)
        )
        body += f'<tr class="{kind}"><th scope="row">{escape(result.name)}{badge}</th>{values}</tr>'
    meanings = "; ".join(f"{column.heading}: {column.meaning}" for column in columns)
    table = f'<table><thead><tr><th scope="col">Method</th>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div><p class="note">{escape(meanings)}.</p>'


def option_cell(option: dict[str, Any]) -> str:
    """Value of an option, with its origin unless that is the default."""
    if "value" not in option:
        return "<td></td>"
    value = option["value"]
    printed = escape(value if isinstance(value, str) else json.dumps(value))
    origin = str(option.get("origin") or "default")
    return f"<td>{printed}</td>" if origin == "default" else f"<td><b>{printed}</b><small>{escape(origin)}</small></td>"


def options_table(runs: list[Run]) -> str:
    """Effective options, a column for every run."""
    by_run = [mapping(run.metrics.get("options")) for run in runs]
    names = list(dict.fromkeys(name for options in by_run for name in options))
    if not names:
        return ""
    head = "".join(f'<th scope="col">{escape(run.label)}</th>' for run in runs)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(option_cell(mapping(options.get(name))) for options in by_run)
        + "</tr>"
        for name in names
    )
    table = (
        f'<table class="options"><thead><tr><th scope="col">Option</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )
    note = '<p class="note">Bold values were given, with the place below them; the others are defaults.</p>'
    return f'<h3>Effective options</h3>{note}<div class="scroll">{table}</div>'


def evaluate_command(run: Run, row: dict[str, Any]) -> Optional[str]:
    """The command that measures a run's perplexity again."""
    length = number(row.get("sequence_length"))
    if not row.get("tokens") or length is None:
        return None
    words = ["espalier", "evaluate", "--model", str(run.source.parent), "--tokens", str(row["tokens"])]
    return shlex.join([*words, "--sequence-length", f"{length:.0f}"])


def commands(runs: list[Run], comparison: Comparison) -> str:
    """Command lines that make the runs, their perplexities and the comparison again."""
    digests = distinct(mapping(run.metrics.get("calibration")).get("sha256") for run in runs)
    parts = [f'<p class="note">SHA-256 of the calibration tokens: {escape(digests)}</p>'] if digests else []
    parts += [f"<pre>{escape(comparison.command_line)}</pre>"] if comparison.command_line else []
    for run in runs:
        command = run.metrics.get("command_line")
        lines = [str(command) if command else None, evaluate_command(run, comparison.row_of_run(run))]
        given = "\n".join(line for line in lines if line)
        parts += [f"<h4>{escape(run.label)}</h4><pre>{escape(given)}</pre>"] if given else []
    return f"<h3>How to reproduce</h3>{''.join(parts)}" if parts else ""


# ----------------------------------------------------------------------------------------------------------------------
# Page
# ----------------------------------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #57606a; --rule: #d5dae0; --tint: #eef4fb;
  --k0: #1170c0; --k1: #cf5a10; --k2: #006b45; --k3: #cc4a96; --k4: #3b1f8f; --k5: #159cb0; --k6: #6b2f1f;
  --k7: #9a8a00; --rest: #8b949e; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e6eaef; --soft: #a0a9b4;
  --rule: #39414b; --tint: #1d2a3a; --k0: #58a6f5; --k1: #e87a35; --k2: #1f9e6a; --k3: #f59acb; --k4: #8a5cf0;
  --k5: #7fe0ee; --k6: #ecd957; --k7: #b57f64; --rest: #727c88; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem 1.2rem 3rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .6rem 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
h4 { font-size: .9rem; margin: 1rem 0 .2rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); gap: .5rem 1.5rem;
  margin: 0; padding: .8rem 0; border: solid var(--rule); border-width: 1px 0; }
dt { font-size: .78rem; color: var(--soft); }
dd { margin: 0; font-size: .92rem; overflow-wrap: anywhere; }
.verdict { font-size: 1.05rem; margin: 1.2rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
thead th { font-size: .8rem; font-weight: 600; color: var(--soft); vertical-align: bottom; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
tbody th { font-weight: 500; }
tr.dense > * { border-bottom: 2px solid var(--soft); }
tr.best > *, tr.best > th:first-child { background: var(--tint); font-weight: 700; }
.badge { font-size: .72rem; font-weight: 600; padding: .05rem .4rem; border-radius: .6rem; border: 1px solid var(--k0);
  color: var(--k0); }
.none, .note, figcaption, small { color: var(--soft); }
.plain { grid-column: 1 / -1; margin: 0; }
.note, figcaption { font-size: .82rem; margin: .5rem 0; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 2.2rem 2.5rem; }
figure { margin: 0; break-inside: avoid; min-width: 0; }
figure > svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg text.title, svg text.name, svg text.value { fill: var(--ink); }
.line { fill: none; stroke: currentColor; stroke-width: 1.7; stroke-linejoin: round; }
.dashed { stroke-dasharray: 5 3.5; stroke-width: 1.3; }
.dot, .area { fill: currentColor; }
.dot { stroke: var(--paper); stroke-width: .8; }
.heat { fill: var(--k0); }
.ring { fill: none; stroke: currentColor; stroke-width: 1.8; }
.grid { fill: none; stroke: var(--rule); stroke-width: .7; }
.axis { fill: none; stroke: var(--soft); stroke-width: 1; }
.reference { fill: none; stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 2 3; }
.hit { fill: transparent; }
.k0 { color: var(--k0); } .k1 { color: var(--k1); } .k2 { color: var(--k2); } .k3 { color: var(--k3); }
.k4 { color: var(--k4); } .k5 { color: var(--k5); } .k6 { color: var(--k6); } .k7 { color: var(--k7); }
.rest { color: var(--rest); }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1rem; list-style: none; margin: .4rem 0; padding: 0;
  font-size: .85rem; }
.legend li { display: flex; align-items: center; gap: .4rem; }
.key { width: 28px; height: 12px; flex: none; } .key.small { width: 12px; }
details { margin-top: 2.5rem; border-top: 1px solid var(--rule); padding-top: 1rem; }
summary { cursor: pointer; font-weight: 600; }
details h3 { margin-top: 1.4rem; }
.options td, .options th { text-align: left; vertical-align: top; }
.options small { display: block; }
pre { background: var(--tint); padding: .6rem .8rem; border-radius: .3rem; font-size: .82rem; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: .3rem 0; }
@media (max-width: 30rem) { .facts { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .5rem 1rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
  .plots { grid-template-columns: 1fr 1fr; gap: 1.2rem 1.5rem; } .scroll { overflow: visible; }
  th, td { padding: .25rem .4rem; }
  th:first-child { position: static; }
  h2, h3 { break-after: avoid; } tr { break-inside: avoid; } }
"""


def default_title(runs: list[Run]) -> str:
    """Name of the model and the pattern."""
    paths = (str(mapping(run.metrics.get("model")).get("path") or "") for run in runs)
    names = distinct(Path(path).name or path for path in paths)
    patterns = distinct(map(pattern_text, runs))
    return " at ".join(part for part in (names, patterns) if part) or "Pruning runs"


def page(runs: list[Run], comparison: Comparison, title: Optional[str], written: datetime) -> str:
    """The whole page."""
    results = measured.table_of(runs, comparison)
    caption = measured.perplexity_caption(comparison)
    plots = [
        error_figure(runs),
        perplexity_figure(results, runs, caption),
        time_figure(runs),
        changed_figure(runs),
        search_figure(runs),
    ]
    heading = title or f"Espalier: {default_title(runs)}"
    sparsity, folded = sparsity_section(runs), options_table(runs) + commands(runs, comparison)
    sections = [
        f"<header><h1>{escape(heading)}</h1>{facts(runs, written)}</header>{verdict(results)}",
        f"<h2>Methods</h2>{results_table(results)}"
        + (f'<p class="note">Perplexity on {escape(caption)}.</p>' if caption else ""),
        f'<h2>Plots</h2><div class="plots">{"".join(plots)}</div>' if any(plots) else "",
        f'<h2>Sparsity reached</h2><div class="plots">{sparsity}</div>' if sparsity else "",
        f"<details><summary>Effective options and how to reproduce</summary>{folded}</details>" if folded else "",
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(heading)}</title><style>{STYLE}</style>"
    body = "\n".join(section for section in sections if section)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def with_distinct_labels(runs: list[Run], comparison: Comparison) -> list[Run]:
    """Name runs as the comparison does, else by method; where that is not unique, by folder and then by number."""
    named = [replace(run, label=comparison.row_of_run(run).get("name", run.label)) for run in runs]
    often = Counter(run.label for run in named)
    named = [replace(run, label=run.source.resolve().parent.name) if often[run.label] > 1 else run for run in named]
    often, seen, result = Counter(run.label for run in named), Counter(), []
    for run in named:
        seen[run.label] += 1
        result.append(replace(run, label=f"{run.label} ({seen[run.label]})") if often[run.label] > 1 else run)
    return result


def make_report(options: argparse.Namespace) -> None:
    """Read all inputs, then write the page."""
    comparison = measured.load_comparison(options.comparison) if options.comparison else Comparison(Path())
    runs = [measured.load_run(path) for path in options.runs] or measured.runs_of_comparison(comparison)
    if not runs:
        raise InputRefused("there is no run to report: name a run folder or a comparison with runs")
    runs = with_distinct_labels(runs, comparison)
    measured.write_text(options.output, page(runs, comparison, options.title, datetime.now()))


def main(arguments: Optional[list[str]] = None) -> int:
    """Parse the command line, report, and map refusals to exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run folder or metrics.json")
    parser.add_argument("--comparison", type=Path, help="comparison.json with the perplexities")
    parser.add_argument("--output", type=Path, required=True, help="page to write")
    parser.add_argument("--title", help="heading of the page (default: model and pattern)")
    options = parser.parse_args(arguments)
    try:
        make_report(options)
    except (InputRefused, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    print(f"report: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
