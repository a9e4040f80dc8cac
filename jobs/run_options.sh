# shellcheck shell=bash disable=SC2034,SC2154
# For compare.sh: the options of one run, its own before those of the command line, without those of no use to it.

declare -A option_value option_origin # by name; a value is empty for a switch
option_order=()

# collect ORIGIN WORD...: take options such as --seed 1 --hold-mask; the first of a name stays.
collect() {
    local origin=$1 name value
    shift
    while (($#)); do
        [[ $1 == --?* ]] || refuse "'$1' is not an option of espalier prune"
        name=${1%%=*} value=''
        if [[ $1 == *=* ]]; then
            value=${1#*=}
        elif (($# > 1)) && [[ $2 != --* ]]; then
            value=$2
            shift
        fi
        shift
        [[ -z ${option_origin[$name]:-} ]] || continue
        option_order+=("$name")
        option_value[$name]=$value option_origin[$name]=$origin
    done
}

# collect_for ROW: all options of a row, its own before those of the command line.
collect_for() {
    local words common=(--pattern "$pattern")
    read -r -a words <<<"${own_options[$1]}"
    [[ -z $sparsity ]] || common+=(--sparsity "$sparsity")
    [[ -z $samples ]] || common+=(--samples "$samples")
    [[ -z $sequence_length ]] || common+=(--sequence-length "$sequence_length")
    option_value=() option_origin=() option_order=()
    collect own "${words[@]}"
    collect shared "${shared[@]}"
    collect shared "${common[@]}"
}

method_now() {
    local of_preset=wanda++
    case ${option_value[--preset]:-} in
        fast) of_preset=sparsegpt ;;
        best) of_preset=reconstruct ;;
    esac
    printf '%s' "${option_value[--method]:-$of_preset}"
}

# can_use NAME: whether the row whose options are collected has a use for an option.
can_use() {
    case $1 in
        --ro-* | --hold-mask) [[ $(method_now) == ro || $(method_now) == *+ro || $(method_now) == wanda++* ]] ;;
        --alpha) [[ $(method_now) == rgs* || $(method_now) == wanda++* ]] ;;
        --sparsity) [[ ${option_value[--pattern]} == unstructured ]] ;;
    esac
}

# list_options [NAME...]: set `options` to the collected ones (of these names), without shared ones of no use.
list_options() {
    local name
    options=()
    for name in "${option_order[@]}"; do
        (($# == 0)) || [[ " $* " == *" $name "* ]] || continue
        [[ ${option_origin[$name]} == own ]] || can_use "$name" || continue
        options+=("$name")
        [[ -z ${option_value[$name]} ]] || options+=("${option_value[$name]}")
    done
}
