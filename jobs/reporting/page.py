"""A report as one HTML page: the sections of texts.py and figures.py, put together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Optional

from reporting.comparison import Comparison, perplexity_caption, table_of, tasks_of
from reporting.figures import (
    changed_figure,
    error_figure,
    perplexity_figure,
    search_figure,
    sparsity_section,
    time_figure,
)
from reporting.metrics import Run, mapping
from reporting.style import html_page
from reporting.texts import (
    commands,
    distinct,
    facts,
    options_table,
    pattern_text,
    results_table,
    tasks_section,
    verdict,
)


def default_title(runs: list[Run]) -> str:
    """Name of the model and the pattern."""
    paths = (str(mapping(run.metrics.get("model")).get("path") or "") for run in runs)
    names = distinct(Path(path).name or path for path in paths)
    patterns = distinct(map(pattern_text, runs))
    return " at ".join(part for part in (names, patterns) if part) or "Pruning runs"


def page(runs: list[Run], comparison: Comparison, title: Optional[str], written: datetime) -> str:
    """The whole page."""
    results = table_of(runs, comparison)
    caption = perplexity_caption(comparison)
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
        tasks_section(tasks_of(comparison)),
        f'<h2>Plots</h2><div class="plots">{"".join(plots)}</div>' if any(plots) else "",
        f'<h2>Sparsity reached</h2><div class="plots">{sparsity}</div>' if sparsity else "",
        f"<details><summary>Effective options and how to reproduce</summary>{folded}</details>" if folded else "",
    ]
    return html_page(heading, sections)


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
