"""The plots of scaling_report.py, drawn with report_drawing.py from a series of cases."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Optional

from report import OTHER, PHASES, fold_small_phases
from report_drawing import (
    COLOURS,
    HEIGHT,
    Row,
    Scale,
    Text,
    WIDTH,
    area_key,
    box,
    colour,
    draw_axes,
    figure,
    label,
    left_margin,
    legend,
    linear_scale,
    log_scale,
    marker,
    row_chart,
    row_margin,
    stroke,
    svg,
    text_width,
    tick_text,
    tooltip,
)
from scaling_study import LIMITS, Case, Series, bytes_text, count_text, few_digits, plural, share_text, time_text

MEASURED, FITTED, PLANNED = 0, 1, 2  # colours of lines
TOP, BOTTOM = 28.0, HEIGHT - 42
RUN = {"measured": "measured, median", "dry run": "dry run", "plan": "planned"}

# ----------------------------------------------------------------------------------------------------------------------
# Axes and lines
# ----------------------------------------------------------------------------------------------------------------------


def ranks_axis(cases: Sequence[Case], start: float) -> tuple[Scale, Text]:
    """A logarithmic axis with a tick at every case, and texts for as many as have room."""
    ranks = [case.ranks for case in cases]
    end = WIDTH - max(8.0, text_width(f"{ranks[-1]:,}") / 2)
    x = Scale(ranks[0] / 1.12, ranks[-1] * 1.12, start, end, tuple(ranks), logarithmic=True)
    # From the right, so that the largest has its number; every second, third, … so that they look regular.
    for every in range(1, len(ranks) + 1):
        shown = ranks[::-1][::every]
        widths = [(text_width(f"{upper:,}") + text_width(f"{lower:,}")) / 2 for upper, lower in zip(shown, shown[1:])]
        if all(x(upper) - x(lower) >= width for upper, lower, width in zip(shown, shown[1:], widths)):
            break
    return x, lambda tick: f"{tick:,.0f}" if tick in shown else ""


def time_scale(values: Sequence[float]) -> Scale:
    """A logarithmic axis with ticks at 1, 2, 5, 10, 20 seconds, minutes, hours."""
    steps = [factor * 10.0**power for power in range(-6, 1) for factor in (1, 2, 5)] + [10.0, 20.0]
    steps += [unit * count for unit in (60.0, 3600.0) for count in (1, 2, 5, 10, 20)]
    steps += [3600.0 * factor * 10**power for power in range(2, 7) for factor in (0.5, 1, 2)]
    low, high = min(values), max(values)
    first = max((place for place, step in enumerate(steps) if step <= low), default=0)
    last = min((place for place, step in enumerate(steps) if step >= high), default=len(steps) - 1)
    ticks = steps[first : max(last, first + 1) + 1]
    if len(ticks) > 12:
        ticks = [ticks[0], *(tick for tick in ticks[1:-1] if time_tick(tick).startswith("1")), ticks[-1]]
    return Scale(ticks[0], ticks[-1], BOTTOM, TOP, tuple(ticks), logarithmic=True)


def time_tick(seconds: float) -> str:
    """1 ms, 20 s, 5 min, 2 h: ticks of time_scale."""
    for unit, name in ((3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if seconds >= unit * (0.0999 if name == "s" else 0.9999):
            return f"{seconds / unit:,.6g} {name}"
    return f"{1000 * seconds:.3g} ms"


def line(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through points of the plot."""
    path = "L".join(f"{across:.1f},{down:.1f}" for across, down in points)
    return f'<path d="M{path}" class="{kind}"/>'


def dashed_key(position: int) -> str:
    """A dashed line in a colour for the legend."""
    parts = stroke(1, 6, 27, 6, "line dashed")
    return f'<svg aria-hidden="true" class="key {colour(position)}" viewBox="0 0 28 12">{parts}</svg>'


def marked_key(position: int) -> str:
    """A line with its marker for the legend."""
    parts = stroke(1, 6, 27, 6, "line") + marker(position, 14, 6)
    return f'<svg aria-hidden="true" class="key {colour(position)}" viewBox="0 0 28 12">{parts}</svg>'


