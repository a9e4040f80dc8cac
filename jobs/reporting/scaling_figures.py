"""The plots of a scaling study, from a series of its cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from reporting.drawing import (
    COLOURS,
    HEIGHT,
    WIDTH,
    Row,
    Scale,
    Text,
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
    tooltip,
)
from reporting.figures import OTHER, PHASES, fold_small_phases, phase_colours
from reporting.scaling_study import LIMITS, Case, Series
from reporting.units import (
    bandwidth_text,
    bandwidth_tick,
    bytes_text,
    count_text,
    few_digits,
    percent_tick,
    plural,
    share_text,
    time_text,
    time_tick,
)

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


def scaling_chart(series: Series, unit: str, origin: str, y: Scale, title: str, what: Callable[..., float]) -> str:
    """`what(ranks, seconds)` against ranks: the cases with their ranges, the plan, the fitted law, the ideal."""
    cases, base, share = series.cases, series.base, series.serial_share()
    y_text, tip_text = (time_tick, time_text) if y.logarithmic else (percent_tick, share_text)
    x, x_text = ranks_axis(cases, left_margin(y, y_text))

    def at(ranks: float, seconds: float) -> tuple[float, float]:
        return x(ranks), y(what(ranks, seconds))

    last = cases[-1].ranks
    parts = [line([at(base.ranks, base.seconds), at(last, series.ideal(last))], "reference")]
    keys = [(marked_key(MEASURED), RUN[origin])]
    if planned := [at(case.ranks, case.plan.seconds) for case in cases if case.plan]:
        parts.append(f'<g class="{colour(PLANNED)}">{line(planned, "line dashed")}</g>')
        keys.append((dashed_key(PLANNED), "plan"))
    if share is not None:
        law = [at(ranks, series.amdahl(share, ranks)) for ranks in between(base.ranks, last)]
        parts.append(f'<g class="{colour(FITTED)}">{line(law, "line dashed")}</g>')
        keys.append((dashed_key(FITTED), "Amdahl’s law, fitted"))
    points = [at(case.ranks, case.seconds) for case in cases]
    ranges = [(at(case.ranks, min(case.times))[1], at(case.ranks, max(case.times))[1]) for case in cases]
    parts.append(marked_line(MEASURED, points, ranges))
    tips = (f"{count_text(case.ranks, unit)}: {tip_text(what(case.ranks, case.seconds))}" for case in cases)
    parts += [tooltip(*point, tip) for point, tip in zip(points, tips)]
    drawing = svg(HEIGHT, f"{title} by {unit}s", [*draw_axes(x, y, (plural(unit), title), (x_text, y_text)), *parts])
    return drawing + legend([*keys, (ideal_key(), "ideal")])


def time_figure(series: Series, unit: str, origin: str) -> str:
    """Time of the same work against ranks, both logarithmic."""
    cases, base = series.cases, series.base
    if len(cases) < 2 or series.kind == "weak":
        return ""
    values = [seconds for case in cases for seconds in (*case.times, *(case.plan.times if case.plan else ()))]
    y = time_scale([*values, series.ideal(cases[-1].ranks)])
    body = scaling_chart(series, unit, origin, y, "Time of the run", lambda ranks, seconds: seconds)
    return figure("Time", body, fit_text(series, count_text(base.ranks, unit), unit))


def fit_text(series: Series, base: str, unit: str) -> str:
    """What the fitted serial share means."""
    share = series.serial_share()
    if share is None:
        return "Groups, shards or mini-batches differ from size to size: one Amdahl’s law would not hold for all."
    law = f"Amdahl’s law, by least squares of the relative error, with {share_text(share)} of the time on {base} serial"
    if share == 0:
        return f"{law}: nothing of it is seen to be."
    limit = f"{law}: then no number of {unit}s is more than {few_digits(1 / share)} times as fast."
    last = series.cases[-1]
    beaten = series.base.seconds / last.seconds > 1 / share
    return f"{limit} That {count_text(last.ranks, unit)} are shows where the law ends." if beaten else limit


def efficiency_figure(series: Series, unit: str, origin: str) -> str:
    """Efficiency against ranks below the ideal 100 %."""
    cases, base = series.cases, count_text(series.base.ranks, unit)
    if len(cases) < 2:
        return ""
    values = [
        series.ideal(case.ranks) / seconds
        for case in cases
        for seconds in (*case.times, *(case.plan.times if case.plan else ()))
    ]
    y = linear_scale([1.0, *values], BOTTOM, TOP, 6, from_zero=True)
    chart = scaling_chart(series, unit, origin, y, "Efficiency", lambda ranks, seconds: series.ideal(ranks) / seconds)
    caption = {
        "strong": f"Speed-up over {base} as a share of the ideal.",
        "weak": f"Time on {base} by the time on more, which have as many times the work.",
    }
    planned = f" The plan’s is by the dry run’s {base} too." if any(case.plan for case in cases) else ""
    return figure("Efficiency", chart, caption[series.kind] + planned)


# ----------------------------------------------------------------------------------------------------------------------
# Where the time goes
# ----------------------------------------------------------------------------------------------------------------------


SHARE = "Share of a block’s time (%)"
RUN_SHARE = "Share of the run’s time (%)"
SECONDS = "Time of a block (s)"


def stacked(by_case: list[Counter[str]], names: list[str], kinds: dict[str, str], title: str, text: Text) -> str:
    """Bars with a row for each case; each as long as the other when they are shares."""
    shares = title.startswith("Share")
    wholes = [sum(parts.values()) for parts in by_case]
    end = WIDTH - (14.0 if shares else 12.0 + max(text_width(text(whole)) for whole in wholes))
    x = linear_scale([100.0 if shares else max(wholes)], row_margin(names), end, 5, from_zero=True)

    def bar(parts: Counter[str], whole: float) -> Text:
        def draw(centre: float) -> str:
            done, drawn = 0.0, []
            for name, kind in kinds.items():
                length = parts[name] * (100.0 / whole if shares else 1)
                if length > 0:
                    tip = f"{phase_name(name)}: {text(parts[name])}, {share_text(parts[name] / whole)}"
                    left, right = x(done), x(done + length)
                    drawn.append(box(left, centre - 9, max(right - left - 0.7, 0.3), 18, f"area {kind}", tip))
                done += length
            return "".join(drawn) + ("" if shares else label(x(done) + 6, centre + 4, text(whole), kind="value"))

        return draw

    rows = [Row(name, bar(*of_case)) for name, *of_case in zip(names, by_case, wholes)]
    return row_chart(rows, x, title, title) + legend((area_key(kind), phase_name(name)) for name, kind in kinds.items())


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
    kinds = phase_colours(used)
    names = [count_text(case.ranks, unit) for case in cases]
    mean = "Mean over blocks and repeats" if origin == "measured" else "One block stands for all, which have one shape"
    caption = f"{mean}. Seconds of its owner; phases below 2 % are in “other”."
    figures = [figure("A block by phase", stacked(folded, names, kinds, SECONDS, time_text), caption)]
    if len(cases) > 1 and series.kind == "strong":
        caption = "The same, each bar as long as the other: what grows from row to row is what does not scale in a block."
        figures.append(figure("Shares of the phases", stacked(folded, names, kinds, SHARE, time_text), caption))
    return figures


def run_figure(series: Series, unit: str) -> str:
    """Bars of what a planned or dry run is made of."""
    cases = [case for case in series.cases if len(case.parts) > 1]
    if not cases:
        return ""
    kinds = {"blocks": colour(0), "dense pass": colour(1), "files alone": colour(2)}
    names = [count_text(case.ranks, unit) for case in cases]
    body = stacked([case.parts for case in cases], names, kinds, RUN_SHARE, time_text)
    caption = (
        "Blocks that a rank works on one after the other; the pass of all samples through dense blocks to the later "
        "block groups; reading the first block and writing the last, with nothing beside it. What grows from row to row "
        "does not scale."
    )
    return figure("What the run is made of", body, caption)


def limits_figure(series: Series, unit: str) -> str:
    """Bars of what bounds a block in a plan."""
    cases = [case for case in series.cases if sum(case.limits.values()) > 0]
    if not cases:
        return ""
    kinds = dict(zip(LIMITS, ("k0", "k5", "k7", "k1")))
    names = [count_text(case.ranks, unit) for case in cases]
    body = stacked([case.limits for case in cases], names, kinds, SHARE, time_text)
    caption = "Of the modelled device: products of matrices, its memory, the host link; for the network what is left."
    return figure("What a block waits for", body, caption)


def collectives(series: Series) -> list[tuple[str, str]]:
    """Phases and collectives with at least a hundredth of the bytes of a case, those with the most bytes first."""
    most: Counter[tuple[str, str]] = Counter()
    for case in series.cases:
        whole = sum(traffic.busier for traffic in case.traffic.values())
        for key, traffic in case.traffic.items():
            if whole:
                most[key] = max(most[key], traffic.busier / whole)
    return [key for key, share in most.most_common(COLOURS) if share >= 0.01]


def collective_name(key: tuple[str, str]) -> str:
    """optimise: exchange."""
    return f"{phase_name(key[0])}: {key[1].replace('_', '-')}"


def bytes_figure(series: Series, unit: str) -> str:
    """Bars of the bytes of a block by collective."""
    keys = collectives(series)
    cases = [case for case in series.cases if any(case.traffic[key].busier for key in keys if key in case.traffic)]
    if not cases:
        return ""
    by_case = [
        Counter({collective_name(key): case.traffic[key].busier for key in keys if key in case.traffic})
        for case in cases
    ]
    kinds = {collective_name(key): colour(place) for place, key in enumerate(keys)}
    most = max(sum(parts.values()) for parts in by_case)
    power = max((power for power in (0, 3, 6, 9, 12) if most >= 10.0**power), default=0)
    scaled = [Counter({name: count / 10.0**power for name, count in parts.items()}) for parts in by_case]
    title = f"Bytes of a block ({bytes_text(10.0**power).split()[1]})"
    names = [count_text(case.ranks, unit) for case in cases]
    body = stacked(scaled, names, kinds, title, lambda value: bytes_text(value * 10.0**power))
    return figure("Bytes by collective", body, "Through one rank, of the busier direction.")


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
    x, x_text = ranks_axis(cases, left_margin(y, bandwidth_tick))
    lines, tips = [], []
    for place, (key, pairs) in enumerate(shown.items()):
        points = [(x(case.ranks), y(rate)) for case, rate in pairs]
        lines.append(marked_line(place, points, [(0, 0)] * len(points)))
        tips += [
            tooltip(*point, f"{collective_name(key)}, {count_text(case.ranks, unit)}: {bandwidth_text(rate)}")
            for point, (case, rate) in zip(points, pairs)
        ]
    titles = (plural(unit), "Bus bandwidth of a rank, at least")
    drawing = svg(HEIGHT, titles[1], [*draw_axes(x, y, titles, (x_text, bandwidth_tick)), *lines, *tips])
    keys = legend((marked_key(place), collective_name(key)) for place, key in enumerate(shown))
    caption = (
        "A lower bound: bytes of the busier direction by all seconds of the phase, in which the rank also computes."
    )
    return figure("Bandwidth by collective", drawing + keys, caption)
