"""A comparison.json: one row a run, with its perplexity, and the table of what is known about each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Optional

from formats.json_file import InputRefused
from reporting.metrics import KNOWN_VERSION, Run, load_run, number, read_format, write_text
from reporting.units import aligned, flop_rate_text, memory_text, percent_text, perplexity_text
from tasks.accuracy import Accuracy, mean_of

COMPARISON_FORMAT = "espalier-comparison"
DENSE = "dense"


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
    accuracy: Optional[float] = None


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


def with_row(result: Result, row: dict[str, Any], dense: Optional[float]) -> Result:
    """The result with what a row of a comparison adds."""
    perplexity = number(row.get("perplexity"))
    ratio = perplexity / dense if perplexity is not None and dense else None
    inspected = row.get("inspected") if isinstance(row.get("inspected"), bool) else None
    tasks = accuracies(row)
    return replace(
        result,
        perplexity=perplexity,
        ratio=ratio,
        inspected=inspected,
        accuracy=mean_of(tasks.values()).value if tasks else None,
    )


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
    results = [with_row(Result(DENSE), dense_row, dense)] if dense_row else []
    results += [with_row(result_of_run(run), comparison.row_of_run(run), dense) for run in runs]
    for row in comparison.rows:
        folder = comparison.run_folder(row)
        if folder and not (folder / "metrics.json").is_file():
            results.append(with_row(Result(row["name"]), row, dense))
    return results


def best_of(results: list[Result]) -> Optional[Result]:
    """The pruned model with the lowest perplexity, if there is something to choose from."""
    pruned = [result for result in results if result.name != DENSE and result.perplexity is not None]
    return min(pruned, key=lambda result: result.perplexity) if len(pruned) > 1 else None


class Column(NamedTuple):
    """A column of the table: heading, attribute of Result, how to print a value, what it means."""

    heading: str
    attribute: str
    text: Callable[[Any], str]
    meaning: str


COLUMNS = (
    Column("Perplexity", "perplexity", perplexity_text, "on the evaluation text; lower is better"),
    Column("× dense", "ratio", "{:.3f}".format, "perplexity divided by that of the dense model"),
    Column("Accuracy", "accuracy", percent_text, "in the downstream tasks, mean over tasks; higher is better"),
    Column(
        "Mean error", "mean_error", "{:#.3g}".format, "relative squared error of a block's output, mean over blocks"
    ),
    Column("Last error", "last_error", "{:#.3g}".format, "the same for the last block"),
    Column("Seconds", "seconds", "{:,.1f}".format, "wall clock of the pruning run"),
    Column("Peak memory", "resident_bytes", memory_text, "largest resident set of the process"),
    Column("Device memory", "device_bytes", memory_text, "most memory in use on the device, of any rank"),
    Column("Rate", "flop_rate", flop_rate_text, "floating-point operations of all ranks by wall clock"),
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
    return aligned(lines)


def tasks_of(comparison: Comparison) -> dict[str, dict[str, Accuracy]]:
    """The accuracies of the rows that have some."""
    return {row["name"]: accuracies(row) for row in comparison.rows if row.get("tasks")}


def accuracies(row: dict[str, Any]) -> dict[str, Accuracy]:
    """Of the tasks that a row's model was scored in."""
    return {name: Accuracy.from_json(content) for name, content in (row.get("tasks") or {}).items()}


def perplexity_caption(comparison: Comparison) -> str:
    """On what the perplexities were measured: "evaluation.h5, T = 2048, 141 windows"."""
    row = next((row for row in comparison.rows if number(row.get("perplexity")) is not None), {})
    length, windows = number(row.get("sequence_length")), number(row.get("windows"))
    parts = [Path(str(row["tokens"])).name] if row.get("tokens") else []
    parts += [f"T = {length:.0f}"] if length is not None else []
    parts += [f"{windows:.0f} windows"] if windows is not None else []
    return ", ".join(parts)
