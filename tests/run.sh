#!/usr/bin/env bash
# Runs every test: builds, then unit tests, tests under mpirun, the float64 oracle, the binary against bad input, resumption,
# memory, layering, exports in transformers, and the Python jobs.
#   tests/run.sh              everything
#   tests/run.sh unit oracle  only these parts
# Parts: install build unit mpi layering oracle binary export jobs commands
# tests/slurm/run.sh brings up a Slurm and runs jobs on it; tests/gpu/run.sh is for a machine with a GPU.
# And, when asked for: dry-run-time; and, with a build of tests/emulation: emulation emulation-more emulation-asan
# emulation-asan-more emulation-tsan
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
asked_parts="dry-run-time emulation emulation-more emulation-asan emulation-asan-more emulation-tsan"
all_parts=(install build unit mpi layering oracle binary export jobs commands)
[[ ${1:-} != --help ]] || { sed -n '2,9s/^# \?//p' "$0" && exit 0; }
parts=("$@")
((${#parts[@]})) || parts=("${all_parts[@]}")
for name in "${parts[@]}"; do
    [[ " ${all_parts[*]} $asked_parts " == *" $name "* ]] && continue
    printf 'run.sh: %s is not a part; parts: %s %s\n' "$name" "${all_parts[*]}" "$asked_parts" >&2
    exit 2
done
wants() { [[ " ${parts[*]} " == *" $1 "* ]]; }

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl_vader_single_copy_mechanism=none  # Open MPI 4.1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe OMPI_MCA_smsc=^cma              # the same, Open MPI 5.0
export ESPALIER=${ESPALIER:-$root/build/release/espalier}
pytest_options=(-q -p no:cacheprovider --durations=10 --durations-min=2 -n "$(nproc)")
pytest=(/usr/bin/python3 -m pytest "${pytest_options[@]}")
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

# GPU kernels take half of the build, and only a GPU could run them: without one they are compiled when asked for.
build() {
    local cuda=${ESPALIER_CUDA:-}
    if [[ -z $cuda ]]; then
        nvidia-smi -L >/dev/null 2>&1 && cuda=AUTO || cuda=OFF
        [[ $cuda == AUTO ]] || printf 'No NVIDIA driver answers: built without CUDA (ESPALIER_CUDA=ON compiles the GPU kernels)\n'
    fi
    configure release -DESPALIER_TESTS=ON "-DESPALIER_CUDA=$cuda" && cmake --build --preset release
}
cmake_options=()
[[ -z ${ESPALIER_WERROR:-} ]] || cmake_options+=(-DESPALIER_WERROR="$ESPALIER_WERROR")

binary() { "${pytest[@]}" tests/cli tests/prune tests/finetune tests/plan tests/evaluate -k "not takes_the_time"; }
# With nothing beside it, and some minutes long.
dry_run_time() { "${pytest[@]}" -n 0 tests/plan -k takes_the_time; }

jobs_python() {
    jobs/virtual_environment.sh build/venv jobs/requirements.txt &&
        build/venv/bin/python -m pytest "${pytest_options[@]}" tests/jobs
}

# The command lines that documents and help show.
commands_python() {
    jobs/virtual_environment.sh build/venv jobs/requirements.txt &&
        build/venv/bin/python -m pytest "${pytest_options[@]}" tests/commands
}

has_pytorch_2() {
    /usr/bin/python3 -c 'import importlib.metadata, sys
versions = [part.version for part in importlib.metadata.distributions(name="torch")]
sys.exit(not versions or int(versions[0].split(".")[0]) < 2)'
}

export_python() {
    jobs/virtual_environment.sh build/venv-transformers tests/export/requirements.txt --system-site-packages &&
        build/venv-transformers/bin/pip install --quiet --disable-pip-version-check --no-compile --no-deps \
            -r tests/export/adapters.txt &&
        build/venv-transformers/bin/python -m pytest "${pytest_options[@]}" tests/export || return 1
    # Newer transformers know more families and want a newer PyTorch than Debian 12's.
    has_pytorch_2 || return 0
    jobs/virtual_environment.sh build/venv-transformers-newer tests/export/newer.txt --system-site-packages &&
        build/venv-transformers-newer/bin/python -m pytest "${pytest_options[@]}" tests/export/test_transformers.py
}

# The CUDA path on the CPU: the emulator's own tests, every kernel, ranks, the whole program, the oracle. The order of
# threads and streams is the one that shows most mistakes; emulation-more takes the others.
emulation() {
    build_emulated && $emulated_tests --gtest_brief=1 || return 1
    run_shards "${on_emulated_gpus[@]}" ESPALIER_EMULATION_ORDER=reverse ESPALIER_EMULATION_STREAMS=lazy \
        build/release/tests/unit_tests --gtest_brief=1 || return 1
    mpirun -n 2 "${on_emulated_gpus[@]}" ESPALIER_EMULATION_STREAMS=lazy \
        build/release/tests/mpi_tests --ranks=2 --gtest_brief=1 || return 1
    ESPALIER=$root/tests/emulation/espalier "${pytest[@]}" tests/emulation || return 1
    emulated_oracle "test_prune and (wanda or sparsegpt) and llama1 or test_perplexity and f32 or test_prune and bf16 and qwen3 or test_scores and phi3 or test_training and (llama3 or phi3 or qwen3) or test_reconstruction and llama3"
}
# Only the module of the CUDA sources, and what tests the emulator: the programs are those of the release build.
build_emulated() {
    if [[ -e build/release/tests/mpi_tests ]]; then
        cmake --build --preset release --target espalier unit_tests mpi_tests || return 1
    else
        build || return 1
    fi
    configure emulation && cmake --build --preset emulation --target espalier_cuda emulation_tests
}
emulated_tests=build/emulation/tests/emulation/emulation_tests
emulated_module=$root/build/emulation/libespalier_cuda.so
# As in tests/emulation/espalier.
on_emulated_gpus=(env "ESPALIER_CUDA_MODULE=$emulated_module" "LD_PRELOAD=$emulated_module" ESPALIER_TEST_DEVICE=cuda)
emulated_oracle() {
    ESPALIER=$root/tests/emulation/espalier ESPALIER_TEST_DEVICE=cuda "${pytest[@]}" \
        tests/oracle/test_espalier.py tests/oracle/test_scores.py tests/oracle/test_finetune.py \
        tests/oracle/test_reconstruct.py -k "$1"
}
kernel_tests='*Attention*:DropoutTest*:*SampleTokens*:*RelativeError*:*CrossEntropy*:*LossGradient*:*Elementwise*:*Linear*:*Reductions*:*RmsNorm*:*Rmsprop*:*AdamW*:*Rope*:*SparseGpt*:*ComputeType*:*Device*'

emulation_more() {
    build_emulated && run_shards "${on_emulated_gpus[@]}" build/release/tests/unit_tests --gtest_brief=1 || return 1
    # As on an A100, whose blocks have less shared memory.
    run_shards "${on_emulated_gpus[@]}" ESPALIER_EMULATED_SHARED_MEMORY=166912 build/release/tests/unit_tests \
        --gtest_brief=1 --gtest_filter='*Attention*' || return 1
    mpirun -n 4 "${on_emulated_gpus[@]}" build/release/tests/mpi_tests --ranks=4 --gtest_brief=1 || return 1
    emulated_oracle "test_prune and (bf16 or f16 or ((wanda or sparsegpt) and (llama1 or qwen3 or llama-bias)))"
}

emulation_asan() {
    build_asan && $asan/emulation/emulation_tests --gtest_brief=1 &&
        run_shards ESPALIER_TEST_DEVICE=cuda ESPALIER_EMULATION_ORDER=greedy $asan/unit_tests --gtest_brief=1 --gtest_filter="$kernel_tests" &&
        run_shards ESPALIER_TEST_DEVICE=cpu $asan/unit_tests --gtest_brief=1 --gtest_filter="-$kernel_tests"
}
asan=build/emulation-asan/tests
build_asan() {
    export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1  # MPI and HDF5 keep what they allocate until the end
    configure emulation-asan && cmake --build --preset emulation-asan --target unit_tests emulation_tests "$@"
}
emulation_asan_more() {
    build_asan espalier && run_shards ESPALIER_TEST_DEVICE=cpu $asan/unit_tests --gtest_brief=1 --gtest_filter="$kernel_tests" &&
        ESPALIER=$root/build/emulation-asan/espalier "${pytest[@]}" tests/oracle/test_espalier.py -k "(llama3 or qwen2) and not unstructured"
}

# Planted races between the threads of a block are found, in kernels that every order of execution gets right; and our
# kernels have none.
emulation_tsan() {
    build_tsan && $tsan/emulation/emulation_tests --gtest_brief=1 &&
        run_shards ESPALIER_TEST_DEVICE=cuda $tsan/kernel_tests --gtest_brief=1 --gtest_filter="$tsan_tests"
}
tsan=build/emulation-tsan/tests
build_tsan() { configure emulation-tsan && cmake --build --preset emulation-tsan --target emulation_tests kernel_tests; }
# Under ThreadSanitizer some tests of many sizes take minutes; others run the same kernels.
tsan_tests='*:-Device.*:Attention.IsCausal:CrossEntropy.PanelsOfAnyWidth*:ScoreAndMask.EqualsTheOracle*'

# run_shards [VARIABLE=value...] PROGRAM...: a GoogleTest program as processes with a share of the tests each, more than
# run at once, since some tests take long.
run_shards() {
    local count=$((6 * $(nproc)))
    seq 0 $((count - 1)) | xargs -P "$(nproc)" -I{} env OMP_NUM_THREADS=1 GTEST_TOTAL_SHARDS="$count" GTEST_SHARD_INDEX={} "$@"
}

mpi_ranks='mpi_tests_[12358]'  # .ci/full: all of 1 to 8
[[ -z ${ESPALIER_ALL_RANKS:-} ]] || mpi_ranks=mpi_tests
# Tests of an older program would only hide why there is no new one.
stop_if_failed() { ((failed == 0)) || { printf '\nThe tests were not run.\n' && exit 1; }; }
if wants install; then part "packages" jobs/install_dependencies.sh --tests && stop_if_failed; fi
# Ubuntu 24.04 has no python3-torch: PyTorch's own, its build for CPUs where that index answers (180 MB instead of 3 GB).
needs_torch() { wants oracle || wants binary || wants emulation || wants emulation-more || wants emulation-asan-more; }
if needs_torch && ! /usr/bin/python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; then
    export PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL-https://download.pytorch.org/whl/cpu}
    part "PyTorch" jobs/virtual_environment.sh build/venv-torch tests/oracle/requirements.txt --system-site-packages
    stop_if_failed
    pytest[0]=$root/build/venv-torch/bin/python
fi
if wants build; then part "build" build && stop_if_failed; fi
if wants unit; then part "unit tests" ctest --test-dir build/release --no-tests=error --output-on-failure -R unit_tests; fi
if wants mpi; then part "unit tests under mpirun" ctest --test-dir build/release --no-tests=error --output-on-failure -R "$mpi_ranks"; fi
if wants layering; then part "layering" "${pytest[@]}" tests/layering; fi
if wants oracle; then part "float64 oracle" "${pytest[@]}" tests/oracle; fi
if wants binary; then part "the binary" binary; fi
if wants export; then part "exports in transformers" export_python; fi
if wants jobs; then part "jobs" jobs_python; fi
if wants commands; then part "commands of the documents" commands_python; fi
if wants dry-run-time; then part "dry runs beside the time of real ranks" dry_run_time; fi
if wants emulation; then part "the CUDA path, emulated" emulation; fi
if wants emulation-more; then part "the CUDA path, emulated, in other orders and sizes" emulation_more; fi
if wants emulation-tsan; then part "emulated CUDA path under thread sanitizer" emulation_tsan; fi
if wants emulation-asan; then part "CPU and emulated CUDA path under sanitizers" emulation_asan; fi
if wants emulation-asan-more; then part "kernels of the CPU and the oracle under sanitizers" emulation_asan_more; fi

printf '\n%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
