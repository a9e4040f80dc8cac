#!/usr/bin/env bash
# Installs what Espalier needs from Debian's or Ubuntu's packages, and says what it installs.
#   jobs/install_dependencies.sh           to build and run the program and the demo
#   jobs/install_dependencies.sh --tests   also what tests/run.sh and .ci/run need
#   jobs/install_dependencies.sh --list    prints the packages and installs nothing
set -euo pipefail

program=(build-essential cmake ninja-build pkg-config
    openmpi-bin libopenmpi-dev libhdf5-dev libboost-program-options-dev libopenblas-pthread-dev
    nlohmann-json3-dev libfmt-dev libxxhash-dev libssl-dev
    python3 python3-venv ca-certificates)
tests=(git libgtest-dev python3-torch libopenblas0-pthread python3-numpy python3-h5py python3-pytest
    clang clang-format clang-tidy libclang-rt-14-dev libomp-14-dev shellcheck munge slurm-wlm)

wanted=("${program[@]}")
list_only=false
for argument in "$@"; do
    case $argument in
        --tests) wanted+=("${tests[@]}") ;;
        --list) list_only=true ;;
        --help) sed -n '2,5s/^# \?//p' "$0" && exit 0 ;;
        *) printf 'install_dependencies.sh: %s is not an option (--tests, --list)\n' "$argument" >&2 && exit 2 ;;
    esac
done

if $list_only; then
    printf '%s\n' "${wanted[@]}"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    printf 'install_dependencies.sh: apt-get is not here; install what corresponds to: %s\n' "${wanted[*]}" >&2
    exit 2
fi

missing=()
for package in "${wanted[@]}"; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $status == installed ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
    echo "All ${#wanted[@]} packages are installed."
    exit 0
fi

as_root=()
((EUID == 0)) || as_root=(sudo)
echo "Installing ${#missing[@]} packages: ${missing[*]}"
# logged COMMAND...: pages of output that matter only when it fails.
logged() {
    local status=0
    "$@" >"$log" 2>&1 || status=$?
    ((status == 0)) || { printf 'install_dependencies.sh: %s ended with status %d:\n' "$1 $2" "$status" && tail -n 50 "$log"; } >&2
    return "$status"
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
logged "${as_root[@]}" apt-get update
logged "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
echo "Installed."
