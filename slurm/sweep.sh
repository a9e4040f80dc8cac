#!/usr/bin/env bash
# Submits many runs as one job array, and a job behind it that collects their results into one table.
#   slurm/sweep.sh TABLE FOLDER [options of espalier prune common to all] [options of the job, as slurm/submit.sh]
# TABLE: a line a run with its options of `espalier prune`, quoted as in a shell, for instance
#   --method wanda
#   --method wanda++ --alpha 10
# Run i is written to FOLDER/00i, the table to FOLDER/runs.md and FOLDER/runs.csv. --at-once N runs N of them at a time.
# The same command again continues the runs that have not finished.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=slurm/job_options.sh
source "$here/job_options.sh"
# shellcheck source=slurm/launch.sh
source "$here/launch.sh"

if [[ $# -lt 2 ]] || asks_for_help "$@"; then
    printf 'usage: slurm/sweep.sh TABLE FOLDER [options of espalier prune] [of the job]\n\n  --at-once N          runs at one time [all]\n%s\n' "$job_usage"
    asks_for_help "$@" && exit 0 || exit 2
fi
table=$1 folder=$(realpath -m "$2") at_once=''
shift 2
[[ -r $table ]] || refuse "$table cannot be read"
mapfile -t runs < <(grep -v '^[[:space:]]*\(#\|$\)' "$table")
((${#runs[@]})) || refuse "$table has no runs"
words=()
while (($#)); do
    case $1 in
        --at-once) at_once=%${2:?N} && shift 2 ;;
        --at-once=*) at_once=%${1#*=} && shift ;;
        *) words+=("$1") && shift ;;
    esac
done
find_program
take_job_options "${words[@]}"
own_devices=''

# Every run must be plannable, that is, a right command line; the longest decides time and memory.
given_time=$time_limit given_memory=$memory given_signal=$signal_before longest=0 most_memory=0 longest_signal=0 job_time=''
for i in "${!runs[@]}"; do
    printf 'run %s: %s\n' "$i" "${runs[i]}" >&2
    split_line "${runs[i]}" || refuse "run $i of $table is not quoted as it should be"
    for word in "${options[@]}"; do
        case $word in
            --output | --output=*) refuse "run $i names its own --output; runs are written to FOLDER/000, 001 …" ;;
            --device | --device=*) own_devices=yes ;;
        esac
    done
    time_limit=$given_time memory='' signal_before=$given_signal
    plan_job "${rest[@]}" "${options[@]}"
    seconds=$(seconds_of "$time_limit") || exit $?
    if ((seconds > longest)); then longest=$seconds job_time=$time_limit; fi
    if ((${memory%M} > most_memory)); then most_memory=${memory%M}; fi
    if ((signal_before > longest_signal)); then longest_signal=$signal_before; fi
done
time_limit=$job_time memory=${given_memory:-${most_memory}M} signal_before=$longest_signal

[[ -n $own_devices ]] || ask_for_gpus
check_program
sbatch_options+=("--array=0-$((${#runs[@]} - 1))$at_once")
script=$(fill "$here/sweep.sbatch" "$folder/table.txt" "$folder" "${rest[@]}")
printf '%s\n' "$script"
[[ -z $dry_run ]] || exit 0
mkdir -p "$folder"
[[ $table -ef $folder/table.txt ]] || cp "$table" "$folder/table.txt"
array=$(submit "$script")
cat >&2 <<TEXT

array $array with ${#runs[@]} runs is submitted
  squeue -j $array; tail -F ${job_name:-espalier-sweep}_${array}_0.log
TEXT
collector_options
collector=$(submit "#!/bin/bash
python3 $(printf '%q' "$here/../jobs/collect_runs.py") $(printf '%q' "$folder")" \
    --dependency="afterany:$array" --job-name=espalier-collect --output="$folder/collect.log" "${small_job_options[@]}")
printf 'job %s collects them into %s\n' "$collector" "$folder/runs.md" >&2
