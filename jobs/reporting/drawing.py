"""Scales, axes, curves and bars as SVG text; knows nothing about pruning.

Colours are CSS classes, so that the page's style sheet decides them for light and dark. Only the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple, Optional

from reporting.units import tick_text

Points = list[tuple[float, Optional[float]]]
Text = Callable[[float], str]  # prints a number, or draws something at a height

# ----------------------------------------------------------------------------------------------------------------------
# Scales
# ----------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Scale:
    """Maps values between `low` and `high` to coordinates between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def nice_step(span: float, count: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten that cuts the span into at most `count` steps."""
    power = 10.0 ** math.floor(math.log10(span / count))
    return next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= count * (1 + 1e-9))


def linear_scale(values: Sequence[float], start: float, end: float, count: int, from_zero: bool = False) -> Scale:
    """A linear scale whose ends are ticks."""
    low, high = min([0.0, *values] if from_zero else values), max(values)
    if low == high:
        low, high = (low, low + 1) if from_zero else (low - 1, high + 1)
    step = nice_step(high - low, count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(position * step for position in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], start, end, ticks)


def log_scale(values: Sequence[float], start: float, end: float, count: int) -> Scale:
    """A logarithmic scale between two of 1, 2, 5 times a power of ten; only powers have ticks when there are many."""
    low, high = min(values), max(values)
    low, high = (low / 1.5, high * 1.5) if low == high else (low, high)
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    candidates = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    bottom = max(tick for tick in candidates if tick <= low * (1 + 1e-9))
    top = min(tick for tick in candidates if tick >= high * (1 - 1e-9))
    ticks = [tick for tick in candidates if bottom <= tick <= top]
    if len(ticks) > count:
        powers = [10.0**decade for decade in decades if bottom <= 10.0**decade <= top]
        ticks = powers[:: math.ceil(len(powers) / count)]
    return Scale(bottom, top, start, end, tuple(ticks), logarithmic=True)


def block_scale(blocks: Sequence[float], start: float, end: float) -> Scale:
    """A linear scale for block numbers: whole ticks, half a block of room on both sides."""
    low, high = min(blocks), max(blocks)
    step = max(1.0, nice_step(max(high - low, 1), 8))
    ticks = tuple(step * position for position in range(math.ceil(low / step), math.floor(high / step) + 1))
    return Scale(low - 0.5, high + 0.5, start, end, ticks)


# ----------------------------------------------------------------------------------------------------------------------
# Drawing
# ----------------------------------------------------------------------------------------------------------------------

WIDTH = 440  # of every plot, in its own units; a column of the page or the width of a phone
HEIGHT = 290.0
COLOURS = 8
MARKERS = (
    "M-3.5,0a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0z",  # disc
    "M-3.2,-3.2h6.4v6.4h-6.4z",  # square
    "M0,-4.4L4.2,3.2H-4.2z",  # triangle
    "M0,-4.8L4.4,0L0,4.8L-4.4,0z",  # diamond
    "M0,4.4L4.2,-3.2H-4.2z",  # triangle downwards
    "M-4.7,-1.8h2.9v-2.9h3.6v2.9h2.9v3.6h-2.9v2.9h-3.6v-2.9h-2.9z",  # plus
)


def text_width(content: str) -> float:
    """Width of a text in a plot, on the safe side: fonts differ from reader to reader."""
    return math.fsum(10.2 if character in "mwMW+%@×" else 7.7 for character in content)


def colour(position: int) -> str:
    """Class with the colour of the series at a position."""
    return f"k{position % COLOURS}"


def label(x: float, y: float, content: str, anchor: str = "start", kind: str = "") -> str:
    """A line of text; `anchor` is start, middle or end."""
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(content)}</text>'


def stroke(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<path d="M{x1:.1f},{y1:.1f}L{x2:.1f},{y2:.1f}" class="{kind}"/>'


def box(x: float, y: float, width: float, height: float, kind: str, tip: str, more: str = "") -> str:
    """A filled rectangle with a text under the pointer."""
    shape = f'x="{x:.2f}" y="{y:.1f}" width="{width:.2f}" height="{height:.1f}"'
    return f'<rect {shape} class="{kind}"{more}><title>{escape(tip)}</title></rect>'


def marker(position: int, x: float, y: float) -> str:
    """The marker of the series at a position."""
    return f'<path d="{MARKERS[position % len(MARKERS)]}" transform="translate({x:.1f},{y:.1f})" class="dot"/>'


def tooltip(x: float, y: float, content: str) -> str:
    """An invisible disc that shows a text under the pointer."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" class="hit"><title>{escape(content)}</title></circle>'


def svg(height: float, summary: str, parts: Iterable[str]) -> str:
    """A plot as wide as every plot."""
    drawing = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(summary)}">{drawing}</svg>'


def small_key(shape: str, kind: str = "") -> str:
    """A square sample for the legend."""
    return f'<svg aria-hidden="true" class="key small {kind}" viewBox="0 0 12 12">{shape}</svg>'


def line_key(position: int) -> str:
    """Line and marker of a series for the legend."""
    parts = stroke(1, 6, 27, 6, "line") + marker(position, 14, 6)
    return f'<svg aria-hidden="true" class="key {colour(position)}" viewBox="0 0 28 12">{parts}</svg>'


def style_key(kind: str) -> str:
    """A line without a series' colour for the legend."""
    return f'<svg aria-hidden="true" class="key" viewBox="0 0 28 12">{stroke(1, 6, 27, 6, f"line {kind}")}</svg>'


