# shellcheck shell=bash
# For the batch scripts of this folder: starts espalier on the job's tasks and acts on how it ends.
#
#   launch prune --model ...      srun --mpi=pmix (ESPALIER_SRUN_OPTIONS for others), or mpirun with
#                                 ESPALIER_LAUNCHER=mpirun
#   finish STATUS                 status 75 (stopped by a signal, everything saved): the job is requeued, and the same
#                                 command goes on where it stopped; any other status ends the job with it

# ESPALIER, the build of this clone, or what PATH has.
find_espalier() {
    local built=${ESPALIER_SLURM:-${SLURM_SUBMIT_DIR:-.}/slurm}/../build/release/espalier
    if [[ -n ${ESPALIER:-} ]]; then
        program=$ESPALIER
    elif [[ -x $built ]]; then
        program=$built
    else
        program=espalier
    fi
}

# split_line LINE: its words as `options`, quoted as in a shell.
split_line() {
    local words
    options=()
    words=$(xargs printf '%s\n' <<<"$1") || return 1
    mapfile -t options <<<"$words"
}

launch() {
    local program threads=${SLURM_CPUS_PER_TASK:-1} word words=()
    find_espalier
    for word; do
        # A job that comes back from the queue goes on; it does not start over.
        [[ $word == --fresh && (${SLURM_RESTART_COUNT:-0} != 0 || -n ${ESPALIER_GOES_ON:-}) ]] || words+=("$word")
    done
    set -- "${words[@]}"
    export OMP_NUM_THREADS=$threads
    printf '%s: job %s, restart %s, %s task(s) on %s\n' "$(date -u +%FT%TZ)" "$SLURM_JOB_ID" "${SLURM_RESTART_COUNT:-0}" \
        "${SLURM_NTASKS:-1}" "${SLURM_JOB_NODELIST:-$(hostname)}"
    if [[ ${ESPALIER_LAUNCHER:-srun} == mpirun ]]; then
        # Only this shell gets the job's signals then (--signal=B:USR1@...); mpirun passes them on to every rank.
        local launched='' status
        trap '[[ -z $launched ]] || kill -USR1 "$launched"' USR1
        mpirun --bind-to none -x OMP_NUM_THREADS "$program" "$@" &
        launched=$!
        wait "$launched"
        status=$?
        while kill -0 "$launched" 2>/dev/null; do  # a trap ends wait early
            wait "$launched"
            status=$?
        done
        return "$status"
    fi
    local options=()
    read -ra options <<<"${ESPALIER_SRUN_OPTIONS:---mpi=pmix --cpu-bind=cores}"
    # srun does not inherit --cpus-per-task in all versions of Slurm.
    srun "${options[@]}" --kill-on-bad-exit=1 --cpus-per-task="$threads" "$program" "$@"
}

finish() {
    local status=$1
    # 138: USR1 came before espalier had begun to listen, so nothing is lost.
    if ((status != 75 && status != 138)); then
        printf '%s: espalier ended with status %s\n' "$(date -u +%FT%TZ)" "$status"
        exit "$status"
    fi
    # Said before it is done: Slurm may end this script before scontrol returns.
    printf '%s: stopped in time, all that is finished is saved; asking Slurm to requeue the job\n' "$(date -u +%FT%TZ)"
    if scontrol requeue "$SLURM_JOB_ID"; then
        sleep 120  # until Slurm ends this script; an exit of its own could pass for the end of the job
        exit 75
    fi
    # Some sites forbid it: the same script as a new job, under the same name and into the same log, if it is one that
    # slurm/*.sh filled: of one submitted by hand, what was on sbatch's command line is not known.
    local again options=(--job-name="$SLURM_JOB_NAME" --open-mode=append)
    again=$(mktemp)
    options+=(--output="$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *StdOut=//p' | head -n 1)")
    [[ -z ${SLURM_ARRAY_TASK_ID:-} ]] || options+=(--array="$SLURM_ARRAY_TASK_ID")
    if [[ -n ${ESPALIER_LAUNCHER:-} ]] && scontrol write batch_script "$SLURM_JOB_ID" "$again" &&
        sed -i 's/^set -uo pipefail$/export ESPALIER_GOES_ON=yes\n&/' "$again" && sbatch "${options[@]}" "$again"; then
        printf '%s: this job may not be requeued; a new one goes on (reports of this one have to be drawn again)\n' "$(date -u +%FT%TZ)"
    else
        printf '%s: this job may not be requeued: submit its command again to go on\n' "$(date -u +%FT%TZ)"
    fi
    rm -f "$again"
    exit 75
}
