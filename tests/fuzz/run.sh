#!/usr/bin/env bash
# Builds all fuzz targets (preset fuzz, clang) and runs each for a while from the seeds of make_seeds.py.
#   tests/fuzz/run.sh [seconds each, default 10] [target ...]
# Fails on any crash, sanitizer report, input slower than 10 s or memory above 2 GB; the input is kept in
# build/fuzz/artifacts/. New inputs that reach new code are kept in build/fuzz/corpora/ and used by the next run.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${1:-10}
[[ $# -gt 0 ]] && shift
targets=("$@")
all=(safetensors_header checkpoint_index model_config npy_header token_file token_dataset request_file manifest
     finetune_manifest)
[[ ${#targets[@]} -gt 0 ]] || targets=("${all[@]}")

configured=$(cmake --preset fuzz 2>&1) || { echo "$configured" >&2; exit 1; }
cmake --build build/fuzz --parallel "${JOBS:-2}" --target "${targets[@]/#/fuzz_}"

python=/usr/bin/python3
"$python" tests/fuzz/make_seeds.py build/fuzz/seeds
mkdir -p build/fuzz/artifacts

# The files that targets write go to memory where there is some, and away at the end, also after a crash.
memory=/dev/shm
[[ -w $memory ]] || memory=${TMPDIR:-/tmp}
TMPDIR=$(mktemp -d -p "$memory" espalier-fuzz.XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

# HDF5 keeps its free lists until the end, and asks malloc for sizes that it has read from a damaged file: it copes with
# a null pointer, and pages that it does not touch cost nothing. What we allocate ourselves counts as resident.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:${ASAN_OPTIONS:-}
export UBSAN_OPTIONS=print_stacktrace=1:${UBSAN_OPTIONS:-}
failed=()
for target in "${targets[@]}"; do
    corpus=build/fuzz/corpora/$target
    log=build/fuzz/artifacts/$target.log
    mkdir -p "$corpus"
    if build/fuzz/tests/fuzz/fuzz_"$target" "$corpus" build/fuzz/seeds/"$target" \
        -dict=build/fuzz/seeds/"$target".dict -artifact_prefix=build/fuzz/artifacts/"$target"- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=-1 -max_len=65536 \
        -print_final_stats=1 >"$log" 2>&1; then
        runs=$(awk '/stat::number_of_executed_units/ {print $2}' "$log")
        echo "fuzz $target: no finding in $seconds s ($runs inputs)"
    else
        failed+=("$target")
        echo "fuzz $target: FAILED, see $log" >&2
        tail -n 40 "$log" >&2
    fi
done
[[ ${#failed[@]} -eq 0 ]] || { echo "failed: ${failed[*]}" >&2; exit 1; }
