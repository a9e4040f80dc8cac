"""How much of what pruning costs a method wins back, over seeds, and tables of it."""

from __future__ import annotations

import math
from statistics import mean, stdev
from typing import Any, Optional, Sequence

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


def table(records: Sequence[Record], dense: dict[str, float], domains: dict[str, str]) -> str:
    """Markdown: a row for each pattern, calibration and method. `domains`: of each domain the text to report, the
    first being the domain of the calibration text."""
    inside, *outside = domains.values()
    head = ["pattern", "calibration", "method", *(f"{name}" for name in domains), "closure inside", "closure outside",
            "seconds", "peak, MiB"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * 3 + ["---:"] * (len(head) - 3)) + " |"]
    dense_cells = ["", "", "dense", *(f"{dense[text]:.1f}" for text in domains.values()), "100", "100", "", ""]
    lines.append("| " + " | ".join(dense_cells) + " |")
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["pattern"], record["calibration"], record["method"]), []).append(record)
    for (pattern, calibration, method), group in groups.items():
        cells = [pattern, calibration, method]
        cells += [spread([record["perplexity"][text] for record in group], 1) for text in domains.values()]
        for texts in ([inside], outside):
            values = [value for record in group if (value := closures(records, record, dense, texts)) is not None]
            cells.append(spread(values, 1, 100) if values else "")
        cells.append(spread([record["seconds"] for record in group]))
        cells.append(spread([record["peak_bytes"] / 2**20 for record in group]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