def ideal_key() -> str:
    """The dotted line of the ideal for the legend."""
    return f'<svg aria-hidden="true" class="key" viewBox="0 0 28 12">{stroke(1, 6, 27, 6, "reference")}</svg>'


def whisker(across: float, low: float, high: float) -> str:
    """The range of the repeats; nothing where it would hide behind the marker."""
    if abs(high - low) < 2:
        return ""
    caps = stroke(across - 4, low, across + 4, low, "line") + stroke(across - 4, high, across + 4, high, "line")
    return stroke(across, low, across, high, "line") + caps


def marked_line(position: int, points: Sequence[tuple[float, float]], ranges: Sequence[tuple[float, float]]) -> str:
    """A line with a marker, and a whisker where repeats differ, at every point."""
    whiskers = [whisker(across, *range_) for (across, _), range_ in zip(points, ranges)]
    dots = [marker(position, across, down) for across, down in points]
    return f'<g class="{colour(position)}">{line(points, "line")}{"".join(whiskers)}{"".join(dots)}</g>'


def between(low: float, high: float) -> list[float]:
    """Places for a smooth line on a logarithmic axis."""
    return [low * (high / low) ** (step / 60) for step in range(61)]


# ----------------------------------------------------------------------------------------------------------------------
# Scaling
# ----------------------------------------------------------------------------------------------------------------------


def time_figure(series: Series, unit: str, origin: str) -> str:
    """Time of the same work against ranks, both logarithmic, with the ideal, the fitted law and the plan."""
    cases, share = series.cases, series.serial_share()
    if len(cases) < 2 or series.kind == "weak":
        return ""
    base = series.base
    values = [value for case in cases for value in (*case.times, case.plan.seconds if case.plan else case.seconds)]
    values.append(base.seconds * base.ranks / cases[-1].ranks)
    y = time_scale(values)
    x, x_text = ranks_axis(cases, left_margin(y, time_tick))
    ideal = stroke(x(base.ranks), y(base.seconds), x(cases[-1].ranks), y(values[-1]), "reference")
    parts, keys = [ideal], [(marked_key(MEASURED), RUN[origin])]
    planned = [(x(case.ranks), y(case.plan.seconds)) for case in cases if case.plan]
    if planned:
        parts.append(f'<g class="{colour(PLANNED)}">{line(planned, "line dashed")}</g>')
        keys.append((dashed_key(PLANNED), "plan"))
    if share is not None:
        smooth = [(x(at), y(series.amdahl(share, at))) for at in between(base.ranks, cases[-1].ranks)]
        parts.append(f'<g class="{colour(FITTED)}">{line(smooth, "line dashed")}</g>')
        keys.append((dashed_key(FITTED), "Amdahl’s law, fitted"))
    points = [(x(case.ranks), y(case.seconds)) for case in cases]
    parts.append(marked_line(MEASURED, points, [(y(min(case.times)), y(max(case.times))) for case in cases]))
    parts += [
        tooltip(*point, f"{count_text(case.ranks, unit)}: {time_text(case.seconds)}")
        for point, case in zip(points, cases)
    ]
    drawing = svg(
        HEIGHT,
        f"Time against {unit}s",
        [*draw_axes(x, y, (plural(unit), "Time of the run"), (x_text, time_tick)), *parts],
    )
    return figure("Time", drawing + legend([*keys, (ideal_key(), "ideal")]), fit_text(series, share, unit))


def fit_text(series: Series, share: Optional[float], unit: str) -> str:
    """What the fitted serial share means."""
    if share is None:
        return "Both axes are logarithmic."
    base = count_text(series.base.ranks, unit)
    law = f"Amdahl’s law with the share s that least squares of the relative error give: s = {share_text(share)} of the"
    if share == 0:
        return f"{law} time on {base}, so nothing of it is seen to be serial. Both axes are logarithmic."
    most = few_digits(1 / share)
    return f"{law} time on {base} does not shrink. By this law no number of {unit}s is more than {most} times as fast as {base}."


