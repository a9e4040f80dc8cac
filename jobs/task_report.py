#!/usr/bin/env python3
"""Accuracies of models in downstream tasks, as one table.

    task_report.py dense=dense.json wanda=wanda.json ... [--output TABLE.json]

Each FILE is what `espalier score` wrote for one model, under the name before `=` (without one, the file's own). Only
the standard library is needed (Python 3.9 or later).

acc is the share of items whose right choice has the largest log-likelihood; acc_norm divides log-likelihoods by the
characters of the choices first, as lm-evaluation-harness does (TABLE.json also has acc_bytes, by their bytes). Where an
item has one choice only, acc is the share that greedy decoding gives. All are in per cent, ± one standard error. The
mean counts every task the same. Exit status 2 and one sentence on stderr when files do not belong together.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Optional

from formats.json_file import InputRefused, write_json
from reporting.units import aligned
from tasks.accuracy import Scores, read_scores, task_cells


def named_file(text: str) -> tuple[str, Path]:
    """NAME=FILE, or a file alone."""
    name, equals, file = text.partition("=")
    return (name, Path(file)) if equals else (Path(text).stem, Path(text))


def read_models(files: list[tuple[str, Path]]) -> dict[str, Scores]:
    """The models' scores; all of one request file."""
    models: dict[str, Scores] = {}
    for name, file in files:
        if name in models:
            raise InputRefused(f"two files are called '{name}'; write NAME=FILE")
        models[name] = read_scores(file)
        first = next(iter(models))
        if models[name].requests_sha256 != models[first].requests_sha256:
            raise InputRefused(f"{file} has scores of other requests than those of '{first}'")
    return models


def main(arguments: Optional[list[str]] = None) -> int:
    """Read, print, write; map refusals to exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("scores", nargs="+", metavar="NAME=FILE", help="what `espalier score` wrote for a model")
    parser.add_argument("--output", type=Path, help="write the numbers as JSON, too")
    options = parser.parse_args(arguments)
    try:
        models = read_models([named_file(text) for text in options.scores])
        tasks = {name: scores.tasks for name, scores in models.items()}
        print(aligned(task_cells(tasks)))
        if options.output:
            rows = {name: {task: one.as_json() for task, one in of_model.items()} for name, of_model in tasks.items()}
            write_json(options.output, {"format": "espalier-task-report", "version": 1, "models": rows})
    except (InputRefused, OSError) as error:
        print(f"task_report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
