#!/usr/bin/python3
"""Recomputes a pruning run in float64 and compares masks, weights, errors and untouched tensors.

Every block is judged given the blocks before it *as the run wrote them*: its input hidden states are recomputed in
float64 from those weights. So one legitimate near-tie early in the model cannot spread into later comparisons.

    compare.py --model DIR --run RUN --calibration FILE --method wanda++ --pattern 2:4 --samples 8 --sequence-length 32
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Dict

import torch

from checkpoint import (
    PRUNED_MODULES,
    Model,
    calibration_samples,
    read_config,
    read_draws,
    read_model_folder,
    read_run_folder,
    read_tokens,
)
from compare_block import BlockCase, Comparison, compare_block
from decoder import block_forward, embed
from masks import Pattern
from method import PruneOptions

REQUIRED_AGREEMENT = 0.9999
SIXTEEN_BIT_AGREEMENT = 0.997


def check_untouched(model: Model, run: Model, result: Comparison) -> None:
    """Same tensors in model and run; all but the pruned matrices bit for bit."""
    pruned = tuple(f"{module}.weight" for module in PRUNED_MODULES)
    for name in sorted(set(model.tensors) ^ set(run.tensors)):
        result.problems.append(f"{name} is only in the {'model' if name in model.tensors else 'run'}")
    for name in sorted(set(model.tensors) & set(run.tensors)):
        before, after = model.tensors[name], run.tensors[name]
        if (before.dtype, before.shape) != (after.dtype, after.shape):
            result.problems.append(f"{name} became {after.dtype} {after.shape} from {before.dtype} {before.shape}")
        elif before.data != after.data and not name.endswith(pruned):
            result.problems.append(f"{name} is not bit-identical")


def read_block_metrics(run_folder: Path) -> Dict[int, Dict[str, float]]:
    """The entries of metrics.json by block index."""
    metrics = json.loads((Path(run_folder) / "metrics.json").read_text())
    return {block["index"]: block for block in metrics["blocks"]}


def compare_run(model_folder: Path, run_folder: Path, tokens_path: Path, options: PruneOptions) -> Comparison:
    """Compares a finished run with the oracle, block by block."""
    config = read_config(model_folder)
    model, run = read_model_folder(model_folder), read_run_folder(run_folder)
    draws = read_draws(run_folder) if options.optimises else {}
    metrics = read_block_metrics(run_folder)
    result = Comparison()
    check_untouched(model, run, result)
    if result.problems:
        return result
    tokens = calibration_samples(read_tokens(tokens_path), options.samples, options.sequence_length)
    samples = embed(model, tokens)
    for index in range(config.block_count):
        case = BlockCase(
            index=index,
            config=config.of_block(index),
            options=options,
            dtype=run.tensors[f"model.layers.{index}.self_attn.q_proj.weight"].dtype,
            dense=model.block(index),
            written=run.block(index),
            masks={module: run.mask(index, module) for module in PRUNED_MODULES},
            samples=samples,
        )
        compare_block(case, draws, metrics.get(index, {}), result)
        with torch.no_grad():
            samples = block_forward(case.config, case.written, samples)
    required = SIXTEEN_BIT_AGREEMENT if case.in_sixteen_bits else REQUIRED_AGREEMENT
    if result.agreement < required:
        result.problems.append(f"agreement {result.agreement:.6f} is below {required}")
    return result


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--pattern", required=True)
    parser.add_argument("--sparsity", default="0.5")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--sequence-length", type=int, default=2048)
    parser.add_argument("--alpha", type=float, default=100.0)
    parser.add_argument("--input-norm", choices=("sum", "mean"), default="sum")
    parser.add_argument("--ro-samples", type=int, default=32)
    parser.add_argument("--ro-rounds", type=int, default=5)
    parser.add_argument("--ro-learning-rate", type=float, default=3e-7)
    parser.add_argument("--ro-batch", type=int, default=1)
    parser.add_argument("--ro-lr-scaling", choices=("none", "sqrt", "linear"), default="sqrt")
    parser.add_argument("--hold-mask", action="store_true")
    return parser.parse_args()


def main() -> int:
    arguments = vars(parse_arguments())
    torch.set_num_threads(1)
    pattern = Pattern.parse(arguments.pop("pattern"), arguments.pop("sparsity"))
    model, run, calibration = (arguments.pop(name) for name in ("model", "run", "calibration"))
    comparison = compare_run(model, run, calibration, PruneOptions(pattern=pattern, **arguments))
    for problem in comparison.problems:
        print(problem)
    print(comparison.summary())
    return 1 if comparison.problems else 0


if __name__ == "__main__":
    sys.exit(main())