def efficiency_figure(series: Series, unit: str, origin: str) -> str:
    """Efficiency against ranks below the ideal 100 %."""
    cases, share = series.cases, series.serial_share()
    if len(cases) < 2:
        return ""
    ranges = [[series.efficiency(case, seconds) for seconds in (max(case.times), min(case.times))] for case in cases]
    planned = [(case.ranks, series.efficiency(case, case.plan.seconds)) for case in cases if case.plan]
    tallest = max([1.0, *(high for _, high in ranges), *(value for _, value in planned)])
    y = linear_scale([tallest], BOTTOM, TOP, 6, from_zero=True)
    x, x_text = ranks_axis(cases, left_margin(y, percent))
    parts, keys = [stroke(x.start, y(1), x.end, y(1), "reference")], [(marked_key(MEASURED), RUN[origin])]
    if planned:
        drawn = line([(x(at), y(value)) for at, value in planned], "line dashed")
        parts.append(f'<g class="{colour(PLANNED)}">{drawn}</g>')
        keys.append((dashed_key(PLANNED), "plan"))
    if share is not None:
        ends = between(series.base.ranks, cases[-1].ranks)
        law = [(at, series.base.seconds * series.base.ranks / at / series.amdahl(share, at)) for at in ends]
        drawn = line([(x(at), y(value)) for at, value in law], "line dashed")
        parts.append(f'<g class="{colour(FITTED)}">{drawn}</g>')
        keys.append((dashed_key(FITTED), "Amdahl’s law, fitted"))
    points = [(x(case.ranks), y(series.efficiency(case))) for case in cases]
    parts.append(marked_line(MEASURED, points, [(y(low), y(high)) for low, high in ranges]))
    parts += [
        tooltip(*point, f"{count_text(case.ranks, unit)}: {share_text(series.efficiency(case))}")
        for point, case in zip(points, cases)
    ]
    drawing = svg(
        HEIGHT, f"Efficiency against {unit}s", [*draw_axes(x, y, (plural(unit), "Efficiency"), (x_text, percent)), *parts]
    )
    base = count_text(series.base.ranks, unit)
    caption = f"Time of {base} by the time measured" if series.kind == "weak" else f"Speed-up over {base} by the ideal"
    return figure(
        "Efficiency",
        drawing + legend([*keys, (ideal_key(), "ideal")]),
        f"{caption}, which is 100 %." if series.kind == "strong" else f"{caption}; ideally 100 %.",
    )


def percent(share: float) -> str:
    """Ticks of the efficiency."""
    return f"{tick_text(round(100 * share, 6))} %"


# ----------------------------------------------------------------------------------------------------------------------
# Where the time goes
# ----------------------------------------------------------------------------------------------------------------------


def stacked(by_case: list[Counter[str]], cases: list[Case], kinds: dict[str, str], unit: str, title: str) -> str:
    """Bars of seconds, or of shares when `title` says so, a row for each case."""
    names = [count_text(case.ranks, unit) for case in cases]
    shares = title == SHARE
    longest = 1.0 if shares else max(sum(parts.values()) for parts in by_case)
    scale = 100.0 if shares else 1.0
    end = WIDTH - 14.0 if shares else WIDTH - 66.0
    x = linear_scale([scale * longest], row_margin(names), end, 5, from_zero=True)

    def bar(parts: Counter[str]) -> Text:
        whole = sum(parts.values())

        def draw(centre: float) -> str:
            done, drawn = 0.0, []
            for name, kind in kinds.items():
                length = scale * parts[name] / (whole if shares else 1)
                if length > 0:
                    tip = f"{phase_name(name)}: {time_text(parts[name])}, {share_text(parts[name] / whole)}"
                    left, right = x(done), x(done + length)
                    drawn.append(box(left, centre - 9, max(right - left - 0.7, 0.3), 18, f"area {kind}", tip))
                done += length
            return "".join(drawn) + ("" if shares else label(x(done) + 6, centre + 4, time_text(whole), kind="value"))

        return draw

    rows = [Row(name, bar(parts)) for name, parts in zip(names, by_case)]
    return row_chart(rows, x, title, title) + legend((area_key(kind), phase_name(name)) for name, kind in kinds.items())


SHARE = "Share of a block's time (%)"
SECONDS = "Time of a block (s)"


