#!/usr/bin/env python3
"""Collect the perplexities of pruning runs in a comparison.json and print them as a table.

    comparison.py add COMPARISON --name dense --perplexity dense.json [--command-line TEXT]
    comparison.py add COMPARISON --name wanda --perplexity wanda.json --run runs/wanda [--inspected]
                      [--scores scores.json]
    comparison.py print COMPARISON
    comparison.py best COMPARISON

compare.sh calls it. Only the standard library is needed (Python 3.9 or later). A comparison.json holds one row a run,
in the order of the first `add`; adding a name again replaces its row. Run folders are kept relative to the comparison,
so that the whole folder can be moved.

What a run did not measure is None here and stays empty in tables; it never turns into a zero. Exit status 2 and one
sentence on stderr when a file is not what it should be.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Optional

from reporting.comparison import (
    DENSE,
    Comparison,
    load_comparison,
    perplexity_caption,
    runs_of_comparison,
    save_comparison,
    table_of,
    tasks_of,
    text_table,
)
from formats.json_file import InputRefused, read_json
from reporting.metrics import number
from reporting.units import aligned
from tasks.accuracy import read_scores, task_cells

EVALUATED_KEYS = ("perplexity", "sequence_length", "windows", "tokens", "model")


def add(options: argparse.Namespace) -> None:
    """Put one row into a comparison.json, which is created when there is none."""
    path: Path = options.comparison
    comparison = load_comparison(path) if path.exists() else Comparison(path.parent)
    evaluated = read_json(options.perplexity)
    if number(evaluated.get("perplexity")) is None:
        raise InputRefused(f"{options.perplexity} holds no perplexity")
    row = {"name": options.name, **{key: evaluated.get(key) for key in EVALUATED_KEYS}}
    if options.scores:
        row["tasks"] = {name: one.as_json() for name, one in read_scores(options.scores).tasks.items()}
    if options.run:
        row["run"] = os.path.relpath(options.run.resolve(), path.parent.resolve())
        row["inspected"] = options.inspected
    comparison.command_line = options.command_line or comparison.command_line
    comparison.put(row)
    save_comparison(path, comparison)


def print_table(options: argparse.Namespace) -> None:
    """Print a comparison.json as a table."""
    comparison = load_comparison(options.comparison)
    print(text_table(table_of(runs_of_comparison(comparison), comparison)))
    caption = perplexity_caption(comparison)
    if caption:
        print(f"Perplexity on {caption}.")
    tasks = tasks_of(comparison)
    if tasks:
        print("\nDownstream tasks, per cent ± one standard error:")
        print(aligned(task_cells(tasks)))


def print_best(options: argparse.Namespace) -> None:
    """Print the run folder of the pruned model with the lowest perplexity."""
    comparison = load_comparison(options.comparison)
    pruned = [row for row in comparison.rows if row.get("run") and number(row.get("perplexity")) is not None]
    if not pruned:
        raise InputRefused(f"{options.comparison} holds no pruned model with a perplexity")
    print(comparison.run_folder(min(pruned, key=lambda row: float(row["perplexity"]))))


def command_line() -> argparse.ArgumentParser:
    """The options of both commands."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    commands = parser.add_subparsers(required=True, metavar="add|print|best")
    adding = commands.add_parser("add", help="put one row into a comparison")
    adding.add_argument("comparison", type=Path, help="comparison.json, created when there is none")
    adding.add_argument("--name", required=True, help=f"name of the row; {DENSE} is the model before pruning")
    adding.add_argument("--perplexity", type=Path, required=True, help="what `espalier evaluate --json` wrote")
    adding.add_argument("--scores", type=Path, help="what `espalier score` wrote")
    adding.add_argument("--run", type=Path, help="run folder")
    adding.add_argument("--inspected", action="store_true", help="`espalier inspect` found nothing wrong")
    adding.add_argument("--command-line", default="", help="how the comparison was made, for the report")
    adding.set_defaults(act=add)
    printing = commands.add_parser("print", help="print the table")
    printing.add_argument("comparison", type=Path, help="comparison.json")
    printing.set_defaults(act=print_table)
    best = commands.add_parser("best", help="print the run folder of the best pruned model")
    best.add_argument("comparison", type=Path, help="comparison.json")
    best.set_defaults(act=print_best)
    return parser


def main(arguments: Optional[list[str]] = None) -> int:
    """Parse the command line, act, and map refusals to exit status 2."""
    options = command_line().parse_args(arguments)
    try:
        options.act(options)
    except (InputRefused, OSError) as error:
        print(f"comparison: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
