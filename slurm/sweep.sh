#!/usr/bin/env bash
# Submits many runs as one job array, and a job behind it that collects their results into one table.
#   slurm/sweep.sh TABLE FOLDER [options of espalier prune common to all] [options of the job, as slurm/submit.sh]
# TABLE: a line a run with its options of `espalier prune`, for instance
#   --method wanda
#   --method wanda++ --alpha 10
# Run i is written to FOLDER/00i, the table to FOLDER/runs.md and FOLDER/runs.csv. --at-once N runs N of them at a time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=slurm/job_options.sh
source "$here/job_options.sh"

if [[ $# -lt 2 || " $* " == *" --help "* ]]; then
    printf 'usage: slurm/sweep.sh TABLE FOLDER [options of espalier prune] [--at-once N] [of the job]\n\n%s\n' "$job_usage"
    [[ " $* " == *" --help "* ]] && exit 0 || exit 2
fi
table=$1 folder=$2 at_once=''
shift 2
[[ -r $table ]] || { printf 'sweep.sh: %s cannot be read\n' "$table" >&2 && exit 2; }
mapfile -t runs < <(grep -v '^[[:space:]]*\(#\|$\)' "$table")
((${#runs[@]})) || { printf 'sweep.sh: %s has no runs\n' "$table" >&2 && exit 2; }
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

# Every run must be plannable, that is, a right command line; the longest decides time and memory.
longest=0 largest=0 given_time=$time_limit given_memory=$memory
for i in "${!runs[@]}"; do
    read -ra options <<<"${runs[i]}"
    printf 'run %s: %s\n' "$i" "${runs[i]}" >&2
    time_limit='' memory=''
    plan_job "${rest[@]}" "${options[@]}"
    ((planned_seconds > longest)) && longest=$planned_seconds job_time=$time_limit
    ((planned_megabytes > largest)) && largest=$planned_megabytes
done
time_limit=${given_time:-$job_time} memory=${given_memory:-${largest}M}

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cp "$table" "$folder/table.txt"
script=$(fill "$here/sweep.sbatch" "$folder/table.txt" "$folder" "${rest[@]}")
printf '%s\n' "$script"
[[ -z $dry_run ]] || exit 0
array=$(sbatch --parsable --array="0-$((${#runs[@]} - 1))$at_once" <<<"$script")
array=${array%%;*}
collector=$(sbatch --parsable --dependency="afterany:$array" --job-name=espalier-collect --output="$folder/collect.log" --ntasks=1 \
    --time=10 --wrap "python3 $(printf '%q' "$here/../jobs/collect_runs.py") $(printf '%q' "$folder")")
cat >&2 <<TEXT

array $array with ${#runs[@]} runs is submitted; job ${collector%%;*} collects them into $folder/runs.md
  squeue -j $array; tail -F espalier-sweep_${array}_0.log
TEXT
