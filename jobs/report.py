#!/usr/bin/env python3
"""Draw the metrics of runs of pruning, or of fine-tuning, as one HTML page.

    report.py RUN_FOLDER_OR_metrics.json... [--comparison comparison.json] --output report.html [--title TEXT]

The page holds a table of the methods, plots and the effective options; of fine-tuning the curves of its losses. It is
one file without scripts and without anything fetched from elsewhere: the plots are SVG drawn here. It follows the
reader's light or dark setting, fits a phone and can be printed. Without run folders the runs of the comparison are
taken.

Only the standard library is needed (Python 3.9 or later). What a run did not measure is left out of tables and plots.
The page is written under a temporary name and renamed; exit status 2 and one sentence on stderr when an input is not
what it should be.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path
from typing import Optional

from reporting.comparison import Comparison, load_comparison, runs_of_comparison
from formats.json_file import InputRefused
from reporting.finetune_page import finetune_page, is_finetune_run, load_finetune_run
from reporting.metrics import load_run, write_text
from reporting.page import page, with_distinct_labels


def make_report(options: argparse.Namespace) -> None:
    """Read all inputs, then write the page."""
    if options.runs and all(is_finetune_run(path) for path in options.runs):
        tuned = with_distinct_labels([load_finetune_run(path) for path in options.runs], Comparison(Path()))
        write_text(options.output, finetune_page(tuned, options.title, datetime.now()))
        return
    comparison = load_comparison(options.comparison) if options.comparison else Comparison(Path())
    runs = [load_run(path) for path in options.runs] or runs_of_comparison(comparison)
    if not runs:
        raise InputRefused("there is no run to report: name a run folder or a comparison with runs")
    runs = with_distinct_labels(runs, comparison)
    write_text(options.output, page(runs, comparison, options.title, datetime.now()))


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
