# shellcheck shell=bash
# For the scripts that submit: the options of a Slurm job among those of espalier.
#
# take_job_options WORDS...: sets the variables below from the words it knows and leaves the others in `rest`.

# shellcheck disable=SC2034
job_usage='  --nodes N            machines [1]
  --gpus-per-node N    GPUs of each, one rank a GPU
  --ntasks-per-node N  ranks of each machine, without GPUs [1]
  --gpu-type NAME      for the plan: h100, h200, gh200, a100, a100-40gb [h100]
  --cpus-per-task N    cores of a rank [8 with a GPU, else 1]
  --time T             limit of a job [the plan and half of it again; at least 15 minutes]; a longer run is requeued
  --mem SIZE           host memory of a machine [by the plan]
  --partition, --account, --qos, --constraint, --job-name, --signal-before SECONDS [300]
  --launcher srun|mpirun
  --sbatch OPTION      any other option of sbatch; may be repeated
  --dry-run            print the script, do not submit'

# The variables are read by the scripts that source this file.
# shellcheck disable=SC2034
take_job_options() {
    nodes=1 gpus_per_node='' ntasks_per_node='' gpu_type=h100 cpus_per_task='' time_limit='' memory='' signal_before=300
    launcher=srun dry_run='' sbatch_options=() rest=()
    local name value
    while (($#)); do
        name=$1
        if [[ $name == --dry-run ]]; then dry_run=yes && shift && continue; fi
        case ${name%%=*} in
            --nodes | --gpus-per-node | --ntasks-per-node | --gpu-type | --cpus-per-task | --time | --mem | --partition | \
                --account | --qos | --constraint | --job-name | --signal-before | --launcher | --sbatch) ;;
            *) rest+=("$name") && shift && continue ;;
        esac
        if [[ $name == *=* ]]; then
            value=${name#*=} name=${name%%=*}
        elif (($# > 1)); then
            value=$2 && shift
        else
            printf '%s: %s needs a value\n' "${0##*/}" "$name" >&2 && exit 2
        fi
        shift
        case $name in
            --nodes) nodes=$value ;;
            --gpus-per-node) gpus_per_node=$value ;;
            --ntasks-per-node) ntasks_per_node=$value ;;
            --gpu-type) gpu_type=$value ;;
            --cpus-per-task) cpus_per_task=$value ;;
            --time) time_limit=$value ;;
            --mem) memory=$value ;;
            --signal-before) signal_before=$value ;;
            --launcher) launcher=$value ;;
            --sbatch) sbatch_options+=("$value") ;;
            *) sbatch_options+=("$name=$value") ;;
        esac
    done
    for value in "$nodes" "${gpus_per_node:-1}" "${ntasks_per_node:-1}" "${cpus_per_task:-1}" "$signal_before"; do
        [[ $value =~ ^[1-9][0-9]*$ ]] || { printf '%s: %s is not a whole number above zero\n' "${0##*/}" "$value" >&2 && exit 2; }
    done
    [[ $launcher == srun || $launcher == mpirun ]] || { printf '%s: --launcher %s is not srun or mpirun\n' "${0##*/}" "$launcher" >&2 && exit 2; }
    tasks_per_node=${gpus_per_node:-${ntasks_per_node:-1}}
    ranks=$((nodes * tasks_per_node))
    : "${cpus_per_task:=$([[ -n $gpus_per_node ]] && printf 8 || printf 1)}"
}

# Lines "#SBATCH ..." for what was taken; TIME and MEMORY come from the plan when they were not given.
job_lines() {
    printf '#SBATCH --nodes=%s\n#SBATCH --ntasks-per-node=%s\n#SBATCH --cpus-per-task=%s\n' "$nodes" "$tasks_per_node" "$cpus_per_task"
    [[ -z $gpus_per_node ]] || printf '#SBATCH --gpus-per-node=%s\n' "$gpus_per_node"
    printf '#SBATCH --time=%s\n#SBATCH --mem=%s\n' "$time_limit" "$memory"
    # mpirun's ranks get a signal through the batch shell only.
    printf '#SBATCH --signal=%sUSR1@%s\n' "$([[ $launcher == mpirun ]] && printf 'B:')" "$signal_before"
    local option
    for option in "${sbatch_options[@]}"; do printf '#SBATCH %s\n' "$option"; done
}

# plan_job WORDS...: asks `espalier plan` for time and memory of `prune WORDS` on the job's ranks.
plan_job() {
    local plan
    plan=$("$ESPALIER" plan --json --ranks "$ranks" --gpu "$([[ -n $gpus_per_node ]] && printf '%s' "$gpu_type" || printf cpu)" \
        --gpus-per-node "$tasks_per_node" "$@") || exit $?
    read -r planned_seconds planned_megabytes planned_sentence < <(python3 -c '
import json, sys
plan, per_node = json.load(sys.stdin), int(sys.argv[1])
print(int(plan["run_seconds"]) + 1, int(plan["host_bytes"] * per_node * 1.25 / 2**20) + 1,
      "%.0f s, %.1f GiB of a device, %.1f device hours" % (plan["run_seconds"], plan["memory_bytes"] / 2**30, plan["device_hours"]))
' "$tasks_per_node" <<<"$plan")
    : "${memory:=${planned_megabytes}M}"
    local minutes=$(((planned_seconds * 3 / 2 + signal_before + 59) / 60))
    ((minutes >= 15)) || minutes=15
    : "${time_limit:=$(printf '%d:%02d:00' $((minutes / 60)) $((minutes % 60)))}"
    printf 'plan: %s on %s rank(s)\n' "$planned_sentence" "$ranks" >&2
}

# shellcheck disable=SC2154  # `here` is the folder of the script that sources this file
# fill SCRIPT WORDS...: the script with its job's lines, where to find this folder and the program, and its arguments.
fill() {
    local script=$1 line
    shift
    while IFS= read -r line; do
        case $line in
            '#SBATCH --signal='* | '# '*) ;;
            'set -uo pipefail')
                job_lines
                printf 'export ESPALIER=%q ESPALIER_SLURM=%q ESPALIER_LAUNCHER=%q\nset --' "$ESPALIER" "$here" "$launcher"
                (($# == 0)) || printf ' %q' "$@"
                printf '\n%s\n' "$line"
                ;;
            *) printf '%s\n' "$line" ;;
        esac
    done <"$script"
}

# shellcheck disable=SC2154
# The program: ESPALIER, the build of this clone, or what PATH has.
find_program() {
    ESPALIER=${ESPALIER:-$here/../build/release/espalier}
    [[ -x $ESPALIER ]] || ESPALIER=$(command -v espalier) || {
        printf '%s: espalier is not built; cmake --preset release && cmake --build --preset release, or set ESPALIER\n' "${0##*/}" >&2
        exit 2
    }
    ESPALIER=$(cd "$(dirname "$ESPALIER")" && pwd)/$(basename "$ESPALIER")
}
