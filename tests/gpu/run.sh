#!/usr/bin/env bash
# Checks and measures a bundle (jobs/bundle.sh) on a machine that has a GPU and nothing else of ours: kernels against
# references, the whole program against the float64 oracle, compute-sanitizer, then the benchmarks.
#   tests/gpu/run.sh BUNDLE              everything
#   tests/gpu/run.sh BUNDLE kernels ...  only these parts
# Parts: kernels oracle sanitizer benchmark. The bundle holds espalier, unit_tests and kernel_benchmark:
#   cmake --build build/release --target espalier unit_tests kernel_benchmark
#   jobs/bundle.sh /tmp/bundle build/release/espalier build/release/tests/{unit_tests,kernel_benchmark}
# The oracle needs python3 with numpy, torch, h5py and pytest.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
if [[ $# == 0 || ! -x $1/run ]]; then
    printf 'run.sh: BUNDLE, a folder that jobs/bundle.sh made, is not given\n' >&2
    exit 2
fi
bundle=$(cd "$1" && pwd)
shift
parts=("$@")
((${#parts[@]})) || parts=(kernels oracle sanitizer benchmark)
for name in "${parts[@]}"; do
    [[ " kernels oracle sanitizer benchmark " == *" $name "* ]] && continue
    printf 'run.sh: %s is not a part; parts: kernels oracle sanitizer benchmark\n' "$name" >&2
    exit 2
done
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
run=$bundle/run
failed=()

part() {  # part NAME COMMAND...
    local name=$1 start=$SECONDS
    [[ " ${parts[*]} " == *" $name "* ]] || return 0
    shift
    printf '\n== %s\n' "$name"
    "$@" || failed+=("$name")
    printf '== %s took %d s\n' "$name" $((SECONDS - start))
}

kernels() { ESPALIER_TEST_DEVICE=cuda "$run" unit_tests --gtest_brief=1; }

oracle() {
    printf '#!/bin/sh\nexec "%s" espalier "$@"\n' "$run" >"$work/espalier" && chmod +x "$work/espalier"
    (cd "$root" && ESPALIER="$work/espalier" ESPALIER_TEST_DEVICE=cuda python3 -m pytest -q -x -p no:cacheprovider \
        tests/oracle/test_espalier.py tests/oracle/test_finetune.py -k "not (test_perplexity and bf16)")
}

sanitizer() {
    local tool
    for tool in memcheck racecheck; do
        compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 1 "$run" espalier prune \
            --model synthetic:llama-tiny:2 --calibration synthetic:4x160 --method wanda++ --ro-rounds 2 --device cuda \
            --output "$work/$tool" >"$work/$tool.log" 2>&1 || { cat "$work/$tool.log" && return 1; }
        tail -n 3 "$work/$tool.log"
    done
}

part kernels kernels
part oracle oracle
part sanitizer sanitizer
part benchmark "$root/tests/benchmarks/gpu.sh" "$bundle"

((${#failed[@]} == 0)) || { printf '\nfailed: %s\n' "${failed[*]}" && exit 1; }
printf '\nall passed\n'
