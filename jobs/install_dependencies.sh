#!/usr/bin/env bash
# Installs what Espalier needs from Debian's or Ubuntu's packages, and says what it installs.
#   jobs/install_dependencies.sh           to build and run the program and the demo
#   jobs/install_dependencies.sh --tests   also what tests/run.sh and .ci/run need
#   jobs/install_dependencies.sh --python  only what a virtual environment for jobs/ needs
#   jobs/install_dependencies.sh --list    prints the packages and installs nothing
set -euo pipefail

# Releases name some packages differently: of "a|b" the first that apt offers is taken. "a?" may be missing.
program=(build-essential cmake ninja-build pkg-config
    openmpi-bin libopenmpi-dev libhdf5-dev libboost-program-options-dev libopenblas-pthread-dev
    nlohmann-json3-dev libfmt-dev libxxhash-dev libssl-dev)
python=(python3 python3-venv ca-certificates)
# Ubuntu 24.04 has no python3-torch: tests/run.sh takes PyPI's there.
tests=(git libgtest-dev 'python3-torch?' libopenblas0-pthread python3-numpy python3-h5py python3-pytest python3-pytest-xdist
    clang clang-format clang-tidy 'libclang-rt-dev|libclang-common-14-dev' libomp-dev shellcheck munge slurm-wlm)

wanted=("${program[@]}" "${python[@]}")
list_only=false
for argument in "$@"; do
    case $argument in
        --tests) wanted+=("${tests[@]}") ;;
        --python) wanted=("${python[@]}") ;;
        --list) list_only=true ;;
        --help) sed -n '2,6s/^# \?//p' "$0" && exit 0 ;;
        *) printf 'install_dependencies.sh: %s is not an option (--tests, --python, --list)\n' "$argument" >&2 && exit 2 ;;
    esac
done

is_installed() { [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }
is_offered() { [[ $(apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [^\(] ]]; }

# The first of "a|b|c" that is installed or that apt offers; status 1 when none is.
choose() {
    local names name
    IFS='|' read -ra names <<<"${1%\?}"
    for name in "${names[@]}"; do ! is_installed "$name" || { echo "$name" && return; }; done
    for name in "${names[@]}"; do ! is_offered "$name" || { echo "$name" && return; }; done
    return 1
}

if ! command -v apt-get >/dev/null; then
    $list_only && printf '%s\n' "${wanted[@]%%[|?]*}" && exit 0
    printf 'install_dependencies.sh: apt-get is not here; install what corresponds to: %s\n' "${wanted[*]%%[|?]*}" >&2
    exit 2
fi

chosen=() missing=() unknown=()
sort_out() {
    local name package
    chosen=() missing=() unknown=()
    for name in "${wanted[@]}"; do
        if package=$(choose "$name"); then
            chosen+=("$package")
            is_installed "$package" || missing+=("$package")
        elif [[ $name != *\? ]]; then
            unknown+=("${name//|/ or }")
        fi
    done
}

sort_out
if $list_only; then
    # A fresh system knows no packages before its first apt-get update: then the usual names.
    ((${#unknown[@]} == 0)) && printf '%s\n' "${chosen[@]}" || printf '%s\n' "${wanted[@]%%[|?]*}"
    exit 0
fi
if ((${#missing[@]} + ${#unknown[@]} == 0)); then
    echo "All ${#chosen[@]} packages are installed."
    exit 0
fi

as_root=()
((EUID == 0)) || as_root=(sudo)
# logged COMMAND...: pages of output that matter only when it fails.
logged() {
    local status=0
    "$@" >"$log" 2>&1 || status=$?
    ((status == 0)) || { printf 'install_dependencies.sh: %s ended with status %d:\n' "$1 $2" "$status" && tail -n 50 "$log"; } >&2
    return "$status"
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Lists that are minutes old are new enough.
if [[ -z $(find /var/lib/apt/lists -maxdepth 0 -mmin -10) ]] || ((${#unknown[@]})); then
    logged "${as_root[@]}" apt-get update
    sort_out
fi
if ((${#unknown[@]})); then
    printf 'install_dependencies.sh: apt offers no package %s here; on Ubuntu they are in "universe"\n' "${unknown[*]}" >&2
    exit 2
fi
echo "Installing ${#missing[@]} packages: ${missing[*]}"
logged "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
echo "Installed."
