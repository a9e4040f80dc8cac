#!/usr/bin/env bash
# Runs the two commands of the README, jobs/demo.sh and tests/run.sh, on a fresh minimal system of another release, in a
# folder (chroot), from a clone of this repository's HEAD. Needs root, debootstrap and a network. Times and outcomes are
# the last lines; logs and outcome.txt go to build/systems/RELEASE/.
#   tests/systems.sh 12|13|24.04 [--only demo|tests] [--keep] [--folder DIR]
#   --only demo|tests   one of the two commands
#   --keep              leave the system in its folder; the next call with this release goes on with it as it is
#   --folder DIR        where the system is made, about 12 GB [default: build/systems/RELEASE/root]
# 12 and 13 are Debian's releases, 24.04 is Ubuntu's.
set -euo pipefail

refuse() {
    printf 'systems.sh: %s\n' "$1" >&2
    exit 2
}

repository=$(cd "$(dirname "$0")/.." && pwd)
arguments=("$@")
release='' only='' keep=false folder=''
while (($#)); do
    case $1 in
        --help) sed -n '2,9s/^# \?//p' "$0" && exit 0 ;;
        --keep) keep=true ;;
        --only | --folder)
            (($# > 1)) || refuse "$1 takes a value"
            printf -v "${1#--}" '%s' "$2"
            shift
            ;;
        -*) refuse "$1 is not an option (--help lists them)" ;;
        *)
            [[ -z $release ]] || refuse "one release at a time, not $release and $1"
            release=$1
            ;;
    esac
    shift
done
case $release in
    12) origin=Debian codename=bookworm ;;
    13) origin=Debian codename=trixie ;;
    24.04) origin=Ubuntu codename=noble ;;
    *) refuse "which release? 12, 13 (Debian) or 24.04 (Ubuntu)" ;;
esac
[[ $only =~ ^(demo|tests)?$ ]] || refuse "--only $only is neither demo nor tests"
((EUID == 0)) || refuse "chroot and mount need root"
command -v debootstrap >/dev/null || refuse "debootstrap is not here; apt-get install debootstrap"
# Mounts in a namespace of their own end with this script, whatever ends it.
if [[ $(readlink /proc/self/ns/mnt) == "$(readlink /proc/$PPID/ns/mnt)" ]]; then
    exec unshare --mount --propagation slave bash "$0" "${arguments[@]}"
fi
[[ -z $(git -C "$repository" status --porcelain --untracked-files=no) ]] ||
    printf 'systems.sh: what is not committed is not in the clone that is tested\n' >&2

logs=$repository/build/systems/$release
mkdir -p "$logs"
root=${folder:-$logs/root}
mkdir -p "$root"
root=$(cd "$root" && pwd -P)
[[ $root != / ]] || refuse "--folder / is this system itself"

# The mirror that this machine's apt uses for that distribution, else the distribution's own.
mirror() {
    local found
    # shellcheck disable=SC2016 # the format is apt's
    found=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk -v origin="$origin" '$1 == origin && $2 == origin { print $3; exit }')
    case ${found:+known}$origin in
        known*) echo "$found" ;;
        Debian) echo http://deb.debian.org/debian ;;
        Ubuntu) echo http://archive.ubuntu.com/ubuntu ;;
    esac
}

make_system() {
    local options=(--variant=minbase --include=ca-certificates) script=()
    if [[ $origin == Ubuntu ]]; then
        options+=('--components=main,universe')
        # Debian's debootstrap may know neither Ubuntu's newer names, whose script is the same for all, nor its key.
        [[ -e /usr/share/debootstrap/scripts/$codename ]] || script=(gutsy)
        if [[ ! -e /usr/share/keyrings/ubuntu-archive-keyring.gpg ]]; then
            options+=(--no-check-gpg)
            echo "Ubuntu's key (package ubuntu-keyring) is not here: signatures are not checked"
        fi
    fi
    debootstrap "${options[@]}" "$codename" "$root" "$(mirror)" "${script[@]}" >"$logs/debootstrap.log" 2>&1 ||
        { tail -n 20 "$logs/debootstrap.log" && refuse "debootstrap failed; $logs/debootstrap.log says why"; }
    # Without this file mpirun waits seconds for a name server that knows no "localhost".
    printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$(hostname)" >"$root/etc/hosts"
    # The network as it is here: names, proxies, and the certificates that were added to this machine's.
    apt-config dump | grep -iE '^Acquire::(http|https)::(Proxy|CaInfo)' >"$root/etc/apt/apt.conf.d/90host" || (($? == 1))  # 1: the host has none
    if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
        cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
        chroot "$root" update-ca-certificates >>"$logs/debootstrap.log" 2>&1
    fi
    touch "$root/etc/made-for-espalier"
}

