# shellcheck shell=bash
# For strong.sh and weak.sh: submits one job for each number of ranks and each repeat, and a job behind them that draws
# the report. KIND is set by the script that sources this file.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
# shellcheck source=slurm/job_options.sh
source "$here/job_options.sh"

study_usage() {
    printf 'usage: slurm/scaling/%s.sh FOLDER --sizes 1,2,4,8 [--repeats 3] [options of espalier prune] [of the job]\n\n' "$KIND"
    printf '  --sizes LIST         numbers of machines, or of ranks with --by-rank, one job each\n'
    printf '  --by-rank            sizes are ranks; machines follow from --gpus-per-node or --ntasks-per-node\n'
    printf '  --repeats N          runs of each size [3]\n%s\n' "$job_usage"
}

if [[ $# == 0 ]] || asks_for_help "$@"; then
    study_usage
    exit $(($# == 0 ? 2 : 0))
fi
[[ $1 != --* ]] || refuse "the first word is the folder of the study, not $1"
folder=$(realpath -m "$1") sizes='' repeats=3 by_rank='' words=()
shift
while (($#)); do
    case $1 in
        --sizes) sizes=${2:?LIST} && shift 2 ;;
        --sizes=*) sizes=${1#*=} && shift ;;
        --repeats) repeats=${2:?N} && shift 2 ;;
        --repeats=*) repeats=${1#*=} && shift ;;
        --by-rank) by_rank=yes && shift ;;
        *) words+=("$1") && shift ;;
    esac
done
[[ -n $sizes ]] || refuse "--sizes 1,2,4 is missing"
mapfile -t list < <(tr , '\n' <<<"$sizes" | sort -nu)
for size in "${list[@]}" "$repeats"; do
    [[ $size =~ ^[1-9][0-9]*$ ]] || refuse "$size is not a whole number above zero"
done
[[ ! -e $folder/study.json ]] || refuse "$folder holds a study already"
find_program
take_job_options "${words[@]}"

# value_of NAME DEFAULT: what `rest` says about an option of prune.
value_of() {
    local i
    for ((i = 0; i < ${#rest[@]}; ++i)); do
        case ${rest[i]} in
            "--$1") printf '%s' "${rest[i + 1]:-}" && return ;;
            "--$1="*) printf '%s' "${rest[i]#*=}" && return ;;
        esac
    done
    printf '%s' "$2"
}
# without NAMES...: `rest` without these options, as `kept`.
without() {
    local i name
    kept=()
    for ((i = 0; i < ${#rest[@]}; ++i)); do
        name=${rest[i]%%=*}
        if [[ " $* " == *" ${name#--} "* ]]; then
            [[ ${rest[i]} == *=* ]] || ((++i))
            continue
        fi
        kept+=("${rest[i]}")
    done
}

# The work of `ranks` ranks: the same (strong), or that of one for each (weak).
options_of_size() {
    if [[ $KIND == strong ]]; then
        options=("${rest[@]}")
        return
    fi
    local samples drawn batch length calibration
    samples=$(value_of samples 16) batch=$(value_of ro-batch 1)
    drawn=$(value_of ro-samples "$((samples < 16 ? samples : 16))")
    length=$(value_of sequence-length 2048) calibration=$(value_of calibration '')
    without samples shards ro-samples ro-batch calibration sequence-length
    [[ -n $calibration && $calibration != synthetic:* ]] || calibration=synthetic:$((samples * ranks))x$length
    options=("${kept[@]}" --calibration "$calibration" --samples $((samples * ranks)) --sequence-length "$length" --shards $((8 * ranks > samples * ranks ? samples * ranks : 8 * ranks))
        --ro-samples $((drawn * ranks)) --ro-batch $((batch * ranks)))
}

ask_for_gpus
check_program
largest_size=${list[-1]}
if [[ $KIND == strong && -z $(value_of shards '') ]]; then
    # One number of shards for all sizes, with work for every rank of the largest: sums are the same, and so are the bits.
    most=$((largest_size / $(value_of block-groups 1)))
    [[ -n $by_rank ]] || most=$((largest_size * tasks_per_node / $(value_of block-groups 1)))
    rest+=(--shards "$((most > 8 ? most : 8))")
fi

given_time=$time_limit given_memory=$memory given_signal=$signal_before given_tasks=$tasks_per_node gpu_kind=''
[[ $gpus_per_node != *:* ]] || gpu_kind=${gpus_per_node%:*}:
scripts=() names=()
for size in "${list[@]}"; do
    nodes=$size tasks_per_node=$given_tasks
    if [[ -n $by_rank ]]; then
        nodes=$(((size + given_tasks - 1) / given_tasks))
        tasks_per_node=$(((size + nodes - 1) / nodes))
        ((nodes * tasks_per_node == size)) || refuse "$size ranks do not fill machines of $given_tasks evenly"
        [[ -z $gpus_per_node ]] || gpus_per_node=$gpu_kind$tasks_per_node
    fi
    ranks=$((nodes * tasks_per_node)) time_limit=$given_time memory=$given_memory signal_before=$given_signal
    options_of_size
    plan_job "${options[@]}"
    for ((repeat = 1; repeat <= repeats; ++repeat)); do
        run=$(printf '%s/ranks-%04d/repeat-%d' "$folder" "$ranks" "$repeat")
        names+=("$run")
        scripts+=("$(fill "$here/prune.sbatch" "${options[@]}" --output "$run")")
    done
done
if [[ -n $dry_run ]]; then
    printf '%s\n\n' "${scripts[@]}"
    exit 0
fi

mkdir -p "$folder"
python3 - "$folder/study.json" "$KIND" "$([[ -n $gpus_per_node ]] && printf GPU || printf rank)" "$repeats" \
    "$(IFS=, && printf '%s' "${list[*]}")" "espalier prune$(printf ' %q' "${rest[@]}")" <<'PYTHON'
import datetime, json, socket, sys
path, kind, unit, repeats, sizes, command = sys.argv[1:]
json.dump({"format": "espalier-scaling", "version": 1, "kind": kind, "unit": unit, "repeats": int(repeats),
           "sizes": [int(size) for size in sizes.split(",")], "command": command, "host": socket.gethostname(),
           "submitted": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}, open(path, "w"), indent=1)
PYTHON
jobs=()
trap '((${#jobs[@]} == ${#scripts[@]})) || printf "\n%s.sh: not all jobs could be submitted; these were: %s. Remove %s to begin again\n" "$KIND" "${jobs[*]}" "$folder" >&2' EXIT
for i in "${!scripts[@]}"; do
    mkdir -p "$(dirname "${names[i]}")"
    job=$(submit "${scripts[i]}" --job-name="espalier-$KIND" --output="${names[i]}.log")
    jobs+=("$job")
done
printf '\n%s jobs are submitted (%s)\n  squeue --name=espalier-%s,espalier-report\n' "${#jobs[@]}" "${jobs[*]}" "$KIND" >&2
collector_options
collector=$(submit "#!/bin/bash
$(printf 'python3 %q %q --output %q --table %q --csv %q' "$here/../jobs/scaling_report.py" "$folder" "$folder/report.html" \
    "$folder/report.md" "$folder/report.csv")" \
    --dependency="afterany:$(IFS=: && printf '%s' "${jobs[*]}")" --job-name=espalier-report --output="$folder/report.log" \
    "${small_job_options[@]}")
printf 'job %s draws %s when they have ended\n' "$collector" "$folder/report.html" >&2
