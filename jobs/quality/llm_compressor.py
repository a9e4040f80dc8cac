#!/usr/bin/env python3
"""Prune a model with llm-compressor, on the tokens that Espalier calibrates with: a peer for the bench.

Runs under a Python that has llm-compressor (pip install llmcompressor h5py), which bench.py is told with --peer-python.
Writes a Hugging Face folder with dense tensors, in the type of the model's file. The head is left as it is, by both.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

MODIFIERS = ("wanda", "sparsegpt")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokens", type=Path, required=True, help="/input_ids [samples, length]")
    parser.add_argument("--method", choices=MODIFIERS, required=True)
    parser.add_argument("--pattern", choices=["2:4", "4:8", "50%"], default="2:4")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    start = time.monotonic()

    import h5py
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
    from transformers import AutoModelForCausalLM

    with h5py.File(options.tokens, "r") as file:
        ids = file["input_ids"][:].astype("int64")
    # In float32, as Espalier computes on a CPU.
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    rows = Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": [[1] * ids.shape[1]] * len(ids)})
    modifier = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[options.method](
        sparsity=0.5, mask_structure="0:0" if options.pattern == "50%" else options.pattern, targets=["Linear"],
        ignore=["re:.*lm_head"])  # fmt: skip
    oneshot(model=model, dataset=rows, recipe=modifier, num_calibration_samples=len(ids), max_seq_length=ids.shape[1],
            shuffle_calibration_samples=False, pipeline="sequential")  # fmt: skip
    config = json.loads((options.model / "config.json").read_text(encoding="utf-8"))
    stored = config.get("torch_dtype") or config.get("dtype", "float32")
    model.to(getattr(torch, stored)).save_pretrained(options.output, save_compressed=False)
    (options.output / "config.json").write_bytes((options.model / "config.json").read_bytes())
    print(json.dumps({"seconds": time.monotonic() - start,
                      "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
