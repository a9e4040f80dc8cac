# shellcheck shell=bash
# For the scripts that submit: the options of a Slurm job among those of espalier.
#
# take_job_options WORDS...: sets the variables below from the words it knows and leaves the others in `rest`.

# shellcheck disable=SC2034,SC2016
job_usage='  --nodes N            number of machines [1]
  --gpus-per-node N    GPUs of each machine; one rank runs on each. Or TYPE:N, as for sbatch
  --ntasks-per-node N  ranks of each machine, for jobs without GPUs [1]
  --gpu-type NAME      for the plan: kind of GPU: h100, h200, gh200, a100, a100-40gb [h100]
  --rates FILE         for the plan, instead of --gpu-type: rates that `espalier doctor --rates FILE` measured on such a
                       machine [ESPALIER_RATES]
  --cpus-per-task N    cores of a rank [8 with a GPU, else 1]
  --time T             time limit of a job [one and a half times the planned time, from 15 minutes to 24 hours]; a run that
                       takes longer is requeued
  --mem SIZE           host memory of a machine [as planned]
  --signal-before S    seconds before the time limit at which the run is told to stop after its present block or step
                       [300, or more when one takes longer by the plan]
  --partition, --account, --qos, --constraint, --job-name
  --launcher srun|mpirun
  --sbatch OPTION      any other option of sbatch; may be repeated
  --dry-run            print the script, do not submit'

# asks_for_help WORDS...
asks_for_help() { [[ " $* " == *" --help "* || " $* " == *" -h "* ]]; }

# given_as NAME: whether `rest`, or the file of its --config, has option NAME of espalier.
given_as() {
    local i config=''
    for ((i = 0; i < ${#rest[@]}; ++i)); do
        case ${rest[i]} in
            "--$1" | "--$1="*) return 0 ;;
            --config) config=${rest[i + 1]:-} ;;
            --config=*) config=${rest[i]#*=} ;;
        esac
    done
    [[ -r $config ]] && grep -q "^[[:space:]]*$1[[:space:]]*=" "$config"
}

refuse() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 2
}

