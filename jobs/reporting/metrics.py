"""What Espalier and its scripts wrote about runs, read with care.

What a run did not measure is None here and stays empty in tables; it never turns into a zero.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from formats.json_file import InputRefused, read_json

METRICS_FORMAT = "espalier-metrics"
FINETUNE_FORMAT = "espalier-finetune-metrics"
PRUNED_FOLDER = "pruned"  # in a run that trains the whole model at the end: what it pruned
KNOWN_VERSION = 1


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


def with_last_stage(pruned: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    """What a run measured that trained the whole model at the end: as its pruning, with time and memory of both."""
    metrics = dict(pruned)
    for name, together in (("total_seconds", sum), ("flops", sum), ("peak_resident_bytes", max)):
        values = [number(stage.get(name)) for stage in (pruned, last)]
        metrics[name] = together(values) if None not in values else None
    return metrics


def load_run(path: Path) -> Run:
    """Read the metrics of a run folder or of a metrics.json; the label is the method."""
    source = path / "metrics.json" if path.is_dir() else path
    content = read_json(source)
    if content.get("format") == FINETUNE_FORMAT and content.get("pruning"):
        pruned = read_format(source.parent / PRUNED_FOLDER / "metrics.json", METRICS_FORMAT)
        metrics = with_last_stage(pruned, read_format(source, FINETUNE_FORMAT))
    else:
        metrics = read_format(source, METRICS_FORMAT)
    blocks = metrics.get("blocks")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise InputRefused(f"{source} has no list of blocks")
    if not blocks:
        raise InputRefused(f"{source} has no blocks: the run has not finished one yet")
    return Run(str(metrics.get("method") or source.parent.name), source, metrics)
