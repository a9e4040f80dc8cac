#!/usr/bin/env python3
"""Draw the metrics of pruning runs as one HTML page.

    report.py RUN_FOLDER_OR_metrics.json... [--comparison comparison.json] --output report.html [--title TEXT]

The page holds a table of the methods, plots and the effective options. It is one file without scripts and without
anything fetched from elsewhere: the plots are SVG drawn here. It follows the reader's light or dark setting, fits a
phone and can be printed. Without run folders the runs of the comparison are taken.

Only the standard library is needed (Python 3.9 or later). What a run did not measure is left out of tables and plots.
The page is written under a temporary name and renamed; exit status 2 and one sentence on stderr when an input is not
what it should be.

`page` puts the sections together: texts and tables of report_text.py, plots of report_figures.py.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import replace
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Optional

import comparison as measured
from comparison import Comparison, InputRefused, Run, mapping
from report_figures import changed_figure, error_figure, perplexity_figure, search_figure, sparsity_section, time_figure
from report_style import STYLE
from report_text import commands, distinct, facts, options_table, pattern_text, results_table, verdict


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
