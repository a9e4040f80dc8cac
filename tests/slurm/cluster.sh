#!/usr/bin/env bash
# A Slurm of two nodes on this one machine, with four pretended GPUs and four cores each, for tests.
#   tests/slurm/cluster.sh start FOLDER    state, logs and slurm.conf go there; prints what to export
#   tests/slurm/cluster.sh stop FOLDER
# Needs root and Debian's slurm-wlm and munge (jobs/install_dependencies.sh --tests). Partitions: low, and high, whose
# jobs preempt those of low.
set -euo pipefail

verb=${1:?start or stop} folder=$(realpath -m "${2:?FOLDER}")

stop() {
    local name pid
    for name in n1 n2 ctld munged; do
        [[ -r $folder/$name.pid ]] || continue
        pid=$(<"$folder/$name.pid")
        kill "$pid" 2>/dev/null || continue
        for _ in {1..50}; do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    done
    # Steps that were still running: those of this cluster write to its logs.
    for pid in $(pgrep slurmstepd || :); do
        if find "/proc/$pid/fd" -lname "$folder/*" 2>/dev/null | grep -q .; then kill -KILL "$pid" 2>/dev/null || :; fi
    done
}

# free_ports N: as many ports as nobody listens on.
free_ports() {
    python3 -c '
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in sockets])
' "$1"
}

configure() {
    local host ports
    host=$(hostname -s)
    read -ra ports < <(free_ports 3)
    mkdir -p "$folder"/{state,n1,n2,tmp_n1,tmp_n2}
    for i in 0 1 2 3; do [[ -e $folder/gpu$i ]] || mknod -m 666 "$folder/gpu$i" c 1 3; done
    cat >"$folder/slurm.conf" <<CONF
ClusterName=mini
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/ctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/ctld.log
SlurmdLogFile=$folder/%n.log
TmpFS=$folder/tmp_%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=bf_interval=5,sched_interval=5,requeue_delay=0
GresTypes=gpu
MpiDefault=none
ReturnToService=2
KillWait=5
MaxArraySize=100
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[1]} CPUs=4 RealMemory=8000 Gres=gpu:4
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[2]} CPUs=4 RealMemory=8000 Gres=gpu:4
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 MaxTime=INFINITE
PartitionName=high Nodes=n1,n2 PriorityTier=10 MaxTime=INFINITE
CONF
    printf 'NodeName=n1,n2 Name=gpu File=%s/gpu[0-3]\n' "$folder" >"$folder/gres.conf"
    printf 'CgroupAutomount=no\n' >"$folder/cgroup.conf"
}

start_munge() {
    install -d -o munge -m 755 "$folder/munge"
    install -o munge -m 400 <(head -c 1024 /dev/urandom) "$folder/munge/key"
    chmod 755 "$folder"
    runuser -u munge -- munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
        --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" --force
    cp "$folder/munge/pid" "$folder/munged.pid"
}

start() {
    ((EUID == 0)) || { printf 'cluster.sh: only root can start a Slurm\n' >&2 && exit 2; }
    for program in slurmctld slurmd munged; do
        command -v "$program" >/dev/null || { printf 'cluster.sh: %s is missing; jobs/install_dependencies.sh --tests\n' "$program" >&2 && exit 2; }
    done
    configure
    start_munge
    export SLURM_CONF=$folder/slurm.conf
    slurmctld
    slurmd -N n1
    slurmd -N n2
    for _ in {1..100}; do
        [[ $(sinfo -h -N -p low -t idle -o %N 2>/dev/null | sort | tr '\n' ' ') == "n1 n2 " ]] && {
            printf 'export SLURM_CONF=%q\n' "$SLURM_CONF"
            return
        }
        sleep 0.2
    done
    printf 'cluster.sh: the nodes did not become idle in 20 s; see %s\n' "$folder/*.log" >&2
    tail -n 5 "$folder"/*.log >&2
    stop
    exit 1
}

case $verb in
    start) start ;;
    stop) stop ;;
    *) printf 'cluster.sh: %s is not start or stop\n' "$verb" >&2 && exit 2 ;;
esac
