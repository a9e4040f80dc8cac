#!/usr/bin/env bash
# The build stage of Dockerfile and espalier.def: builds espalier and puts everything that the runtime stage takes into PREFIX.
#   slurm/packages/stage.sh PREFIX [options of cmake]
# PREFIX/bin       espalier; its CUDA module is in PREFIX/lib/espalier
# PREFIX/lib       the CUDA libraries that it loads (without CUDA none), so that the runtime image needs no toolkit
# PREFIX/jobs, PREFIX/slurm, PREFIX/venv     the scripts, and the Python packages of those in jobs/
# PREFIX/packages  the apt packages that the runtime stage installs, found from the program: the same script serves Debian 12
#                  and Ubuntu 24.04, whose names differ (libhdf5-103-1 and libhdf5-103-1t64)
# JOBS=N compiles with N processes [all cores]; PYTHON_PACKAGES=no leaves out PREFIX/venv (the scripts in jobs/ need it).
set -euo pipefail
if [[ $# == 0 || $1 == --help ]]; then
    sed -n '2,9s/^# \?//p' "$0"
    exit $(($# == 0 ? 2 : 0))
fi
prefix=$1 && shift
source=$(cd "$(dirname "$0")/../.." && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DESPALIER_TESTS=OFF -DCMAKE_INSTALL_PREFIX="$prefix" "$@"
cmake --build "$build" --parallel "${JOBS:-$(nproc)}"
cmake --install "$build" --strip
mkdir -p "$prefix/lib/espalier" "$prefix/slurm/scaling"
cp -r "$source/jobs" "$source/LICENSE" "$prefix/"
cp "$source"/slurm/*.{sh,sbatch} "$prefix/slurm/"
cp "$source"/slurm/scaling/*.sh "$prefix/slurm/scaling/"

# The program of the build folder knows where the toolkit's libraries are; the installed one will find them in PREFIX/lib.
program=$build/espalier
files=("$program")
[[ ! -e $build/libespalier_cuda.so ]] || files+=("$build/libespalier_cuda.so")  # what needs the CUDA libraries
loaded=$(ldd "${files[@]}")
[[ $loaded != *"not found"* ]] || { printf 'stage.sh: a library is missing:\n%s\n' "$loaded" >&2 && exit 1; }
cuda='^lib(cublas|cusolver|cusparse|nvJitLink|nccl)'
while read -r library; do
    cp -n -L "$library" "$prefix/lib/"
    # cuBLASLt loads NVRTC by name, and NVRTC its built-in functions.
    for by_name in "$(dirname "$(realpath "$library")")"/libnvrtc{,-builtins}.so.[0-9]*; do
        [[ ! -e $by_name || $(basename "$library") != libcublasLt* ]] || cp -n -P "$by_name" "$prefix/lib/"
    done
done < <(awk -v cuda="$cuda" '$1 ~ cuda {print $3}' <<<"$loaded")

owner() {  # owner FILE: the package it came with; Debian 12 still knows some files of /usr/lib as /lib
    dpkg-query -S "$1" 2>/dev/null || dpkg-query -S "${1#/usr}" 2>/dev/null
}
{
    # mpirun, the drivers that NCCL's and Open MPI's InfiniBand loads by name, what slurm/*.sh call.
    printf '%s\n' openmpi-bin ibverbs-providers python3 ca-certificates procps
    objdump -p "${files[@]}" | awk '$1 == "NEEDED" {print $2}' | sort -u | while read -r name; do
        [[ ! $name =~ $cuda && $name != ld-linux* ]] || continue
        file=$(realpath "$(awk -v name="$name" '$1 == name {print $3; exit}' <<<"$loaded")")
        owner "$file" | awk -F: '{print $1; exit}' | grep . || { printf 'stage.sh: no package has %s\n' "$file" >&2 && exit 1; }
    done
} | sort -u >"$prefix/packages"

if [[ ${PYTHON_PACKAGES:-yes} == yes ]]; then
    requirements=$(mktemp)
    grep -v '^pytest' "$source/jobs/requirements.txt" >"$requirements"
    "$source/jobs/virtual_environment.sh" "$prefix/venv" "$requirements"
    rm "$requirements"
fi
chmod -R a+rX "$prefix"
du -sh "$prefix"
