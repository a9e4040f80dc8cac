"""The texts and tables of a report: what runs have in common, results, options, how to reproduce them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any, Optional

from reporting.comparison import DENSE, Comparison, Result, best_of, cells, columns_for
from reporting.metrics import Run, mapping, number
from reporting.units import perplexity_text, percent_text
from tasks.accuracy import Accuracy, task_cells


def distinct(values: Iterable[Any]) -> str:
    """The different values in order of appearance, joined."""
    return "; ".join(dict.fromkeys(str(value) for value in values if value))


def model_text(run: Run) -> Optional[str]:
    """Name and size of the model."""
    model = mapping(run.metrics.get("model"))
    if not model.get("path"):
        return None
    blocks, weights = number(model.get("blocks")), number(model.get("block_weights"))
    parts = [str(model["model_type"])] if model.get("model_type") else []
    parts += [f"{blocks:.0f} blocks"] if blocks else []
    parts += [f"{weights:,.0f} weights a block"] if weights else []
    name = Path(str(model["path"])).name or str(model["path"])
    return f"{name} ({', '.join(parts)})" if parts else name


def pattern_text(run: Run) -> Optional[str]:
    """Pattern, with the sparsity where the name does not say it."""
    pattern, sparsity = run.metrics.get("pattern"), number(run.metrics.get("sparsity"))
    if not pattern:
        return None
    return f"{pattern}, {percent_text(sparsity)}" if sparsity is not None and ":" not in str(pattern) else str(pattern)


def calibration_text(run: Run) -> Optional[str]:
    """File and shape of the calibration tokens."""
    calibration = mapping(run.metrics.get("calibration"))
    samples, length = number(calibration.get("samples")), number(calibration.get("sequence_length"))
    parts = [Path(str(calibration["path"])).name] if calibration.get("path") else []
    parts += [f"{samples:.0f} samples × {length:.0f} tokens"] if samples and length else []
    return ", ".join(parts) or None


def parallel_text(run: Run) -> Optional[str]:
    """Ranks and threads."""
    ranks, threads = number(run.metrics.get("ranks")), number(run.metrics.get("threads_per_rank"))
    parts = [f"{ranks:.0f} {'rank' if ranks == 1 else 'ranks'}"] if ranks else []
    parts += [f"{threads:.0f} {'thread' if threads == 1 else 'threads'} each"] if threads else []
    return " × ".join(parts) or None


def facts(runs: list[Run], written: datetime) -> str:
    """What all runs have in common, as a list of terms."""
    version = (str(run.metrics.get("program_version") or "") for run in runs)
    entries = {
        "Model": distinct(map(model_text, runs)),
        "Pattern": distinct(map(pattern_text, runs)),
        "Calibration": distinct(map(calibration_text, runs)),
        "Device": distinct(str(run.metrics.get("device") or "") for run in runs),
        "Parallel": distinct(map(parallel_text, runs)),
        "Version": distinct(f"Espalier {number_}" if number_ else None for number_ in version),
        "Report of": written.strftime("%Y-%m-%d %H:%M"),
    }
    items = "".join(f"<div><dt>{term}</dt><dd>{escape(value)}</dd></div>" for term, value in entries.items() if value)
    return f'<dl class="facts">{items}</dl>'


def verdict(results: list[Result]) -> str:
    """One sentence with the best pruned model."""
    best = best_of(results)
    if best is None:
        return ""
    ratio = f", {best.ratio:.3f} times the dense model's" if best.ratio is not None else ""
    sentence = (
        f"Lowest perplexity after pruning: {best.name} with {perplexity_text(best.perplexity)}{ratio}."
    )
    return f'<p class="verdict">{escape(sentence)}</p>'


def results_table(results: list[Result]) -> str:
    """The comparison of all methods."""
    columns, best = columns_for(results), best_of(results)
    head = "".join(
        f'<th scope="col" title="{escape(column.meaning)}">{escape(column.heading)}</th>' for column in columns
    )
    body = ""
    for result in results:
        kind = "dense" if result.name == DENSE else "best" if result is best else ""
        badge = ' <span class="badge">best</span>' if result is best else ""
        values = "".join(
            f"<td>{escape(cell) or '<span class=none>–</span>'}</td>" for cell in cells(result, columns)
        )
        body += f'<tr class="{kind}"><th scope="row">{escape(result.name)}{badge}</th>{values}</tr>'
    meanings = "; ".join(f"{column.heading}: {column.meaning}" for column in columns)
    table = f'<table><thead><tr><th scope="col">Method</th>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div><p class="note">{escape(meanings)}.</p>'


def tasks_section(models: dict[str, dict[str, Accuracy]]) -> str:
    """The accuracies of all models in the downstream tasks; nothing when none was scored."""
    if not models:
        return ""
    heading, *rows = task_cells(models)
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heading)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for name, *row in rows
    )
    note = "Per cent of the items, ± one standard error; acc_norm divides likelihoods by the answers' characters."
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<h2>Downstream tasks</h2><div class="scroll">{table}</div><p class="note">{escape(note)}</p>'


def option_cell(option: dict[str, Any]) -> str:
    """Value of an option, with its origin unless that is the default."""
    if "value" not in option:
        return "<td></td>"
    value = option["value"]
    printed = escape(value if isinstance(value, str) else json.dumps(value))
    origin = str(option.get("origin") or "default")
    return f"<td>{printed}</td>" if origin == "default" else f"<td><b>{printed}</b><small>{escape(origin)}</small></td>"


def options_table(runs: list[Run]) -> str:
    """Effective options, a column for every run."""
    by_run = [mapping(run.metrics.get("options")) for run in runs]
    names = list(dict.fromkeys(name for options in by_run for name in options))
    if not names:
        return ""
    head = "".join(f'<th scope="col">{escape(run.label)}</th>' for run in runs)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(option_cell(mapping(options.get(name))) for options in by_run)
        + "</tr>"
        for name in names
    )
    table = (
        f'<table class="options"><thead><tr><th scope="col">Option</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )
    note = '<p class="note">Bold values were given, with the place below them; the others are defaults.</p>'
    return f'<h3>Effective options</h3>{note}<div class="scroll">{table}</div>'


def evaluate_command(run: Run, row: dict[str, Any]) -> Optional[str]:
    """The command that measures a run's perplexity again."""
    length = number(row.get("sequence_length"))
    if not row.get("tokens") or length is None:
        return None
    words = ["espalier", "evaluate", "--model", str(run.source.parent), "--tokens", str(row["tokens"])]
    return shlex.join([*words, "--sequence-length", f"{length:.0f}"])


def commands(runs: list[Run], comparison: Comparison) -> str:
    """Command lines that make the runs, their perplexities and the comparison again."""
    digests = distinct(mapping(run.metrics.get("calibration")).get("sha256") for run in runs)
    parts = [f'<p class="note">SHA-256 of the calibration tokens: {escape(digests)}</p>'] if digests else []
    parts += [f"<pre>{escape(comparison.command_line)}</pre>"] if comparison.command_line else []
    for run in runs:
        command = run.metrics.get("command_line")
        lines = [str(command) if command else None, evaluate_command(run, comparison.row_of_run(run))]
        given = "\n".join(line for line in lines if line)
        parts += [f"<h4>{escape(run.label)}</h4><pre>{escape(given)}</pre>"] if given else []
    return f"<h3>How to reproduce</h3>{''.join(parts)}" if parts else ""
