"""How much of what pruning costs a method wins back, over seeds, and tables of it."""

from __future__ import annotations

import math
from html import escape
from statistics import mean, stdev
from typing import Any, NamedTuple, Optional, Sequence

Record = dict[str, Any]  # one run: method, pattern, calibration, seed, seconds, peak_bytes, perplexity by text


def closure(wanda: float, found: float, dense: float) -> float:
    """ln(wanda / x) / ln(wanda / dense): 0 is Wanda, 1 the dense model."""
    return math.log(wanda / found) / math.log(wanda / dense)


def spread(values: Sequence[float], digits: int = 0, factor: float = 1.0) -> str:
    """Mean ± standard deviation, or one value alone."""
    scaled = [factor * value for value in values]
    text = f"{mean(scaled):,.{digits}f}"
    return text if len(scaled) < 2 else f"{text} ± {stdev(scaled):,.{digits}f}"


def closures(records: Sequence[Record], record: Record, dense: dict[str, float], texts: Sequence[str]) -> Optional[float]:
    """The mean closure of a run over some texts, beside Wanda's run with the same pattern, calibration and seed."""
    key = ("pattern", "calibration", "seed")
    for other in records:
        if other["method"] == "wanda" and all(other[name] == record[name] for name in key):
            return mean(closure(other["perplexity"][text], record["perplexity"][text], dense[text]) for text in texts)
    return None


def table(records: Sequence[Record], dense: dict[str, float], domains: Sequence[str]) -> str:
    """Markdown: a row for each pattern, calibration and method. Of the domains the first is that of the calibration."""
    inside, *outside = domains
    head = ["pattern", "calibration", "method", *domains, "closure inside", "closure outside",
            "seconds", "peak, MiB"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * 3 + ["---:"] * (len(head) - 3)) + " |"]
    dense_cells = ["", "", "dense", *(f"{dense[text]:.1f}" for text in domains), "100", "100", "", ""]
    lines.append("| " + " | ".join(dense_cells) + " |")
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["pattern"], record["calibration"], record["method"]), []).append(record)
    for (pattern, calibration, method), group in groups.items():
        cells = [pattern, calibration, method]
        cells += [spread([record["perplexity"][text] for record in group], 1) for text in domains]
        for texts in ([inside], outside):
            values = [value for record in group if (value := closures(records, record, dense, texts)) is not None]
            cells.append(spread(values, 1, 100) if values else "")
        cells.append(spread([record["seconds"] for record in group]))
        cells.append(spread([record["peak_bytes"] / 2**20 for record in group]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


class Dot(NamedTuple):
    """A method of one group: mean seconds and mean closure."""

    name: str
    seconds: float
    closure: float


def dots_of(records: Sequence[Record], dense: dict[str, float], texts: Sequence[str]) -> dict[str, list[Dot]]:
    """By pattern and calibration."""
    groups: dict[str, list[Dot]] = {}
    seen: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        seen.setdefault((record["pattern"], record["calibration"], record["method"]), []).append(record)
    for (pattern, calibration, method), group in seen.items():
        values = [value for record in group if (value := closures(records, record, dense, texts)) is not None]
        if values:
            dot = Dot(method, mean(record["seconds"] for record in group), mean(values))
            groups.setdefault(f"{pattern}, calibrated with {calibration}", []).append(dot)
    return groups


def plot(title: str, dots: Sequence[Dot]) -> str:
    """Closure against seconds, as SVG that stands alone: seconds by powers of ten, closure from 0 to 100 per cent."""
    width, height, left, bottom = 640, 360, 60, 310
    low = math.floor(math.log10(min(dot.seconds for dot in dots)) * 3) / 3
    high = math.ceil(math.log10(max(dot.seconds for dot in dots)) * 3) / 3 + 1e-9
    least = min(0.0, math.floor(min(dot.closure for dot in dots) * 10) / 10)

    def x(seconds: float) -> float:
        return left + (math.log10(seconds) - low) / max(high - low, 0.1) * (width - left - 150)

    def y(share: float) -> float:
        return bottom - (share - least) / (1 - least) * (bottom - 40)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
             f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
             f'<text x="{left}" y="22" font-size="14">{escape(title)}</text>']  # fmt: skip
    for tick in range(round(least * 100), 101, 20):
        parts.append(f'<line x1="{left}" x2="{width - 150}" y1="{y(tick / 100):.1f}" y2="{y(tick / 100):.1f}" stroke="#ddd"/>'
                     f'<text x="{left - 8}" y="{y(tick / 100) + 4:.1f}" text-anchor="end">{tick} %</text>')  # fmt: skip
    for power in range(math.floor(low * 3), math.ceil(high * 3) + 1):
        seconds = 10 ** (power / 3)
        if left <= x(seconds) <= width - 149:
            parts.append(f'<text x="{x(seconds):.1f}" y="{bottom + 20}" text-anchor="middle">{seconds:.0f} s</text>')
    for dot in dots:
        parts.append(f'<circle cx="{x(dot.seconds):.1f}" cy="{y(dot.closure):.1f}" r="4" fill="#1f6feb"/>')
        parts.append(f'<text x="{x(dot.seconds) + 8:.1f}" y="{y(dot.closure) + 4:.1f}">{escape(dot.name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
