#!/usr/bin/env bash
# Compares two builds: pruned bits of every method, pattern and family on one and three ranks, and what `plan` counts.
# For changes of structure, which must change none of them.
#   tests/same_bits.sh BEFORE AFTER [--device cuda] [--every N]
# BEFORE and AFTER are programs or build folders that hold one. With --device cuda they are for a GPU, or start one with
# emulated GPUs as tests/emulation/espalier does; with --every N only each N-th case runs. The status is 1 when anything
# differs, and each case that does is named.
set -euo pipefail

refuse() {
    printf 'same_bits.sh: %s\n' "$1" >&2
    exit 2
}

root=$(cd "$(dirname "$0")/.." && pwd)
programs=() device=cpu every=1
while (($#)); do
    case $1 in
        --help) sed -n '2,7s/^# \?//p' "$0" && exit 0 ;;
        --device | --every)
            (($# > 1)) || refuse "$1 takes a value"
            printf -v "${1#--}" '%s' "$2"
            shift
            ;;
        -*) refuse "$1 is not an option (--help lists them)" ;;
        *)
            program=$1
            [[ ! -d $program ]] || program=$program/espalier
            [[ -x $program ]] || refuse "$1 is neither a program nor a build folder with one"
            programs+=("$(realpath "$program")")
            ;;
    esac
    shift
done
((${#programs[@]} == 2)) || refuse "two builds are compared (--help explains)"
[[ $every =~ ^[1-9][0-9]*$ ]] || refuse "--every $every is not a number of cases"

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl_vader_single_copy_mechanism=none  # Open MPI 4.1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe OMPI_MCA_smsc=^cma              # the same, Open MPI 5.0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# make_model NAME FAMILY [options of random_model.py]
make_model() {
    /usr/bin/python3 "$root/tests/oracle/random_model.py" --family "$2" --dtype bf16 --output "$folder/$1" \
        --tokens "$folder/$1.h5" --rows 12 --length 24 "${@:3}"
}
# The files that hold weights and masks, as one hash.
bits() { cat "$1"/blocks/*.h5 "$1/non_block.h5" | sha256sum | cut -c1-16; }
# What a plan counts and how long it says that takes, without the command line and the names of the memory.
counts() { "$1" plan --json "${@:2}" | sed '/"command_line"/d; /"memory": {/,/}/d'; }

cases=0 compared=0 differing=0
due() { ((cases++ % every == 0)); }
# compare NAME FUNCTION: what it prints for the one program and for the other. One that fails is a difference, too.
compare() {
    local outcome=() program text difference
    due || return 0
    for program in "${programs[@]}"; do
        text=$("$2" "$program" 2>"$folder/log") || text="failed: $(tail -n 1 "$folder/log")"
        outcome+=("$text")
    done
    compared=$((compared + 1))
    [[ ${outcome[0]} != "${outcome[1]}" || ${outcome[0]} == failed:* ]] || return 0
    differing=$((differing + 1))
    difference=$(diff <(printf '%s\n' "${outcome[0]}") <(printf '%s\n' "${outcome[1]}")) || (($? == 1)) # they differ
    printf '%s differs:\n%s\n' "$1" "$(head -n 10 <<<"${difference:-both: ${outcome[0]}}")"
}

prune() {
    local launch=()
    ((ranks == 1)) || launch=(mpirun -n "$ranks")
    rm -rf "$folder/run"
    "${launch[@]}" "$1" prune --device "$device" --model "$folder/$model" --calibration "$folder/$model.h5" \
        --output "$folder/run" --method "$method" "${pattern[@]}" "${more[@]}" >&2 || return 1
    bits "$folder/run"
}
plan() { counts "$1" "${words[@]}"; }

make_model llama llama-wide --blocks 2
make_model qwen2 qwen2 --blocks 2 --no-tied
make_model qwen3 qwen3 --blocks 2
make_model tied llama3 --blocks 2
for model in llama qwen2 qwen3 tied; do
    for pattern_words in "--pattern 2:4" "--pattern 4:8" "--pattern unstructured --sparsity 0.6"; do
        read -r -a pattern <<<"$pattern_words"
        for method in magnitude wanda sparsegpt rgs ro wanda++; do
            more=()
            [[ $method != ro && $method != wanda++ ]] || more=(--ro-rounds 2 --ro-samples 4 --ro-learning-rate 1e-3)
            for ranks in 1 3; do compare "$method $pattern_words of $model on $ranks rank(s)" prune; done
        done
    done
done
pattern=(--pattern 2:4) model=llama method=wanda++
for more_words in "--ro-batch 4" "--block-groups 2" "--ro-learning-rate auto" "--hold-mask"; do
    read -r -a more <<<"$more_words --ro-rounds 2 --ro-samples 4"
    for ranks in 1 3; do compare "wanda++ $more_words on $ranks rank(s)" prune; done
done
for planned in "llama-2-7b --ranks 1" "llama-2-7b --ranks 3 --ro-batch 8" "llama-2-70b --ranks 8 --ro-batch 8 --block-groups 2" \
    "llama-2-70b --ranks 16 --method sparsegpt" "llama-3.1-8b --ranks 4 --method ro" "llama-2-13b --ranks 2 --method rgs"; do
    read -r -a words <<<"--gpu h100 --model synthetic:$planned"
    compare "plan of $planned" plan
done

printf '%d cases compared, %d differ\n' "$compared" "$differing"
((differing == 0))
