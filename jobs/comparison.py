#!/usr/bin/env python3
"""Collect the perplexities of pruning runs in a comparison.json and print them as a table.

    comparison.py add COMPARISON --name dense --perplexity dense.json [--command-line TEXT]
    comparison.py add COMPARISON --name wanda --perplexity wanda.json --run runs/wanda [--inspected]
    comparison.py print COMPARISON

compare.sh calls it; report.py reads metrics and comparisons through it. Only the standard library is needed (Python 3.9
or later). A comparison.json holds one row a run, in the order of the first `add`; adding a name again replaces its row.
Run folders are kept relative to the comparison, so that the whole folder can be moved.

What a run did not measure is None here and stays empty in tables; it never turns into a zero. Exit status 2 and one
sentence on stderr when a file is not what it should be.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional

METRICS_FORMAT = "espalier-metrics"
COMPARISON_FORMAT = "espalier-comparison"
KNOWN_VERSION = 1
DENSE = "dense"
EVALUATED_KEYS = ("perplexity", "sequence_length", "windows", "tokens", "model")


class InputRefused(Exception):
    """A file is not what it should be; the message is one sentence for the user."""


def number(value: Any) -> Optional[float]:
    """A finite number as float; None for everything else (absent, null, infinite, text)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it: readers see the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputRefused(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputRefused(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputRefused(f"{path} does not hold a JSON object")
    return content


def read_format(path: Path, name: str) -> dict[str, Any]:
    """A file of one of Espalier's JSON formats, in a version that this script knows."""
    content = read_json(path)
    if content.get("format") != name:
        raise InputRefused(f'{path} is not a file of the format "{name}"')
    version = number(content.get("version"))
    if version is None or version > KNOWN_VERSION:
        raise InputRefused(
            f"{path} has version {content.get('version')} of its format, this script knows {KNOWN_VERSION}"
        )
    return content


@dataclass(frozen=True)
class Run:
    """The metrics.json of one pruning run, with what tables and plots need from it."""

    label: str
    source: Path
    metrics: dict[str, Any]

    @property
    def blocks(self) -> list[dict[str, Any]]:
        """Blocks by index."""
        return sorted(self.metrics["blocks"], key=lambda block: number(block.get("index")) or 0)

    @property
    def pruned_blocks(self) -> list[dict[str, Any]]:
        """Blocks by index, without those that were only copied: their errors and sparsities are no results."""
        return [block for block in self.blocks if block.get("pruned", True)]

    @property
    def optimised(self) -> bool:
        """Whether regional optimisation changed weights between two masks."""
        return any(block.get("draws") or number(block.get("learning_rate")) for block in self.pruned_blocks)

    def by_block(self, key: str) -> list[tuple[float, Optional[float]]]:
        """(block, value) of a key, for the pruned blocks."""
        pairs = [(number(block.get("index")), number(block.get(key))) for block in self.pruned_blocks]
        return [(index, value) for index, value in pairs if index is not None]

    def known(self, key: str) -> list[float]:
        """Values of a key for the pruned blocks that have it."""
        return [value for _, value in self.by_block(key) if value is not None]

    @property
    def on_host(self) -> bool:
        """Whether the device was the host itself, so that resident memory says it all."""
        return str(self.metrics.get("device", "CPU")).upper().startswith("CPU")


def load_run(path: Path) -> Run:
    """Read the metrics of a run folder or of a metrics.json; the label is the method."""
    source = path / "metrics.json" if path.is_dir() else path
    metrics = read_format(source, METRICS_FORMAT)
    blocks = metrics.get("blocks")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise InputRefused(f"{source} has no list of blocks")
    if not blocks:
        raise InputRefused(f"{source} has no blocks: the run has not finished one yet")
    return Run(str(metrics.get("method") or source.parent.name), source, metrics)


@dataclass
class Comparison:
    """A comparison.json: rows as they stand in the file, and where it is."""

    folder: Path
    command_line: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def row(self, name: str) -> dict[str, Any]:
        """The row of that name, or an empty one."""
        return next((row for row in self.rows if row["name"] == name), {})

    def run_folder(self, row: dict[str, Any]) -> Optional[Path]:
        """Folder of a row's run."""
        return (self.folder / row["run"]).resolve() if row.get("run") else None

    def row_of_run(self, run: Run) -> dict[str, Any]:
        """The row that stands for a run, or an empty one."""
        folder = run.source.resolve().parent
        return next((row for row in self.rows if self.run_folder(row) == folder), {})

    def put(self, row: dict[str, Any]) -> None:
        """Replace the row of the same name, or add it."""
        names = [known["name"] for known in self.rows]
        if row["name"] in names:
            self.rows[names.index(row["name"])] = row
        else:
            self.rows.append(row)


def load_comparison(path: Path) -> Comparison:
    """Read a comparison.json."""
    content = read_format(path, COMPARISON_FORMAT)
    rows = content.get("rows")
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows
    ):
        raise InputRefused(f"{path} has no list of rows with names")
    return Comparison(path.parent, str(content.get("command_line") or ""), rows)


def save_comparison(path: Path, comparison: Comparison) -> None:
    """Write a comparison.json."""
    content = {
        "format": COMPARISON_FORMAT,
        "version": KNOWN_VERSION,
        "command_line": comparison.command_line,
        "rows": comparison.rows,
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


@dataclass(frozen=True)
class Result:
    """One row of the table: what is known about a method. None is unknown."""

    name: str
    perplexity: Optional[float] = None
    ratio: Optional[float] = None
    mean_error: Optional[float] = None
    last_error: Optional[float] = None
    seconds: Optional[float] = None
    resident_bytes: Optional[float] = None
    device_bytes: Optional[float] = None
    flop_rate: Optional[float] = None
    pattern: Optional[str] = None
    inspected: Optional[bool] = None


def result_of_run(run: Run) -> Result:
    """What the metrics of a run say."""
    errors = run.known("error_final")
    seconds, flops = number(run.metrics.get("total_seconds")), number(run.metrics.get("flops"))
    peaks = [] if run.on_host else run.known("peak_bytes")
    return Result(
        name=run.label,
        mean_error=math.fsum(errors) / len(errors) if errors else None,
        last_error=run.by_block("error_final")[-1][1] if errors else None,
        seconds=seconds,
        resident_bytes=number(run.metrics.get("peak_resident_bytes")),
        device_bytes=max(peaks) if peaks else None,
        flop_rate=flops / seconds if flops and seconds else None,
        pattern=run.metrics.get("pattern"),
    )


def with_perplexity(result: Result, row: dict[str, Any], dense: Optional[float]) -> Result:
    """The result with what a row of a comparison adds."""
    perplexity = number(row.get("perplexity"))
    ratio = perplexity / dense if perplexity is not None and dense else None
    inspected = row.get("inspected") if isinstance(row.get("inspected"), bool) else None
    return Result(**{**vars(result), "perplexity": perplexity, "ratio": ratio, "inspected": inspected})


def runs_of_comparison(comparison: Comparison) -> list[Run]:
    """The runs of all rows whose metrics are still there, under the rows' names."""
    runs = []
    for row in comparison.rows:
        folder = comparison.run_folder(row)
        if folder and (folder / "metrics.json").is_file():
            runs.append(Run(row["name"], folder / "metrics.json", load_run(folder).metrics))
    return runs


def table_of(runs: list[Run], comparison: Comparison) -> list[Result]:
    """Dense on top, then the runs, then the comparison's rows that have a perplexity but no metrics any more."""
    dense_row = comparison.row(DENSE)
    dense = number(dense_row.get("perplexity"))
    results = [with_perplexity(Result(DENSE), dense_row, dense)] if dense_row else []
    results += [with_perplexity(result_of_run(run), comparison.row_of_run(run), dense) for run in runs]
    for row in comparison.rows:
        folder = comparison.run_folder(row)
        if folder and not (folder / "metrics.json").is_file():
            results.append(with_perplexity(Result(row["name"]), row, dense))
    return results


def best_of(results: list[Result]) -> Optional[Result]:
    """The pruned model with the lowest perplexity, if there is something to choose from."""
    pruned = [result for result in results if result.name != DENSE and result.perplexity is not None]
    return min(pruned, key=lambda result: result.perplexity) if len(pruned) > 1 else None


def format_perplexity(value: float) -> str:
    """12.346, 1,234.568, 1.23e+07."""
    return f"{value:,.3f}" if value < 1e6 else f"{value:.2e}"


def format_bytes(value: float) -> str:
    """1.5 MiB, 12.0 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_flop_rate(value: float) -> str:
    """98.1 GFLOP/s."""
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000:
            return f"{value:.1f} {unit}FLOP/s"
        value /= 1000
    return f"{value:.1f} PFLOP/s"


class Column(NamedTuple):
    """A column of the table: heading, attribute of Result, how to print a value, what it means."""

    heading: str
    attribute: str
    text: Callable[[Any], str]
    meaning: str


COLUMNS = (
    Column("Perplexity", "perplexity", format_perplexity, "on the evaluation text; lower is better"),
    Column("× dense", "ratio", "{:.3f}".format, "perplexity divided by that of the dense model"),
    Column(
        "Mean error", "mean_error", "{:#.3g}".format, "relative squared error of a block's output, mean over blocks"
    ),
    Column("Last error", "last_error", "{:#.3g}".format, "the same for the last block"),
    Column("Seconds", "seconds", "{:,.1f}".format, "wall clock of the pruning run"),
    Column("Peak memory", "resident_bytes", format_bytes, "largest resident set of the process"),
    Column("Device memory", "device_bytes", format_bytes, "most memory in use on the device, of any rank"),
    Column("Rate", "flop_rate", format_flop_rate, "floating-point operations of all ranks by wall clock"),
    Column("Pattern", "pattern", str, "pattern of the zeros"),
    Column("Inspected", "inspected", {True: "yes", False: "no"}.__getitem__, "recounted from the files by inspect"),
)


def columns_for(results: list[Result]) -> list[Column]:
    """The columns that say something: known for one result, and for the pattern, not the same for all."""
    patterns = {result.pattern for result in results if result.pattern is not None}
    return [
        column
        for column in COLUMNS
        if any(getattr(result, column.attribute) is not None for result in results)
        and (column.attribute != "pattern" or len(patterns) > 1)
    ]


def cells(result: Result, columns: list[Column]) -> list[str]:
    """Printed values of a row; unknown ones are empty."""
    values = [(column, getattr(result, column.attribute)) for column in columns]
    return ["" if value is None else column.text(value) for column, value in values]


def text_table(results: list[Result]) -> str:
    """The table for a terminal; the best pruned model has a star."""
    columns, best = columns_for(results), best_of(results)
    lines = [["Method", *(column.heading for column in columns)]]
    lines += [[result.name + (" *" if result is best else ""), *cells(result, columns)] for result in results]
    widths = [max(len(line[position]) for line in lines) for position in range(len(lines[0]))]
    printed = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))]
        ).rstrip()
        for line in lines
    ]
    return "\n".join([printed[0], "-" * (sum(widths) + 2 * len(widths) - 2), *printed[1:]])


def perplexity_caption(comparison: Comparison) -> str:
    """On what the perplexities were measured: "evaluation.h5, T = 2048, 141 windows"."""
    row = next((row for row in comparison.rows if number(row.get("perplexity")) is not None), {})
    length, windows = number(row.get("sequence_length")), number(row.get("windows"))
    parts = [Path(str(row["tokens"])).name] if row.get("tokens") else []
    parts += [f"T = {length:.0f}"] if length is not None else []
    parts += [f"{windows:.0f} windows"] if windows is not None else []
    return ", ".join(parts)


def add(options: argparse.Namespace) -> None:
    """Put one row into a comparison.json, which is created when there is none."""
    path: Path = options.comparison
    comparison = load_comparison(path) if path.exists() else Comparison(path.parent)
    evaluated = read_json(options.perplexity)
    if number(evaluated.get("perplexity")) is None:
        raise InputRefused(f"{options.perplexity} holds no perplexity")
    row = {"name": options.name, **{key: evaluated.get(key) for key in EVALUATED_KEYS}}
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
