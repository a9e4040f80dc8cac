#!/usr/bin/env bash
# Puts built programs into a folder that runs on a machine without Open MPI, HDF5 or Boost: with every library they need
# but the C and C++ runtime, the driver and the CUDA libraries (they are large; the machine's own are used).
#   jobs/bundle.sh FOLDER PROGRAM...      then: FOLDER/run espalier prune ...
# One process needs nothing else; FOLDER/run mpirun -n 4 FOLDER/run espalier ... starts several on one machine.
set -euo pipefail
if [[ $# == 0 || $1 == --help ]]; then
    sed -n '2,5s/^# \?//p' "$0"
    exit $(($# == 0 ? 2 : 0))
fi
folder=$1 && shift
(($# > 0)) || { printf 'bundle.sh: name the programs to bundle, e.g. build/release/espalier\n' >&2 && exit 2; }
[[ ! -e $folder ]] || { printf 'bundle.sh: %s exists already\n' "$folder" >&2 && exit 2; }
system=/usr/lib/x86_64-linux-gnu
mpi=$system/openmpi
[[ -d $mpi/lib/openmpi3 && -x /usr/bin/orterun ]] || {
    printf 'bundle.sh: only Open MPI 4.1 as Debian 12 and Ubuntu install it can be packed (%s, /usr/bin/orterun); here: %s\n' \
        "$mpi/lib/openmpi3" "$(mpirun --version 2>/dev/null | head -n 1 | grep . || echo none)" >&2
    exit 2
}

mkdir -p "$folder"/{bin,lib,openmpi/bin,openmpi/share,openmpi/lib/x86_64-linux-gnu/openmpi/lib}
for program in "$@"; do
    [[ -x $program ]] || { printf 'bundle.sh: %s is not a program\n' "$program" >&2 && exit 2; }
    cp "$program" "$folder/bin/"
    strip "$folder/bin/$(basename "$program")"
    # What needs the CUDA libraries: beside the program, where a build leaves it for its tests, or installed.
    for module in "$(dirname "$program")"/{,../,../lib*/espalier/}libespalier_cuda.so; do
        [[ -e $module ]] || continue
        [[ ! -e $folder/bin/libespalier_cuda.so ]] || cmp -s "$module" "$folder/bin/libespalier_cuda.so" ||
            { printf 'bundle.sh: %s belongs to another build than the first program\n' "$program" >&2 && exit 2; }
        cp "$module" "$folder/bin/"
        break
    done
done
if [[ -e $folder/bin/libespalier_cuda.so ]]; then strip "$folder/bin/libespalier_cuda.so"; fi
cp /usr/bin/orterun "$folder/openmpi/bin/mpirun"
cp /usr/bin/orted "$folder/openmpi/bin/"
cp -r /usr/share/openmpi "$folder/openmpi/share/"
cp -r "$mpi/lib/openmpi3" "$folder/openmpi/lib/x86_64-linux-gnu/openmpi/lib/"

# What the machine has itself, newer than ours, or is too large to carry.
theirs='^(ld-linux.*|lib(c|m|dl|rt|pthread|util|gcc_s|stdc\+\+|resolv|nsl))\.so|^lib(cublas|cudart|cusolver|cusparse|nvJitLink|nccl|cuda|nvidia)'
copy_needed() {  # copy_needed FILE...: the closure of their libraries
    local libraries
    libraries=$(ldd "$@" 2>&1) || { printf 'bundle.sh: ldd says: %s\n' "$libraries" >&2 && return 1; }
    awk '$2 == "=>" && $3 ~ /^\// {print $3}' <<<"$libraries" | sort -u | while read -r library; do
        [[ $(basename "$library") =~ $theirs ]] || cp -n -L "$library" "$folder/lib/"
    done
}
copy_needed "$folder"/bin/* "$folder"/openmpi/bin/*
# Open MPI's plugins load these by name, which ldd on the program does not show.
for library in "$system/pmix2/lib/libpmix.so.2" "$system/libmunge.so.2"; do
    [[ -e $library ]] || continue
    cp -n -L "$library" "$folder/lib/"
    copy_needed "$library"
done
for plugin in "$mpi"/lib/openmpi3/*.so; do copy_needed "$plugin"; done

# The CUDA libraries that the module names, whichever version it was built with, and what those need themselves.
ldd "$folder"/bin/* | awk '$1 ~ /^lib(cublas|cusolver|cusparse|nvJitLink|nccl)/ {print $1}' | sort -u >"$folder/cuda_libraries"

cat >"$folder/run" <<'RUN'
#!/usr/bin/env bash
# run PROGRAM [arguments]: a program of this folder with the libraries beside it and the CUDA libraries of the machine.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
libraries=$here/lib
known=$(ldconfig -p)
IFS=: read -ra of_environment <<<"${LD_LIBRARY_PATH:-}"
add_cuda_library() {  # add_cuda_library NAME: the folder of the first one found; without it there is only the CPU
    local place
    [[ $known != *"$1"* ]] || return 0
    for place in "${of_environment[@]}" "${CUDA_HOME:-/usr/local/cuda}"/{lib64,targets/x86_64-linux/lib} "${CUDA_LIBRARIES:-/nowhere}" \
        $(python3 -c 'import glob, sysconfig; print(*glob.glob(sysconfig.get_path("purelib") + "/nvidia/*/lib"))' 2>/dev/null); do
        [[ ! -e $place/$1 ]] || { libraries+=:$place && return; }
    done
    ! [[ -e /proc/driver/nvidia ]] || printf 'run: %s was not found; set CUDA_LIBRARIES to its folder\n' "$1" >&2
}
mapfile -t cuda_libraries <"$here/cuda_libraries"
for name in "${cuda_libraries[@]}"; do add_cuda_library "$name"; done
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} OPAL_PREFIX=$here/openmpi
export OMPI_MCA_mca_base_component_show_load_errors=0
# A process that no mpirun or Slurm step has started is alone, and must not start Open MPI's daemon to learn it.
[[ -n ${OMPI_COMM_WORLD_SIZE:-}${PMIX_RANK:-}${PMI_RANK:-} ]] || export OMPI_MCA_ess_singleton_isolated=1
program=${1:?PROGRAM of bin, or mpirun} && shift
if [[ $program == mpirun ]]; then exec "$here/openmpi/bin/mpirun" "$@"; fi
exec "$here/bin/$program" "$@"
RUN
chmod +x "$folder/run"
du -sh "$folder" | awk '{print "bundled " $1}'