mounted=()
attach() { # FOLDER [options of mount]: at the same place inside, and nothing that happens inside comes back
    mkdir -p "$root$1"
    mount --rbind "$1" "$root$1"
    mounted+=("$root$1")
    mount --make-rslave "$root$1"
    (($# == 1)) || mount -o "remount,bind,$2" "$root$1"
}
leave() {
    local status=$? place
    trap - EXIT
    for place in "${mounted[@]}"; do umount -R "$place" || umount -R -l "$place" || echo "systems.sh: $place is still mounted" >&2; done
    if grep -q " $root/" /proc/self/mounts; then
        printf 'systems.sh: %s has mounts left (umount -R them before you remove it)\n' "$root" >&2
    elif ! $keep; then
        rm -rf --one-file-system "$root"
    fi
    exit "$status"
}

inside() {
    local environment=(HOME=/root LANG=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin) name
    for name in $(compgen -e | grep -iE '^(PIP_.*|https?_proxy|no_proxy)$'); do environment+=("$name=${!name}"); done
    env -i "${environment[@]}" chroot "$root" bash -c "$1"
}

minutes() { printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); }

passed=true
run() { # NAME COMMAND
    local start=$SECONDS outcome=passed
    printf '%s ... (%s)\n' "$2" "$logs/$1.log"
    if ! inside "cd /root/espalier && $2" >"$logs/$1.log" 2>&1; then
        outcome=FAILED passed=false
        tail -n 25 "$logs/$1.log"
    fi
    printf '%-15s %s, %s\n' "$2" "$outcome" "$(minutes $((SECONDS - start)))" >>"$logs/outcome.txt"
}

trap leave EXIT
trap 'exit 130' INT TERM
if [[ -e $root/etc/made-for-espalier ]]; then
    echo "goes on with the system in $root, which may have packages and a build already"
    fresh="a used system"
else
    [[ -z $(ls -A "$root") ]] || { keep=true && refuse "$root is neither empty nor a system that this script made"; }
    echo "makes a minimal $origin $release in $root"
    make_system
    fresh="a fresh minimal system"
fi
cp --remove-destination "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
for place in /proc /sys /dev; do attach "$place"; done
[[ ! -d ${PIP_FIND_LINKS:-} ]] || attach "$PIP_FIND_LINKS" ro
clone=$root/root/espalier
if [[ -d $clone ]]; then
    git -C "$clone" fetch --quiet "$repository" HEAD && git -C "$clone" reset --quiet --hard FETCH_HEAD
else
    git clone --quiet --no-hardlinks "$repository" "$clone"
fi

printf '%s %s, %s, commit %s, %s\n' "$origin" "$release" "$fresh" "$(git -C "$repository" rev-parse --short HEAD)" \
    "$(date +%F)" >"$logs/outcome.txt"
[[ $only == tests ]] || run demo jobs/demo.sh
[[ $only == demo ]] || run tests tests/run.sh
# shellcheck disable=SC2016 # expanded inside
inside 'echo "GCC $(g++ -dumpfullversion), $(cmake --version | head -n 1), $(mpirun --version | head -n 1), $(python3 --version)"' \
    >>"$logs/outcome.txt" 2>&1 || echo "versions: not all of them are there" >>"$logs/outcome.txt"
cat "$logs/outcome.txt"
$passed
