#!/usr/bin/env bash
# Speed and memory of fine-tuning beside the machine's own rate of products, and beside transformers with peft doing the
# same.
#   tests/benchmarks/finetune.sh RUN TOKENS.h5 [threads] [steps]
# RUN: a run of prune (the demo leaves build/demo/comparison/runs/wanda); TOKENS.h5 holds 8 samples a step, of 12 steps.
# The peer needs build/venv-transformers, which the part "export" of tests/run.sh makes. Nothing here is a timed test.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
run=${1:?RUN} tokens=${2:?TOKENS.h5} threads=${3:-$(nproc)} steps=${4:-12}
espalier=${ESPALIER:-$root/build/release/espalier}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=$threads

# logged COMMAND...: its output only when it fails.
logged() {
    local status=0
    "$@" >"$work/log" 2>&1 || status=$?
    ((status == 0)) || { printf 'finetune.sh: status %d of: %s\n' "$status" "$*" && cat "$work/log"; } >&2
    return "$status"
}

logged "$espalier" export --run "$run" --output "$work/base"
"$espalier" doctor 2>&1 | grep 'matrix products' || { echo "finetune.sh: doctor says no rate of products" >&2 && exit 1; }
for train in lora masked-lora masked; do
    logged "$espalier" finetune --model "$run" --data "$tokens" --output "$work/$train" --train "$train" --loss lm \
        --samples $((8 * steps)) --held-out 0 --steps "$steps"
    /usr/bin/python3 - "$work/$train" <<'PYTHON'
import json, sys
from pathlib import Path
run = Path(sys.argv[1])
metrics = json.loads((run / "metrics.json").read_text())
events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
seconds = sorted(event["seconds"] for event in events if event["event"] == "step")
step = seconds[len(seconds) // 2]
print(f"{run.name}: {step:.2f} s a step, {metrics['flops'] / len(seconds) / step / 1e9:.0f} GFLOP/s in steps, "
      f"{metrics['flops'] / metrics['total_seconds'] / 1e9:.0f} over the run, peak {metrics['peak_resident_bytes'] / 2**20:.0f} MiB")
PYTHON
done
# Without this PyTorch's and OpenBLAS's threads spin against each other.
GOMP_SPINCOUNT=3000 OPENBLAS_NUM_THREADS=$threads "$root/build/venv-transformers/bin/python" \
    "$root/tests/benchmarks/peft_peer.py" --model "$work/base" --data "$tokens" --steps "$steps" --threads "$threads" 2>"$work/log" ||
    { cat "$work/log" >&2 && exit 1; }