# The variables are read by the scripts that source this file.
# shellcheck disable=SC2034
take_job_options() {
    nodes=1 gpus_per_node='' ntasks_per_node='' gpu_type=h100 rates=${ESPALIER_RATES:-} cpus_per_task='' time_limit='' memory='' signal_before=''
    launcher=srun dry_run='' job_name='' sbatch_options=() rest=()
    local name value
    while (($#)); do
        name=$1
        if [[ $name == --dry-run ]]; then dry_run=yes && shift && continue; fi
        case ${name%%=*} in
            --nodes | --gpus-per-node | --ntasks-per-node | --gpu-type | --gpu | --rates | --cpus-per-task | --time | --mem | \
                --partition | --account | --qos | --constraint | --job-name | --signal-before | --launcher | --sbatch) ;;
            *) rest+=("$name") && shift && continue ;;
        esac
        if [[ $name == *=* ]]; then
            value=${name#*=} name=${name%%=*}
        elif (($# > 1)); then
            value=$2 && shift
        else
            value=''
        fi
        shift
        [[ -n $value ]] || refuse "$name needs a value"
        case $name in
            --nodes) nodes=$value ;;
            --gpus-per-node) gpus_per_node=$value ;;
            --ntasks-per-node) ntasks_per_node=$value ;;
            --gpu-type | --gpu) gpu_type=$value rates='' ;;
            --rates) rates=$value ;;
            --cpus-per-task) cpus_per_task=$value ;;
            --time) time_limit=$value ;;
            --mem) memory=$value ;;
            --signal-before) signal_before=$value ;;
            --launcher) launcher=$value ;;
            --job-name) job_name=$value && sbatch_options+=("$name=$value") ;;
            --sbatch) sbatch_options+=("$value") ;;
            *) sbatch_options+=("$name=$value") ;;
        esac
    done
    local gpus=${gpus_per_node##*:}
    for value in nodes="$nodes" gpus-per-node="${gpus:-1}" ntasks-per-node="${ntasks_per_node:-1}" \
        cpus-per-task="${cpus_per_task:-1}" signal-before="${signal_before:-1}"; do
        [[ ${value#*=} =~ ^[1-9][0-9]*$ ]] || refuse "--${value%%=*} ${value#*=} is not a whole number above zero"
    done
    [[ $launcher == srun || $launcher == mpirun ]] || refuse "--launcher $launcher is not srun or mpirun"
    [[ -z $gpus || -z $ntasks_per_node || $gpus == "$ntasks_per_node" ]] ||
        refuse "--ntasks-per-node $ntasks_per_node contradicts --gpus-per-node $gpus_per_node: one rank runs on each GPU"
    tasks_per_node=${gpus:-${ntasks_per_node:-1}}
    ranks=$((nodes * tasks_per_node))
    : "${cpus_per_task:=$([[ -n $gpus_per_node ]] && printf 8 || printf 1)}"
}

# Adds --device cuda to `rest`: else a node whose driver fails would compute on its CPU, for days.
ask_for_gpus() {
    [[ -z $gpus_per_node ]] || given_as device || rest+=(--device cuda)
}

# A program without CUDA would fail on the GPUs' nodes, after hours in the queue. The script can be looked at all the same.
check_program() {
    [[ -n $gpus_per_node && $("$ESPALIER" --version) == *'without CUDA'* ]] || return 0
    local sentence="--gpus-per-node $gpus_per_node, but $ESPALIER is built without CUDA"
    sentence+="; build it with -DESPALIER_CUDA=ON"
    [[ -n $dry_run ]] || refuse "$sentence"
    printf '%s: %s\n' "${0##*/}" "$sentence" >&2
}

# Lines "#SBATCH ..." for what was taken; the time, the memory and the signal come from the plan when they were not given.
job_lines() {
    printf '#SBATCH --nodes=%s\n#SBATCH --ntasks-per-node=%s\n#SBATCH --cpus-per-task=%s\n' "$nodes" "$tasks_per_node" "$cpus_per_task"
    [[ -z $gpus_per_node ]] || printf '#SBATCH --gpus-per-node=%s\n' "$gpus_per_node"
    printf '#SBATCH --time=%s\n#SBATCH --mem=%s\n' "$time_limit" "$memory"
    # mpirun's ranks get a signal through the batch shell only.
    printf '#SBATCH --signal=%sUSR1@%s\n' "$([[ $launcher == mpirun ]] && printf 'B:')" "$signal_before"
    local option
    for option in "${sbatch_options[@]}"; do
        if [[ $option == *[[:space:]]* && $option == *=* ]]; then option="${option%%=*}=\"${option#*=}\""; fi
        printf '#SBATCH %s\n' "$option"
    done
}

# Options that a job without GPUs needs on the same cluster, as `small_job_options`: where it may run and who pays.
collector_options() {
    small_job_options=(--ntasks=1 --time=10)
    local option
    for option in "${sbatch_options[@]}"; do
        case $option in
            --partition=* | --account=* | --qos=* | --reservation=* | --clusters=* | -[pAqM]*) small_job_options+=("$option") ;;
        esac
    done
}

# seconds_of LIMIT: of a time limit as sbatch takes it: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:...].
seconds_of() {
    local text=$1 days=0 fields
    [[ $text =~ ^([0-9]+-)?[0-9]+(:[0-9]+){0,2}$ ]] || refuse "--time $text is not a time limit as sbatch takes it"
    if [[ $text == *-* ]]; then days=${text%%-*} text=${text#*-}; fi
    IFS=: read -ra fields <<<"$text"
    if [[ $1 == *-* || ${#fields[@]} == 3 ]]; then
        printf '%d' $((((10#$days * 24 + 10#${fields[0]}) * 60 + 10#${fields[1]:-0}) * 60 + 10#${fields[2]:-0}))
    else
        printf '%d' $((10#${fields[0]} * 60 + 10#${fields[1]:-0}))
    fi
}

# plan_job WORDS...: asks `espalier plan` for time and memory of `prune WORDS`, or of `finetune WORDS` when `command`
# says so, on the job's ranks, and says what it foresees.
plan_job() {
    local words=(--ranks "$ranks" --gpus-per-node "$tasks_per_node")
    [[ ${command:-prune} != finetune ]] || words+=(--finetune)
    local plan block_seconds first_seconds measured needed=cpu
    if [[ -n $rates ]]; then
        [[ -z $gpus_per_node ]] || needed=gpu
        measured=$(sed -n 's/^ *"kind": "\([a-z]*\)".*/\1/p' "$rates" 2>/dev/null) || measured=''
        [[ -z $measured || $measured == "$needed" ]] ||
            refuse "--rates $rates are of a $measured, but the job computes on ${needed}s (run espalier doctor --rates there)"
        words+=(--rates "$rates")
    elif [[ -n $gpus_per_node ]]; then
        words+=(--gpu "$gpu_type")
    else
        words+=(--gpu cpu)
        [[ " $*" == *" --threads"* ]] || words+=(--threads "$cpus_per_task")
    fi
    [[ -n $gpus_per_node || -n $rates ]] || printf 'No --gpus-per-node: a job on CPUs, %s core(s) a rank.\n' "$cpus_per_task" >&2
    plan=$("$ESPALIER" plan --json "${words[@]}" "$@") || exit $?
    printf 'The plan (espalier plan, %s):\n' "$(printf '%s ' "${words[@]}")" >&2
    "$ESPALIER" plan "${words[@]}" "$@" | sed '/^phase of a block/,$d; /^  [A-Za-z].* [KMGT]iB$/d; s/^/  /' | grep -v '^ *$' >&2
    # The first block also waits for the dense pass to its group.
    read -r planned_seconds block_seconds first_seconds planned_megabytes < <(python3 -c '
import json, math, sys
plan, per_node = json.load(sys.stdin), int(sys.argv[1])
if "step_seconds" in plan:  # of fine-tuning
    between, before = plan["step_seconds"] + plan["look_seconds"], plan["load_seconds"] + plan["teacher_seconds"]
else:
    between, before = plan["block_seconds"], plan["dense_seconds"]
run, host = plan["run_seconds"], plan["host_bytes"]
if "finetune" in plan:  # the last stage of pruning
    last = plan["finetune"]
    run, host = run + last["run_seconds"], max(host, last["host_bytes"])
    between = max(between, last["step_seconds"] + last["look_seconds"])
    before = max(before, last["load_seconds"] + last["teacher_seconds"])
print(math.ceil(run), math.ceil(between), math.ceil(between + before), math.ceil(host * per_node * 1.25 / 2**20))
' "$tasks_per_node" <<<"$plan")
    : "${memory:=${planned_megabytes}M}"
    # The run stops between two blocks, or steps, which must end before the limit, and be written.
    # (Or, with fewer ranks than block groups, between two dense blocks on the way to the next round.)
    local enough=$((block_seconds * 3 / 2 + 120))
    : "${signal_before:=$((enough > 300 ? enough : 300))}"
    if [[ -z $time_limit ]]; then
        local minutes=$(((planned_seconds * 3 / 2 + signal_before + 59) / 60)) most=$((24 * 60))
        ((minutes <= most)) || minutes=$most
        local least=$(((signal_before + first_seconds * 3 / 2) / 60 + 10))
        ((minutes >= least)) || minutes=$least
        time_limit=$(printf '%d:%02d:00' $((minutes / 60)) $((minutes % 60)))
    fi
    local limit
    limit=$(seconds_of "$time_limit") || exit $?
    ((limit > signal_before + first_seconds)) ||
        refuse "--time $time_limit does not hold one block or step ($first_seconds s by the plan) before the signal $signal_before s before its end: the run would never finish one; give more --time, or more ranks"
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
    if [[ -n ${ESPALIER:-} ]]; then
        [[ -x $ESPALIER ]] || refuse "ESPALIER is set to $ESPALIER, which is no program"
    else
        ESPALIER=$here/../build/release/espalier
        [[ -x $ESPALIER ]] || ESPALIER=$(command -v espalier) ||
            refuse "espalier is not built; cmake --preset release && cmake --build --preset release, or set ESPALIER"
    fi
    ESPALIER=$(cd "$(dirname "$ESPALIER")" && pwd)/$(basename "$ESPALIER")
}

# submit SCRIPT OPTIONS...: the number of the job.
submit() {
    command -v sbatch >/dev/null || refuse "there is no sbatch here; log in to the cluster, or give --dry-run"
    local script=$1 job
    shift
    job=$(sbatch --parsable "$@" <<<"$script") || exit $?
    printf '%s' "${job%%;*}"
}

# How to tell a job to stop after its present block: mpirun's ranks hear of it through the batch shell.
stop_command() {
    printf 'scancel %s--signal=USR1' "$([[ $launcher == mpirun ]] && printf -- '--batch ')"
}
