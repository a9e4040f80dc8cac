#!/usr/bin/env python3
"""Draw a scaling study as one HTML page.

    scaling_report.py STUDY --output report.html [--table table.md] [--csv table.csv] [--title TEXT] [--unit GPU]

The study is a folder that slurm/scaling/strong.sh or weak.sh made, the report of `espalier prune --dry-run-ranks`, or
the table of `espalier plan --table --json`. The page holds the times with the range of their repeats, speed-up,
efficiency, cost, memory and bytes of every size, plots with the ideal and a fitted Amdahl's law, where the time of a
block goes, and what is needed to run it again. It is one file without scripts and without anything fetched from
elsewhere, follows the reader's light or dark setting, fits a phone and can be printed.

Only the standard library is needed (Python 3.9 or later). Runs that are missing or not whole are named in the page and
left out. Files are written under a temporary name and renamed; exit status 2 and one sentence on stderr when the input
is not what it should be.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path
from typing import Optional

from formats.json_file import InputRefused
from reporting.metrics import write_text
from reporting.scaling_page import csv_text, markdown, page
from reporting.scaling_study import read_study


def main(arguments: Optional[list[str]] = None) -> int:
    """Parse the command line, report, and map refusals to exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("study", type=Path, metavar="STUDY", help="folder of a study, dry run's report or plan table")
    parser.add_argument("--output", type=Path, required=True, help="page to write")
    parser.add_argument("--table", type=Path, help="the table as Markdown")
    parser.add_argument("--csv", type=Path, help="the numbers as comma-separated values")
    parser.add_argument("--title", help="heading of the page (default: kind of scaling and model)")
    parser.add_argument("--unit", choices=("GPU", "rank"), help="what a rank is called (default: as the study says)")
    options = parser.parse_args(arguments)
    try:
        study = read_study(options.study, options.unit)
        if options.table:
            write_text(options.table, markdown(study, options.title))
        if options.csv:
            write_text(options.csv, csv_text(study))
        write_text(options.output, page(study, options.title, datetime.now()))
    except (InputRefused, OSError) as error:
        print(f"scaling_report: {error}", file=sys.stderr)
        return 2
    print(f"scaling_report: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
