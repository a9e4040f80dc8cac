#!/usr/bin/env bash
# Runs every test: builds, then unit tests, tests under mpirun, the float64 oracle, the binary against bad input, resumption,
# memory, layering, exports in transformers, and the Python jobs.
#   tests/run.sh              everything
#   tests/run.sh unit oracle  only these parts
# Parts: install build unit mpi layering oracle binary export jobs commands
# tests/slurm/run.sh brings up a Slurm and runs jobs on it; tests/gpu/run.sh is for a machine with a GPU.
# And, when asked for (they build the emulation of tests/emulation): emulation emulation-asan emulation-tsan
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
all_parts=(install build unit mpi layering oracle binary export jobs commands)
parts=("$@")
((${#parts[@]})) || parts=("${all_parts[@]}")
for name in "${parts[@]}"; do
    [[ " ${all_parts[*]} emulation emulation-asan emulation-tsan " == *" $name "* ]] && continue
    printf 'run.sh: %s is not a part; parts: %s emulation emulation-asan emulation-tsan\n' "$name" "${all_parts[*]}" >&2
    exit 2
done
wants() { [[ " ${parts[*]} " == *" $1 "* ]]; }

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl_vader_single_copy_mechanism=none  # Open MPI 4.1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe OMPI_MCA_smsc=^cma              # the same, Open MPI 5.0
export ESPALIER=${ESPALIER:-$root/build/release/espalier}
pytest=(/usr/bin/python3 -m pytest -q -p no:cacheprovider)
passed=0 failed=0

part() {
    local name=$1 start=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)) && printf '== %s FAILED\n' "$name"; fi
    printf '== %s took %d s\n' "$name" $((SECONDS - start))
}

# configure PRESET [options]: what CMake says only when it fails.
configure() {
    local said
    said=$(cmake --preset "$@" "${cmake_options[@]}" 2>&1) || { printf '%s\n' "$said" && return 1; }
}

build() {
    configure release -DESPALIER_TESTS=ON "-DESPALIER_CUDA=${ESPALIER_CUDA:-AUTO}" && cmake --build --preset release
}
cmake_options=()
[[ -z ${ESPALIER_WERROR:-} ]] || cmake_options+=(-DESPALIER_WERROR="$ESPALIER_WERROR")

jobs_python() {
    jobs/virtual_environment.sh build/venv jobs/requirements.txt &&
        build/venv/bin/python -m pytest -q -p no:cacheprovider tests/jobs
}

# The command lines that documents and help show.
commands_python() {
    jobs/virtual_environment.sh build/venv jobs/requirements.txt &&
        build/venv/bin/python -m pytest -q -p no:cacheprovider tests/commands
}

export_python() {
    jobs/virtual_environment.sh build/venv-transformers tests/export/requirements.txt --system-site-packages &&
        build/venv-transformers/bin/python -m pytest -q -p no:cacheprovider tests/export
}

# The CUDA path on the CPU: the emulator's own tests, every kernel, several ranks, the whole program, the oracle.
emulation() {
    local tests=build/emulation/tests
    configure emulation && cmake --build --preset emulation || return 1
    $tests/emulation/emulation_tests --gtest_brief=1 || return 1
    # Two halves beside each other, and the second time around what depends on the order of threads and streams.
    run_shards 2 ESPALIER_TEST_DEVICE=cuda $tests/unit_tests --gtest_brief=1 || return 1
    run_shards 2 ESPALIER_TEST_DEVICE=cuda ESPALIER_EMULATION_ORDER=reverse ESPALIER_EMULATION_STREAMS=lazy \
        $tests/unit_tests --gtest_brief=1 --gtest_filter="$kernel_tests" || return 1
    # As on an A100, whose blocks have less shared memory.
    ESPALIER_TEST_DEVICE=cuda ESPALIER_EMULATED_SHARED_MEMORY=166912 $tests/unit_tests --gtest_brief=1 --gtest_filter='*Attention*' || return 1
    ESPALIER_TEST_DEVICE=cuda ESPALIER_EMULATION_STREAMS=lazy mpirun -n 2 $tests/mpi_tests --ranks=2 --gtest_brief=1 || return 1
    ESPALIER_TEST_DEVICE=cuda mpirun -n 4 $tests/mpi_tests --ranks=4 --gtest_brief=1 || return 1
    ESPALIER=$root/build/emulation/espalier "${pytest[@]}" tests/emulation || return 1
    ESPALIER=$root/build/emulation/espalier ESPALIER_TEST_DEVICE=cuda "${pytest[@]}" tests/oracle/test_espalier.py \
        -k "test_prune and (bf16 or f16 or ((wanda or sparsegpt) and (llama1 or qwen3 or llama-bias))) or test_perplexity and f32"
}
kernel_tests='*Attention*:*CrossEntropy*:*Elementwise*:*Linear*:*Reductions*:*RmsNorm*:*Rmsprop*:*Rope*:*SparseGpt*:*ComputeType*:*Device*'
# Under ThreadSanitizer some tests of many sizes take minutes; others run the same kernels.
tsan_tests='*:-Device.*:Attention.IsCausal:CrossEntropy.PanelsOfAnyWidth*:ScoreAndMask.EqualsTheOracle*'

emulation_asan() {
    configure emulation-asan && cmake --build --preset emulation-asan --target unit_tests emulation_tests espalier || return 1
    export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1  # MPI and HDF5 keep what they allocate until the end
    local tests=build/emulation-asan/tests
    $tests/emulation/emulation_tests --gtest_brief=1 && run_shards 2 ESPALIER_TEST_DEVICE=cpu $tests/unit_tests --gtest_brief=1 &&
        run_shards 2 ESPALIER_TEST_DEVICE=cuda ESPALIER_EMULATION_ORDER=greedy $tests/unit_tests --gtest_brief=1 --gtest_filter="$kernel_tests" &&
        ESPALIER=$root/build/emulation-asan/espalier "${pytest[@]}" tests/oracle/test_espalier.py -k "(llama3 or qwen2) and not unstructured"
}

# Planted races between the threads of a block are found, in kernels that every order of execution gets right; and our
# kernels have none.
emulation_tsan() {
    configure emulation-tsan && cmake --build --preset emulation-tsan --target emulation_tests kernel_tests &&
        build/emulation-tsan/tests/emulation/emulation_tests --gtest_brief=1 &&
        run_shards 2 ESPALIER_TEST_DEVICE=cuda build/emulation-tsan/tests/kernel_tests --gtest_brief=1 --gtest_filter="$tsan_tests"
}

# run_shards N [VARIABLE=value...] PROGRAM...: a GoogleTest program as N processes, each with its share of the tests.
run_shards() {
    local count=$1 shard processes=() failed=0
    shift
    for ((shard = 0; shard < count; ++shard)); do
        env OMP_NUM_THREADS=1 GTEST_TOTAL_SHARDS="$count" GTEST_SHARD_INDEX="$shard" "$@" &
        processes+=($!)
    done
    for process in "${processes[@]}"; do wait "$process" || failed=1; done
    return "$failed"
}

if wants install; then part "packages" jobs/install_dependencies.sh --tests; fi
# Ubuntu 24.04 has no python3-torch: PyTorch's own, its build for CPUs where that index answers (180 MB instead of 3 GB).
if ! /usr/bin/python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; then
    export PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL-https://download.pytorch.org/whl/cpu}
    part "PyTorch" jobs/virtual_environment.sh build/venv-torch tests/oracle/requirements.txt --system-site-packages
    pytest[0]=$root/build/venv-torch/bin/python
fi
if wants build; then part "build" build; fi
if wants unit; then part "unit tests" ctest --test-dir build/release --no-tests=error --output-on-failure -R unit_tests; fi
if wants mpi; then part "unit tests under mpirun" ctest --test-dir build/release --no-tests=error --output-on-failure -R mpi_tests; fi
if wants layering; then part "layering" "${pytest[@]}" tests/layering; fi
if wants oracle; then part "float64 oracle" "${pytest[@]}" tests/oracle; fi
if wants binary; then part "the binary" "${pytest[@]}" tests/cli tests/prune tests/plan tests/evaluate; fi
if wants export; then part "exports in transformers" export_python; fi
if wants jobs; then part "jobs" jobs_python; fi
if wants commands; then part "commands of the documents" commands_python; fi
if wants emulation; then part "the CUDA path, emulated" emulation; fi
if wants emulation-tsan; then part "emulated CUDA path under thread sanitizer" emulation_tsan; fi
if wants emulation-asan; then part "CPU and emulated CUDA path under sanitizers" emulation_asan; fi

printf '\n%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
