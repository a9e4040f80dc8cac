# shellcheck shell=bash
# For the batch scripts of this folder: starts espalier on the job's tasks and acts on how it ends.
#
#   launch prune --model ...      srun --mpi=pmix (ESPALIER_SRUN_OPTIONS for others), or mpirun with
#                                 ESPALIER_LAUNCHER=mpirun
#   finish STATUS                 status 75 (stopped by a signal, everything saved): the job is requeued, and the same
#                                 command goes on where it stopped; any other status ends the job with it

launch() {
    local program=${ESPALIER:-espalier} threads=${SLURM_CPUS_PER_TASK:-1}
    export OMP_NUM_THREADS=$threads
    printf '%s: job %s, restart %s, %s task(s) on %s\n' "$(date -u +%FT%TZ)" "$SLURM_JOB_ID" "${SLURM_RESTART_COUNT:-0}" \
        "${SLURM_NTASKS:-1}" "${SLURM_JOB_NODELIST:-$(hostname)}"
    if [[ ${ESPALIER_LAUNCHER:-srun} == mpirun ]]; then
        # Only this shell gets the job's signals then (--signal=B:USR1@...); mpirun passes them on to every rank.
        mpirun --bind-to none -x OMP_NUM_THREADS "$program" "$@" &
        local launched=$! status
        trap 'kill -USR1 "$launched"' USR1
        wait "$launched"
        status=$?
        while kill -0 "$launched" 2>/dev/null; do  # a trap ends wait early
            wait "$launched"
            status=$?
        done
        return "$status"
    fi
    local options=()
    read -ra options <<<"${ESPALIER_SRUN_OPTIONS:---mpi=pmix}"
    # srun does not inherit --cpus-per-task in all versions of Slurm.
    srun "${options[@]}" --kill-on-bad-exit=1 --cpus-per-task="$threads" "$program" "$@"
}

finish() {
    local status=$1
    if ((status != 75)); then
        printf '%s: espalier ended with status %s\n' "$(date -u +%FT%TZ)" "$status"
        exit "$status"
    fi
    printf '%s: stopped in time, all finished blocks are saved; the job goes back to the queue\n' "$(date -u +%FT%TZ)"
    if scontrol requeue "$SLURM_JOB_ID"; then
        sleep 120  # until Slurm ends this script; an exit of its own could pass for the end of the job
        exit 75
    fi
    # Some sites forbid it: the same script as a new job.
    local again=espalier_again_$SLURM_JOB_ID.sbatch
    scontrol write batch_script "$SLURM_JOB_ID" "$again" && sbatch "$again"
    exit $?
}
