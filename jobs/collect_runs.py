#!/usr/bin/env python3
"""Collects the runs of a sweep into one table: what each was asked, what it cost, how well it went.

python3 jobs/collect_runs.py FOLDER [--csv FILE] [--markdown FILE]

FOLDER holds run folders (000, 001, ... as slurm/sweep.sh makes them, or any names). Writes FOLDER/runs.csv and
FOLDER/runs.md, and ends with status 1 when a run is missing or not complete.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any, Dict, List

from reporting.metrics import PRUNED_FOLDER, load_run

COLUMNS = ["run", "state", "method", "pattern", "options", "ranks", "seconds", "peak_gib", "mean_error", "last_error"]


def differing_options(runs: List[Dict[str, Any]]) -> List[str]:
    """Options whose values are not the same in all runs, but for those that have a column."""
    names = sorted({name for run in runs for name in run["options"]})
    values = {name: {run["options"].get(name, {}).get("value") for run in runs} for name in names}
    return [name for name in names if len(values[name]) > 1 and name not in ("method", "pattern", "output", "fresh")]


def read_run(folder: Path) -> Dict[str, Any]:
    """The metrics of a complete run, or what there is of another."""
    pruned = folder / PRUNED_FOLDER  # of a run that trains the whole model at the end
    if (folder / "metrics.json").exists():
        return {"folder": folder.name, "state": "complete", **load_run(folder).metrics}
    if (pruned / "metrics.json").exists():
        return {"folder": folder.name, **load_run(pruned).metrics, "state": "pruned, in training"}
    run: Dict[str, Any] = {"folder": folder.name, "state": "not started", "options": {}}
    manifest = next((path for path in (folder / "manifest.json", pruned / "manifest.json") if path.exists()), None)
    if manifest:
        held = json.loads(manifest.read_text())
        run["state"] = f"{len(held.get('blocks', []))} of {held['model']['blocks']} blocks"
        run["options"] = held.get("provenance", {}).get("options", {})
    return run


def row_of(run: Dict[str, Any], differing: List[str]) -> Dict[str, str]:
    """One line of the table."""
    options = " ".join(f"--{name} {run['options'][name]['value']}" for name in differing if name in run["options"])
    row = {"run": run["folder"], "state": run["state"], "options": options}
    for name in ("method", "pattern"):
        row[name] = run.get(name) or run["options"].get(name, {}).get("value", "")
    if run["state"] != "complete":
        return {**{column: "" for column in COLUMNS}, **row}
    blocks = [block for block in run["blocks"] if block["pruned"]]
    errors = [block["error_final"] for block in blocks]
    return {
        **row,
        "ranks": str(run["ranks"]),
        "seconds": f"{run['total_seconds']:.1f}",
        "peak_gib": f"{max(block['peak_bytes'] for block in blocks) / 2**30:.3f}",
        "mean_error": f"{sum(errors) / len(errors):.4g}",
        "last_error": f"{errors[-1]:.4g}",
    }


def markdown(rows: List[Dict[str, str]]) -> str:
    """The table for people."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    return "\n".join(lines + ["| " + " | ".join(row[column] for column in COLUMNS) + " |" for row in rows]) + "\n"


def main() -> int:
    """Reads the folder, writes both tables, prints one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    table = arguments.folder / "table.txt"
    asked = [line for line in table.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")] if table.exists() else []
    folders = sorted({*(path for path in arguments.folder.iterdir() if path.is_dir()),
                      *(arguments.folder / f"{i:03d}" for i in range(len(asked)))}) if arguments.folder.is_dir() else []  # fmt: skip
    if not folders:
        print(f"collect_runs.py: {arguments.folder} holds no run folders", file=sys.stderr)
        return 2
    runs = [read_run(folder) for folder in folders]
    differing = differing_options([run for run in runs if run["options"]])
    rows = [row_of(run, differing) for run in runs]
    with (arguments.csv or arguments.folder / "runs.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    text = markdown(rows)
    (arguments.markdown or arguments.folder / "runs.md").write_text(text)
    print(text, end="")
    return 0 if all(run["state"] == "complete" for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
