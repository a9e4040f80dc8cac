"""The plots of a report: each `*_figure` makes one from runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from html import escape
from typing import Any, Optional

from reporting.comparison import DENSE, Result
from reporting.drawing import (
    COLOURS,
    HEIGHT,
    ROW,
    WIDTH,
    Curve,
    Points,
    Row,
    Scale,
    Text,
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
    row_chart,
    row_margin,
    small_key,
    stroke,
    style_key,
    svg,
)
from reporting.metrics import Run, mapping, number
from reporting.units import perplexity_text, learning_rate_text, percent_text, seconds_text, tick_text

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
    caption = (
        "‖f − f₀‖² / ‖f₀‖² of each block's output over all samples, on inputs from the pruned blocks before it; f₀ is "
        "the dense block, or, of a reconstruction, the dense model. Errors after the first mask are over the samples that "
        "are drawn first, or held out by a reconstruction."
    )
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
    dense = next((x(result.perplexity) for result in shown if result.name == DENSE), None)
    line = stroke(dense, 4, dense, 8 + ROW * len(rows), "reference") if dense is not None else ""
    note = f"On {caption}. Lower is better" if caption else "Lower is better"
    note += "; the axis is logarithmic." if logarithmic else "; the axis does not begin at zero." if x.low > 0 else "."
    return figure("Perplexity", row_chart(rows, x, "Perplexity", "Perplexity of each method", line), note)


def perplexity_dot(result: Result, position: Optional[int], x: Scale) -> Text:
    """Draws the dot of one row and its value; what has no run is in the colour of text."""
    at, value = x(result.perplexity), perplexity_text(result.perplexity)

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
        lost += [f"{learning_rate_text(rate)} ({run.label})" for rate, error in pairs if rate and error is None]
    if not curves:
        return ""
    keys = run_legend((curve.position, runs[curve.position]) for curve in curves)
    keys += [(chosen_key(), "chosen")] if chosen else []
    caption = "Error on calibration samples that the optimiser did not see, on the first block."
    caption += "".join(f" {name}: {learning_rate_text(rate)}." for _, name, rate, _ in chosen)
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
    tips = draw_tooltips(curves, x, y, lambda rate, error: f"rate {learning_rate_text(rate)}: error {error:.3g}")
    titles = ("Learning rate", "Held-out relative squared error")
    return svg(
        HEIGHT,
        "Held-out error against learning rate",
        [*draw_axes(x, y, titles, (learning_rate_text, tick_text)), *lines, *rings, *tips],
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
