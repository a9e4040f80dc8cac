#!/usr/bin/env bash
# Brings up a Slurm of two nodes on this machine (cluster.sh) and runs real jobs on it: submission, signals, requeueing,
# preemption, a killed rank, job arrays, wrong launches.
#   tests/slurm/run.sh           what fits into some minutes
#   tests/slurm/run.sh --all     also what waits for Slurm's own time limits
#   tests/slurm/run.sh -k WORDS  only some, as pytest chooses
# The program is $ESPALIER, by default build/release/espalier; GPUs are tested with tests/emulation/espalier where build/emulation is.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
export ESPALIER=${ESPALIER:-$root/build/release/espalier}
[[ -x $ESPALIER ]] || { printf 'run.sh: %s is not built\n' "$ESPALIER" >&2 && exit 2; }
if [[ ${1:-} == --all ]]; then export ESPALIER_SLURM_TESTS=all && shift; fi

folder=$(mktemp -d)
trap 'tests/slurm/cluster.sh stop "$folder"; rm -rf "$folder"' EXIT
exports=$(tests/slurm/cluster.sh start "$folder")
eval "$exports"

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# Shared memory between two "nodes" of one machine would crash; they talk through the loopback interface.
export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_pml=ob1
# Slurm's other fence lets ranks leave MPI_Init while one is still on its way into it: on a busy machine the first
# message then ended that rank by SIGSEGV in one start of 90 (any MPI program; docs/cluster.md).
export SLURM_PMIX_FENCE=ring
/usr/bin/python3 -m pytest -q -x -rs -p no:cacheprovider tests/slurm "$@"
