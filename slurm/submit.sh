#!/usr/bin/env bash
# Submits a run of prune or finetune: asks `espalier plan` for time and memory, fills slurm/prune.sbatch or
# slurm/finetune.sbatch, shows it and submits it.
#   slurm/submit.sh --model DIR --calibration tokens.h5 --output RUN [options of espalier prune] --nodes 2 --gpus-per-node 8
#   slurm/submit.sh finetune --model RUN --data tokens.h5 --output TUNED [options of espalier finetune] --nodes 2
# slurm/submit.sh --help lists the job's options. A job that reaches its time limit, is preempted, or loses a machine goes
# back to the queue and on from its last block, or its last checkpoint.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=slurm/job_options.sh
source "$here/job_options.sh"

command=prune tokens=calibration
[[ ${1:-} != prune ]] || shift
if [[ ${1:-} == finetune ]]; then
    command=finetune tokens=data
    shift
fi
if [[ $# == 0 ]] || asks_for_help "$@"; then
    printf 'usage: slurm/submit.sh --model DIR --calibration FILE --output RUN [options of espalier prune] [of the job]\n'
    printf '       slurm/submit.sh finetune --model RUN --data FILE --output TUNED [options of espalier finetune] [of the job]\n'
    printf '\n%s\n' "$job_usage"
    exit $(($# == 0 ? 2 : 0))
fi
find_program
take_job_options "$@"
given_as output || refuse "--output RUN is missing"
given_as "$tokens" || refuse "--$tokens FILE is missing"

if [[ -n ${ESPALIER_FRESH:-} ]] || { given_as fresh && [[ " ${rest[*]} " != *" --fresh "* ]]; }; then
    refuse "give --fresh as a word of this command: from a file or ESPALIER_FRESH the run would start over at every requeue"
fi
ask_for_gpus
check_program
plan_job "${rest[@]}"
script=$(fill "$here/$command.sbatch" "${rest[@]}")
printf '%s\n' "$script"
[[ -z $dry_run ]] || exit 0

job=$(submit "$script")
cat >&2 <<TEXT

job $job is submitted. Watch it:
  squeue -j $job                                   waiting, running, requeued
  tail -F ${job_name:-espalier-$command}_$job.log     how far it is
  $(stop_command) $job                             stop after the present block or step; the job is requeued and goes on
  scancel $job                                     end it; the same slurm/submit.sh command continues it later
TEXT
