#!/usr/bin/env bash
# Runs every test: builds, then unit tests, tests under mpirun, the float64 oracle, the binary against bad input, resumption,
# memory, layering, exports in transformers, and the Python jobs.
#   tests/run.sh              everything
#   tests/run.sh unit oracle  only these parts
# Parts: install build unit mpi layering oracle binary export jobs
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
all_parts=(install build unit mpi layering oracle binary export jobs)
parts=("$@")
((${#parts[@]})) || parts=("${all_parts[@]}")
for name in "${parts[@]}"; do
    [[ " ${all_parts[*]} " == *" $name "* ]] && continue
    printf 'run.sh: %s is not a part; parts: %s\n' "$name" "${all_parts[*]}" >&2
    exit 2
done
wants() { [[ " ${parts[*]} " == *" $1 "* ]]; }

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
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

build() {
    cmake --preset release -DESPALIER_TESTS=ON "${cmake_options[@]}" >/dev/null && cmake --build --preset release
}
cmake_options=()
[[ -z ${ESPALIER_WERROR:-} ]] || cmake_options+=(-DESPALIER_WERROR="$ESPALIER_WERROR")

jobs_python() {
    jobs/virtual_environment.sh build/venv jobs/requirements.txt &&
        build/venv/bin/python -m pytest -q -p no:cacheprovider tests/jobs
}

export_python() {
    jobs/virtual_environment.sh build/venv-transformers tests/export/requirements.txt --system-site-packages &&
        build/venv-transformers/bin/python -m pytest -q -p no:cacheprovider tests/export
}

if wants install; then part "packages" jobs/install_dependencies.sh --tests; fi
if wants build; then part "build" build; fi
if wants unit; then part "unit tests" ctest --test-dir build/release --no-tests=error --output-on-failure -R unit_tests; fi
if wants mpi; then part "unit tests under mpirun" ctest --test-dir build/release --no-tests=error --output-on-failure -R mpi_tests; fi
if wants layering; then part "layering" "${pytest[@]}" tests/layering; fi
if wants oracle; then part "float64 oracle" "${pytest[@]}" tests/oracle; fi
if wants binary; then part "the binary" "${pytest[@]}" tests/cli tests/prune tests/evaluate; fi
if wants export; then part "exports in transformers" export_python; fi
if wants jobs; then part "jobs" jobs_python; fi

printf '\n%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
