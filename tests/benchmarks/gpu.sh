#!/usr/bin/env bash
# Speed and memory on one GPU, beside its own ceilings: every kernel, then pruning of synthetic models of real shapes.
#   tests/benchmarks/gpu.sh BUNDLE [FOLDER]     FOLDER: where run folders go (default /dev/shm; 14 GB)
# BUNDLE: made by jobs/bundle.sh with espalier and kernel_benchmark.
set -euo pipefail
[[ $# -gt 0 && -x $1/run ]] || { printf 'gpu.sh: BUNDLE, a folder that jobs/bundle.sh made, is not given\n' >&2 && exit 2; }
run=$(cd "$1" && pwd)/run
work=$(mktemp -d "${2:-/dev/shm}/espalier.XXXXXX") && trap 'rm -rf "$work"' EXIT

"$run" kernel_benchmark cuda

prune() {  # prune TITLE MODEL [options]: whole run, and seconds by phase
    local title=$1 model=$2
    shift 2
    printf '\n== %s\n' "$title"
    "$run" espalier prune --model "$model" --calibration synthetic:128x2048 --device cuda --output "$work/run" --fresh "$@" \
        2>"$work/log" || { cat "$work/log" && return 1; }
    sed -n '/blocks in/,$p' "$work/log" | grep -v '^$\|written to'
    python3 - "$work/run/metrics.json" <<'PYTHON'
import json, sys
metrics = json.load(open(sys.argv[1]))
blocks = [b for b in metrics["blocks"] if b["pruned"]][1:] or metrics["blocks"]
phases = {}
for block in blocks:
    for phase, seconds in block["seconds"].items():
        phases[phase] = phases.get(phase, 0) + seconds / len(blocks)
print("  a block        " + f"{sum(phases.values()):.3f} s: " + ", ".join(f"{p} {s:.3f}" for p, s in sorted(phases.items(), key=lambda i: -i[1])))
print("  GPU memory     " + f"{max(b['peak_bytes'] for b in blocks) / 1e9:.2f} GB")
PYTHON
}

prune "LLaMA-2-7B, wanda" synthetic:llama-2-7b --method wanda
prune "LLaMA-2-7B, wanda++" synthetic:llama-2-7b --method wanda++
prune "LLaMA-2-7B, wanda++, 16bit" synthetic:llama-2-7b:8 --method wanda++ --ro-compute 16bit
prune "LLaMA-2-7B, wanda++, hidden states in host memory" synthetic:llama-2-7b:4 --method wanda++ --gpu-memory 8GiB
prune "LLaMA-2-70B, 4 of 80 blocks, wanda++" synthetic:llama-2-70b:4 --method wanda++
