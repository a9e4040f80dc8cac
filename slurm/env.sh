#!/usr/bin/env bash
# Checks what espalier needs on this machine; says what is missing and the line that mends it.
#   slurm/env.sh [PROGRAM]           for instance inside of a job: srun --nodes=2 --ntasks-per-node=1 slurm/env.sh
# Status 0 when nothing that is needed is missing.
set -uo pipefail
if [[ ${1:-} == --help || ${1:-} == -h ]]; then sed -n '2,4s/^# \?//p' "$0" && exit 0; fi
# Several nodes at once: every line says whose it is.
if [[ -n ${SLURM_STEP_ID:-} && -z ${ESPALIER_NAMED_LINES:-} ]]; then
    ESPALIER_NAMED_LINES=yes bash "$0" "$@" | sed "s/^/${SLURMD_NODENAME:-$(hostname)}: /"
    exit "${PIPESTATUS[0]}"
fi
here=$(cd "$(dirname "$0")" && pwd)
program=${1:-${ESPALIER:-$here/../build/release/espalier}}
missing=0

good() { printf '  ok       %-18s %s\n' "$1" "$2"; }
note() { printf '  note     %-18s %s\n           %-18s -> %s\n' "$1" "$2" '' "$3"; }
bad() {
    printf '  MISSING  %-18s %s\n           %-18s -> %s\n' "$1" "$2" '' "$3"
    missing=$((missing + 1))
}
# The program, and the module that needs the CUDA libraries where it has one.
files=("$program")
for module in "$(dirname "$program")"/{,../,../lib*/espalier/}libespalier_cuda.so; do
    if [[ -e $module ]]; then files+=("$module") && break; fi
done
# has_library NAME: where the loader would find it, or the program has it.
has_library() {
    local folders folder
    [[ $(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null) != *"$1"* ]] || return 0
    [[ ! -x $program || $(ldd "${files[@]}" 2>/dev/null) != *"$1"*"=> /"* ]] || return 0
    IFS=: read -ra folders <<<"${LD_LIBRARY_PATH:-}"
    for folder in "${folders[@]}"; do
        if compgen -G "$folder/$1*" >/dev/null; then return; fi
    done
    return 1
}
first_line() { "$@" 2>&1 | head -n 1; }

printf '%s\n' "$(hostname)"
if compiler=$(command -v "${CXX:-g++}"); then
    version=$("$compiler" -dumpfullversion -dumpversion 2>/dev/null)
    if ((${version%%.*} >= 12)); then good compiler "$compiler $version"; else bad compiler "$compiler $version is older than 12" "module load gcc/12   (only to build)"; fi
else
    note compiler "none" "module load gcc/12   (only to build)"
fi
if command -v mpirun >/dev/null; then good MPI "$(first_line mpirun --version)"; else bad MPI "no mpirun" "module load openmpi, or apt-get install openmpi-bin libopenmpi-dev"; fi
if command -v srun >/dev/null; then
    if ! kinds=$(srun --mpi=list 2>&1); then
        bad Slurm "srun: $(head -n 1 <<<"$kinds")" "ask whoever runs this cluster"
    elif grep -q pmix <<<"$kinds"; then good PMIx "srun --mpi=pmix"; else note PMIx "srun --mpi=list has no pmix" "submit with --launcher mpirun, or ask for a Slurm with PMIx"; fi
else
    note Slurm "no srun here" "fine without Slurm: mpirun -n RANKS espalier prune ..."
fi
if command -v nvidia-smi >/dev/null && gpus=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>&1); then
    good GPUs "$(printf '%s\n' "$gpus" | sort | uniq -c | sed 's/^ *//' | tr '\n' ';')"
    if has_library libnccl.so.2; then
        good NCCL "libnccl.so.2"
    else
        bad NCCL "libnccl.so.2 is not found" "module load nccl, or add its folder to LD_LIBRARY_PATH"
    fi
else
    if [[ -n ${SLURM_JOB_GPUS:-${SLURM_STEP_GPUS:-}} ]]; then
        bad GPUs "Slurm has given GPU ${SLURM_JOB_GPUS:-$SLURM_STEP_GPUS}, but no NVIDIA driver answers${gpus:+: $(head -n 1 <<<"$gpus")}" "tell whoever runs this node"
    else
        note GPUs "no NVIDIA driver answers here" "on the login node that is usual; on a compute node ask for --gpus-per-node"
    fi
fi
if has_library libhdf5; then good HDF5 "libhdf5"; else bad HDF5 "libhdf5 is not found" "module load hdf5, or apt-get install libhdf5-dev"; fi
if [[ -x $program ]]; then
    if lost=$(ldd "${files[@]}" 2>/dev/null | grep 'not found' | awk '{print $1}' | tr '\n' ' ') && [[ -n $lost ]]; then
        bad libraries "$program needs $lost" "load the modules it was built with (MPI, HDF5, CUDA), or use jobs/bundle.sh"
    else
        # Without Slurm's variables: they would ask for MPI between the tasks that run this script.
        if version=$(env -i PATH="$PATH" LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" "$program" --version 2>&1); then
            good program "$version at $program"
        else
            bad program "$program --version: $version" "build it on this kind of machine, or use jobs/bundle.sh"
        fi
    fi
else
    bad program "$program is not there" "cmake --preset release && cmake --build --preset release"
fi
locked=$(ulimit -l)
if [[ $locked == unlimited ]] || ((locked > 8 * 1024 * 1024)); then good 'locked memory' "$locked"; else note 'locked memory' "$locked KiB: runs on GPUs need page-locked memory for hidden states and weights" "ulimit -l unlimited; in Slurm PropagateResourceLimitsExcept=MEMLOCK"; fi
if [[ $(ulimit -s) == unlimited ]]; then note 'stack' "unlimited, with which NCCL has crashed" "ulimit -s 8192"; fi
shared=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)
if [[ -n $shared ]] && ((shared > 1024 * 1024)); then good /dev/shm "$((shared / 1024)) MiB free"; else note /dev/shm "${shared:-0} KiB: NCCL and MPI talk through it" "in a container --shm-size=1g"; fi
if removes=$(systemctl show -p RemoveIPC systemd-logind 2>/dev/null) && [[ $removes == *=yes ]]; then note RemoveIPC "systemd deletes shared memory at log-out" "RemoveIPC=no in logind.conf, if ranks die when you log out"; fi

((missing == 0)) || { printf '%d thing(s) missing\n' "$missing" && exit 1; }