def phase_name(phase: str) -> str:
    """A phase or limit as people say it."""
    return PHASES.get(phase) or LIMITS.get(phase) or phase.replace("_", " ")


def phase_figures(series: Series, unit: str, origin: str) -> list[str]:
    """Bars of a block's phases: seconds, then shares."""
    cases = [case for case in series.cases if sum(case.phases.values()) > 0]
    if not cases:
        return []
    folded = fold_small_phases([case.phases for case in cases])
    order = [*PHASES, *sorted(set().union(*folded) - set(PHASES) - {OTHER}), OTHER]
    used = [phase for phase in order if any(parts[phase] > 1e-12 for parts in folded)]
    kinds = {phase: "rest" if phase == OTHER else colour(place) for place, phase in enumerate(used)}
    of_what = "Mean over the blocks and repeats, on the rank that owns the block." if origin == "measured" else ""
    figures = [figure("A block by phase", stacked(folded, cases, kinds, unit, SECONDS), of_what)]
    if len(cases) > 1 and series.kind == "strong":
        caption = "The same bars, each as long as the other: what grows here is what does not scale."
        figures.append(figure("Shares of the phases", stacked(folded, cases, kinds, unit, SHARE), caption))
    return figures


def limits_figure(series: Series, unit: str) -> str:
    """Bars of what bounds a block in a plan."""
    cases = [case for case in series.cases if sum(case.limits.values()) > 0]
    if not cases:
        return ""
    kinds = {limit: kind for limit, kind in zip(LIMITS, ("k0", "k5", "k7", "k1"))}
    body = stacked([case.limits for case in cases], cases, kinds, unit, SHARE)
    caption = (
        "Of the modelled device: matrix products, its memory, the link to the host; network is what the block waits "
    )
    return figure("What a block waits for", body, caption + "for beyond them.")


def collectives(series: Series) -> list[tuple[str, str]]:
    """Phases and collectives with at least a thousandth of the bytes of a case, those with the most bytes first."""
    most: Counter[tuple[str, str]] = Counter()
    for case in series.cases:
        whole = sum(traffic.busier for traffic in case.traffic.values())
        for key, traffic in case.traffic.items():
            if whole:
                most[key] = max(most[key], traffic.busier / whole)
    return [key for key, share in most.most_common(COLOURS) if share >= 0.001]


def collective_name(key: tuple[str, str]) -> str:
    """optimise: exchange."""
    return f"{phase_name(key[0])}: {key[1].replace('_', '-')}"


def bandwidth_figure(series: Series, unit: str) -> str:
    """Bytes by the seconds of the phase, for each collective with many bytes."""
    rates = {
        key: [(case, rate) for case in series.cases if (rate := case.bandwidth(key))] for key in collectives(series)
    }
    shown = {key: pairs for key, pairs in rates.items() if len(pairs) > 1}
    if not shown:
        return ""
    cases = [case for case in series.cases if any(case is other for pairs in shown.values() for other, _ in pairs)]
    y = log_scale([rate for pairs in shown.values() for _, rate in pairs], BOTTOM, TOP, 9)
    x, x_text = ranks_axis(cases, left_margin(y, rate_text))
    lines, tips = [], []
    for place, (key, pairs) in enumerate(shown.items()):
        points = [(x(case.ranks), y(rate)) for case, rate in pairs]
        lines.append(marked_line(place, points, [(0, 0)] * len(points)))
        tips += [
            tooltip(*point, f"{collective_name(key)}, {count_text(case.ranks, unit)}: {rate_text(rate)}")
            for point, (case, rate) in zip(points, pairs)
        ]
    titles = (plural(unit), "Bus bandwidth of a rank, at least")
    drawing = svg(HEIGHT, titles[1], [*draw_axes(x, y, titles, (x_text, rate_text)), *lines, *tips])
    keys = legend((marked_key(place), collective_name(key)) for place, key in enumerate(shown))
    caption = (
        "A lower bound: bytes of the busier direction by all seconds of the phase, in which the rank also computes."
    )
    return figure("Bandwidth by collective", drawing + keys, caption)


def rate_text(rate: float) -> str:
    """117 GB/s."""
    return f"{bytes_text(rate)}/s"
