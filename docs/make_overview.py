#!/usr/bin/env python3
"""Draws docs/overview.svg, the picture of the README: docs/make_overview.py > docs/overview.svg

The numbers are those of docs/method.md (the demo's table) and docs/gpu.md (7B on an H200, and the paper's on an H100).
"""

from __future__ import annotations

import math

PERPLEXITY = [("dense", 43.418), ("wanda++", 100.291), ("ro", 96.904), ("sparsegpt", 104.240), ("rgs", 198.536),
              ("wanda", 198.757), ("magnitude", 1440.337)]  # fmt: skip
COST = [("seconds", [("Espalier, H200", 95.3), ("the paper, H100", 290.0)]),
        ("GB of GPU memory", [("Espalier, H200", 11.2), ("the paper, H100", 25.0)])]  # fmt: skip

INK, SOFT, OURS, OTHER = "#222", "#666", "#2f7d4f", "#b9c2bc"


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = INK, size: int = 13, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}"{weight}>{words}</text>'


def bar(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="17" rx="2" fill="{colour}"/>'


def perplexity_panel(left: float) -> list[str]:
    parts = [text(left, 26, "Perplexity after pruning 2:4 (lower is better)", bold=True),
             text(left, 44, "SmolLM2-135M-Instruct, the demo, 2 CPU cores; logarithmic", colour=SOFT, size=12)]  # fmt: skip
    for row, (name, value) in enumerate(PERPLEXITY):
        y = 60 + 25 * row
        width = 240 * math.log(value / 25) / math.log(1600 / 25)
        colour = OURS if name == "wanda++" else INK if name == "dense" else OTHER
        parts += [text(left + 76, y + 13, name, "end", bold=name == "wanda++"), bar(left + 84, y, width, colour),
                  text(left + 90 + width, y + 13, f"{value:,.1f}", size=12)]  # fmt: skip
    return parts


def cost_panel(left: float) -> list[str]:
    parts = [text(left, 26, "A 7B model, Wanda++ 2:4, one GPU", bold=True),
             text(left, 44, "128 samples of 2,048 tokens; ours measured on 2026-11-26", colour=SOFT, size=12)]  # fmt: skip
    y = 66.0
    for unit, rows in COST:
        parts.append(text(left, y + 8, unit, colour=SOFT, size=12))
        for name, value in rows:
            y += 20
            ours = name.startswith("Espalier")
            width = 160 * value / max(other for _, other in rows)
            parts += [text(left + 118, y + 13, name, "end", bold=ours), bar(left + 126, y, width, OURS if ours else OTHER),
                      text(left + 132 + width, y + 13, f"{value:g}", size=12)]  # fmt: skip
        y += 42
    return parts


def main() -> None:
    lines = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 250" width="860" height="250"',
             ' font-family="system-ui, DejaVu Sans, sans-serif">', '<rect width="860" height="250" fill="#fff"/>',
             *perplexity_panel(20), *cost_panel(480), "</svg>"]  # fmt: skip
    print("\n".join(lines))


if __name__ == "__main__":
    main()
