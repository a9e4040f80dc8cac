#!/usr/bin/env bash
# Speed and memory of a whole wanda++ run beside the machine's own SGEMM rate and beside PyTorch, and the gain of two ranks.
#   tests/benchmarks/run.sh MODEL CALIBRATION.h5 [threads]
# MODEL: a Hugging Face folder (the demo leaves one in build/demo/SmolLM2-135M-Instruct). Nothing here is a timed test.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
model=${1:?MODEL} calibration=${2:?CALIBRATION.h5} threads=${3:-$(nproc)}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# logged COMMAND...: its output only when it fails.
logged() {
    local status=0
    "$@" >"$work/log" 2>&1 || status=$?
    ((status == 0)) || { printf 'run.sh: status %d of: %s\n' "$status" "$*" && cat "$work/log"; } >&2
    return "$status"
}

logged cmake -S "$root" -B "$root/build/release" -G Ninja -DCMAKE_BUILD_TYPE=Release -DESPALIER_TESTS=ON
logged cmake --build "$root/build/release" --target espalier prune_benchmark
prune=(--model "$model" --calibration "$calibration" --method wanda++ --ro-learning-rate 3e-4)

# seconds_a_block RUN BLOCKS: mean over the pruned blocks; phase: only that phase.
seconds_a_block() {
    /usr/bin/python3 - "$1" "${2:-}" <<'PYTHON'
import json, sys
blocks = [b["seconds"] for b in json.load(open(sys.argv[1] + "/metrics.json"))["blocks"] if b["pruned"]]
print(sum(b[sys.argv[2]] if sys.argv[2] else sum(b.values()) for b in blocks) / len(blocks))
PYTHON
}

echo "== the whole run against SGEMM in the same process"
OMP_NUM_THREADS=$threads "$root/build/release/tests/prune_benchmark" "${prune[@]}" --output "$work/whole" 2>"$work/log" ||
    { cat "$work/log" >&2 && exit 1; }
echo
echo "== the same work in PyTorch, first two blocks, $threads thread(s)"
# Without this PyTorch's and OpenBLAS's threads spin against each other and it takes three times as long.
GOMP_SPINCOUNT=3000 OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads /usr/bin/python3 "$root/tests/benchmarks/torch_peer.py" \
    --model "$model" --calibration "$calibration" --threads "$threads" --json "$work/torch.json"
OMP_NUM_THREADS=$threads logged "$root/build/release/espalier" prune "${prune[@]}" --only-blocks 0-1 --output "$work/two"
/usr/bin/python3 - "$work" "$(seconds_a_block "$work/two")" <<'PYTHON'
import json, sys
work, ours = sys.argv[1], float(sys.argv[2])
peer = json.load(open(work + "/torch.json"))
memory = json.load(open(work + "/two/metrics.json"))["peak_resident_bytes"]
print(f"Espalier: {ours:.2f} s a block, peak {memory / 2**20:.0f} MiB")
print(f"Espalier is {peer['seconds_per_block'] / ours:.2f} times as fast, with {memory / peer['peak_resident_bytes']:.2f} of the memory")
PYTHON
echo
echo "== --ro-batch 4 on one and on two ranks, one thread each, first two blocks, optimiser phase"
for ranks in 1 2; do
    OMP_NUM_THREADS=1 logged mpirun --oversubscribe -n "$ranks" "$root/build/release/espalier" prune "${prune[@]}" \
        --ro-batch 4 --only-blocks 0-1 --output "$work/ranks$ranks"
done
/usr/bin/python3 - "$(seconds_a_block "$work/ranks1" optimise)" "$(seconds_a_block "$work/ranks2" optimise)" \
    "$(seconds_a_block "$work/ranks1")" "$(seconds_a_block "$work/ranks2")" <<'PYTHON'
import sys
one, two, whole_one, whole_two = map(float, sys.argv[1:])
print(f"optimiser: {one:.2f} s, {two:.2f} s: speed-up {one / two:.2f};  whole block: {whole_one:.2f} s, {whole_two:.2f} s: {whole_one / whole_two:.2f}")
PYTHON
