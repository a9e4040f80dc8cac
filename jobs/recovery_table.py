#!/usr/bin/env python3
"""The table of jobs/recover.sh, as Markdown.

    recovery_table.py FOLDER dense wanda "wanda, lora, lm" …

For each name FOLDER holds NAME.perplexity.json, NAME.scores.json and NAME.inspection, and of trained ones the run NAME.
A name with commas stands for its first part trained further. Only the standard library is needed (Python 3.9 or later).
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Optional

from formats.json_file import InputRefused, read_json
from tasks.accuracy import read_scores

HEAD = ("model", "perplexity", "change", "cloze, acc_norm", "training, seconds", "trained values", "zeros kept")


def zeros_kept(inspection: str) -> str:
    """What `espalier inspect` says of a run of fine-tuning."""
    found = re.search(r"checked: all (\d+) zeros", inspection)
    return f"all {int(found.group(1)):,}" if found else "none"


def row(folder: Path, name: str, before: Optional[float]) -> tuple[list[str], float]:
    """Cells of a model, and its perplexity; `before`: that of the model that it was trained from."""
    perplexity = read_json(folder / f"{name}.perplexity.json")["perplexity"]
    (task,) = read_scores(folder / f"{name}.scores.json").tasks.values()
    cells = [name, f"{perplexity:.1f}", "", (task.acc_norm or task.acc).text() + " %", "", "", ""]
    if before is not None:
        metrics = read_json(folder / name / "metrics.json")
        cells[2] = f"{100 * (perplexity / before - 1):+.0f} %"
        cells[4] = f"{metrics['total_seconds']:.0f}"
        cells[5] = f"{metrics['trained_values'] / 1e6:.1f} million"
        cells[6] = zeros_kept((folder / f"{name}.inspection").read_text())
    return cells, perplexity


def main(arguments: Optional[list[str]] = None) -> int:
    """Print the table; map refusals to exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+")
    options = parser.parse_args(arguments)
    perplexities: dict[str, float] = {}
    try:
        print("| " + " | ".join(HEAD) + " |")
        print("| --- |" + " ---: |" * (len(HEAD) - 1))
        for name in options.names:
            cells, perplexities[name] = row(options.folder, name, perplexities.get(name.split(",")[0]))
            print("| " + " | ".join(cells) + " |")
    except (InputRefused, OSError) as error:
        print(f"recovery_table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