def area_key(kind: str) -> str:
    """A filled area for the legend."""
    return small_key('<path d="M0,0h12v12h-12z" class="area"/>', kind)


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """A legend of (sample, text)."""
    items = "".join(f"<li>{sample}{escape(content)}</li>" for sample, content in entries)
    return f'<ul class="legend">{items}</ul>'


def figure(title: str, body: str, caption: str) -> str:
    """A plot with its title above and an explanation below."""
    return f"<figure><h3>{escape(title)}</h3>{body}<figcaption>{escape(caption)}</figcaption></figure>"


class Curve(NamedTuple):
    """A series of (x, y), y None being a gap, in the colour and with the marker of a position."""

    name: str
    position: int
    points: Points
    dashed: bool = False


def stretches(points: Points, logarithmic: bool) -> list[list[tuple[float, float]]]:
    """Points between gaps; what has no logarithm is a gap."""
    result: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None or (logarithmic and y <= 0):
            result.append([])
        else:
            result[-1].append((x, y))
    return [stretch for stretch in result if stretch]


def drawn_points(curves: Iterable[Curve], logarithmic: bool) -> list[tuple[float, float]]:
    """All points of the curves that will be seen."""
    return [point for curve in curves for stretch in stretches(curve.points, logarithmic) for point in stretch]


def draw_axes(x: Scale, y: Scale, titles: tuple[str, str], texts: tuple[Text, Text]) -> list[str]:
    """Grid, tick labels and titles, those of x first; the title of y stands above its axis."""
    parts = [
        label((x.start + x.end) / 2, HEIGHT - 5, titles[0], "middle", "title"),
        label(0, 13, titles[1], kind="title"),
    ]
    for tick in y.ticks:
        parts += [
            stroke(x.start, y(tick), x.end, y(tick), "grid"),
            label(x.start - 7, y(tick) + 4, texts[1](tick), "end"),
        ]
    for tick in x.ticks:
        parts.append(stroke(x(tick), y.start, x(tick), y.start + 4, "axis"))
        parts.append(label(x(tick), y.start + 18, texts[0](tick), "middle"))
    return [*parts, stroke(x.start, y.start, x.end, y.start, "axis")]


def draw_curve(curve: Curve, x: Scale, y: Scale) -> str:
    """Line and markers of a series; markers are few and at other places in every series, so that lines stay apart."""
    pieces = stretches(curve.points, y.logarithmic)
    paths = ["L".join(f"{x(at):.1f},{y(value):.1f}" for at, value in piece) for piece in pieces]
    kind = "line dashed" if curve.dashed else "line"
    parts = [f'<path d="M{path}" class="{kind}"/>' for path in paths]
    if not curve.dashed:
        points = [point for piece in pieces for point in piece]
        every = math.ceil(len(points) / 8)
        parts += [marker(curve.position, x(at), y(value)) for at, value in points[curve.position % every :: every]]
    return f'<g class="{colour(curve.position)}">{"".join(parts)}</g>'


def draw_tooltips(curves: Iterable[Curve], x: Scale, y: Scale, describe: Callable[[float, float], str]) -> list[str]:
    """Tooltips of the points of the solid curves; they belong above all lines."""
    return [
        tooltip(x(at), y(value), f"{curve.name}, {describe(at, value)}")
        for curve in curves
        if not curve.dashed
        for at, value in drawn_points([curve], y.logarithmic)
    ]


def left_margin(y: Scale, y_text: Text) -> float:
    """Room for the tick labels of a vertical axis."""
    return 9 + max(text_width(y_text(tick)) for tick in y.ticks)


def block_chart(curves: list[Curve], title: str, logarithmic: bool, y_text: Text) -> str:
    """Curves over the blocks of the model."""
    points = drawn_points(curves, logarithmic)
    values, ends = [value for _, value in points], (HEIGHT - 42, 28.0)
    y = log_scale(values, *ends, 8) if logarithmic else linear_scale(values, *ends, 6, from_zero=True)
    x = block_scale([at for at, _ in points], left_margin(y, y_text), WIDTH - 6.0)
    tips = draw_tooltips(curves, x, y, lambda at, value: f"block {at:.0f}: {y_text(value)}")
    lines = [draw_curve(curve, x, y) for curve in curves]
    return svg(HEIGHT, f"{title} by block", [*draw_axes(x, y, ("Block", title), (tick_text, y_text)), *lines, *tips])


class Row(NamedTuple):
    """A labelled row of a chart with rows: its drawing comes from a function of the vertical centre."""

    name: str
    draw: Text


ROW = 30.0


def row_margin(names: Iterable[str]) -> float:
    """Room for the names of rows."""
    return 11 + max(text_width(shortened(name)) for name in names)


def shortened(name: str) -> str:
    """A name that leaves room for the plot."""
    return name if len(name) <= 22 else name[:21] + "…"


def row_chart(rows: list[Row], x: Scale, title: str, summary: str, behind: str = "") -> str:
    """Rows above a common horizontal axis."""
    bottom = 8 + ROW * len(rows)
    parts = [stroke(x(tick), 4, x(tick), bottom + 4, "grid") for tick in x.ticks]
    parts += [label(x(tick), bottom + 18, tick_text(tick), "middle") for tick in x.ticks]
    parts += [label((x.start + x.end) / 2, bottom + 37, title, "middle", "title"), behind]
    for position, row in enumerate(rows):
        centre = 8 + ROW * (position + 0.5)
        name = f"<title>{escape(row.name)}</title>" if shortened(row.name) != row.name else ""
        parts.append(f"<g>{name}{label(x.start - 9, centre + 4, shortened(row.name), 'end', 'name')}</g>")
        parts.append(row.draw(centre))
    return svg(bottom + 44, summary, parts)
