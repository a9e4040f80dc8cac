"""Metrics of runs that never were, for the tests of what reads metrics."""

from __future__ import annotations

import json
from pathlib import Path

MATRICES = [*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down"))]


def made_up_block(index: int, optimised: bool) -> dict:
    """One block of a metrics.json."""
    error = 0.004 * 1.1**index
    block = {
        "index": index,
        "pruned": True,
        "seconds": {"load": 0.01, "dense_pass": 2.0, "mask": 0.3, "propagate": 1.0},
        "error_after_first_mask": error,
        "error_final": error,
        "sparsity": dict.fromkeys(MATRICES, 0.5),
        "changed_mask_share": 0.0,
        "peak_bytes": 1_000_000 + index,
        "flops": 4e11,
    }
    if optimised:
        block |= {
            "error_final": 0.7 * error,
            "changed_mask_share": 0.01,
            "learning_rate": 1e-4,
            "draws": [[3, 1], [0, 2]],
        }
        block["seconds"]["optimise"] = 7.5
    return block


def made_up_metrics(method: str, blocks: int = 4) -> dict:
    """A metrics.json."""
    optimised = method in ("ro", "wanda++")
    entries = [made_up_block(index, optimised) for index in range(blocks)]
    search = {
        "learning_rate": 1e-4,
        "candidates": [
            {"learning_rate": rate, "held_out_error": error}
            for rate, error in ((3e-7, 0.02), (1e-5, 0.012), (1e-4, 0.009), (1e-3, None))
        ],
    }
    return {
        "format": "espalier-metrics",
        "version": 1,
        "program_version": "0.1.0",
        "method": method,
        "pattern": "2:4",
        "sparsity": 0.5,
        "model": {"path": "/models/Tiny<1>", "model_type": "llama", "blocks": blocks, "block_weights": 1000},
        "calibration": {"path": "/data/calibration.h5", "samples": 64, "sequence_length": 128, "sha256": "ab" * 32},
        "device": "CPU, 2 thread(s)",
        "ranks": 1,
        "threads_per_rank": 2,
        "options": {
            "method": {"value": method, "origin": "command line"},
            "alpha": {"value": "100", "origin": "default"},
        },
        "command_line": f"espalier prune --method {method}",
        "learning_rate": search if optimised else None,
        "total_seconds": sum(sum(entry["seconds"].values()) for entry in entries) + 1.5,
        "peak_resident_bytes": 200 * 2**20,
        "flops": 1.2e13,
        "blocks": entries,
    }


def write_run(folder: Path, metrics: dict) -> Path:
    """A run folder with these metrics."""
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


SERIAL = 0.125


def amdahl(ranks: int, seconds: float = 800.0) -> float:
    return seconds * (SERIAL + (1 - SERIAL) / ranks)
