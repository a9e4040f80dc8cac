#!/usr/bin/env bash
# Prune one model with several methods and compare their perplexities; `compare.sh --help` explains.
set -euo pipefail

usage() {
    cat <<'END'
compare.sh --model DIR --calibration FILE --evaluation FILE --output DIR [options] [-- options of espalier prune]

Measures the dense model, then prunes, inspects and evaluates it with every method. What is complete is not done again,
so after an interruption the same command goes on, and with more methods it adds those.

  --model DIR            Hugging Face folder
  --calibration FILE     tokens for pruning
  --evaluation FILE      tokens for perplexity
  --requests FILE        downstream tasks to score every model in, from prepare_requests.py
  --output DIR           gets runs/, perplexity/, scores/, logs/, comparison.json and report.html
  --methods "A B ..."    methods, or presets: fast, paper, best [default: magnitude wanda sparsegpt rgs ro wanda++]
  --extra-run NAME "OPTIONS"
                         one more run under a name of its own, with options of espalier prune, separated by blanks;
                         they replace the common ones; may be repeated
  --pattern PATTERN      2:4, 4:8, N:M or unstructured [default: 2:4]
  --sparsity S           with --pattern unstructured [default: 0.5]
  --samples N            calibration samples [default: 128, or all that the file holds]
  --sequence-length T    tokens of a calibration sample and of an evaluation window
                         [default: the calibration file's, at most 2048; 2048 for evaluation]
  --espalier PATH        program [default: build/release/espalier of this source tree, or the one in PATH]
  --launcher "COMMAND"   put before prune, evaluate and score, e.g. "mpirun -n 2"

Options after -- go to every run that can use them: --ro-* and --hold-mask to ro and wanda++, --alpha to rgs and
wanda++; --device and --threads go to evaluate and score as well. The table and the report need Python 3.9 or later,
without other packages. The exit status is that of the first step that fails, 2 for a wrong command line.
END
}

refuse() {
    printf 'compare.sh: %s\n' "$1" >&2
    exit 2
}

# ---- command line ----------------------------------------------------------------------------------------------------

model='' calibration='' evaluation='' requests='' output='' espalier='' samples='' sequence_length='' sparsity=''
pattern=2:4
methods='magnitude wanda sparsegpt rgs ro wanda++'
launcher=()
shared=()        # options after --
names=(dense)    # of the rows; 0 is the dense model
own_options=('') # of the rows, as words

add_row() {
    local known folder
    folder=$(folder_name "$1")
    [[ $1 == [[:alnum:]]* ]] || refuse "the name '$1' does not begin with a letter or a digit"
    for known in "${names[@]}"; do
        [[ $(folder_name "$known") != "$folder" ]] || refuse "two runs would be called '$folder'"
    done
    names+=("$1")
    own_options+=("$2")
}

folder_name() {
    printf '%s' "${1//[^[:alnum:]._+-]/_}"
}

parse_command_line() {
    local extra_names=() extra_options=() method i
    while (($#)); do
        case $1 in
            --help) usage && exit 0 ;;
            --) shared=("${@:2}") && break ;;
            --extra-run)
                (($# > 2)) || refuse "--extra-run takes a name and options"
                extra_names+=("$2") extra_options+=("$3")
                shift 3
                ;;
            *)
                (($# > 1)) || refuse "$1 is not an option with a value (--help lists them)"
                set_value "$1" "$2"
                shift 2
                ;;
        esac
    done
    for method in $methods; do
        case $method in
            fast | paper | best) add_row "$method" "--preset $method" ;;
            *) add_row "$method" "--method $method" ;;
        esac
    done
    for i in "${!extra_names[@]}"; do add_row "${extra_names[i]}" "${extra_options[i]}"; done
}

set_value() {
    case $1 in
        --model) model=$2 ;;
        --calibration) calibration=$2 ;;
        --evaluation) evaluation=$2 ;;
        --requests) requests=$2 ;;
        --output) output=$2 ;;
        --methods) methods=$2 ;;
        --pattern) pattern=$2 ;;
        --sparsity) sparsity=$2 ;;
        --samples) samples=$2 ;;
        --sequence-length) sequence_length=$2 ;;
        --espalier) espalier=$2 ;;
        --launcher) read -r -a launcher <<<"$2" ;;
        *) refuse "$1 is not an option (--help lists them)" ;;
    esac
}

check_command_line() {
    local name row
    for name in model calibration evaluation output; do
        [[ -n ${!name} ]] || refuse "--$name is missing (--help lists the options)"
    done
    [[ -z $sparsity || $pattern == unstructured ]] || refuse "--sparsity has no effect with --pattern $pattern"
    [[ $samples$sequence_length =~ ^[0-9]*$ ]] || refuse "--samples and --sequence-length are whole numbers"
    [[ -r $calibration ]] || refuse "--calibration $calibration cannot be read"
    [[ -r $evaluation ]] || refuse "--evaluation $evaluation cannot be read"
    [[ -z $requests || -r $requests ]] || refuse "--requests $requests cannot be read"
    for row in "${!names[@]}"; do collect_for "$row"; done
}

find_espalier() {
    local built
    built=$(dirname "$here")/build/release/espalier
    [[ -n $espalier || ! -x $built ]] || espalier=$built
    espalier=$(command -v "${espalier:-espalier}") ||
        refuse "there is no espalier program: build it, or use --espalier PATH"
}

find_python() {
    local candidate code='import sys; print(sys.executable); sys.exit(sys.version_info < (3, 9))'
    for candidate in python3 python3.{13..9} python; do
        python=$("$candidate" -c "$code" 2>/dev/null) && return
    done
    python=''
    printf 'compare.sh: no Python 3.9 or later here, so there will be no table and no report\n' >&2
}

# One output folder holds one comparison: numbers of other tokens, tasks or another model do not mix. Tasks may be added
# later; from then on they are part of it.
keep_request() {
    local request known=''
    mkdir -p "$output"/{runs,perplexity,scores,logs}
    if [[ -e $output/request.txt ]]; then
        known=$(sed -n 's/^requests //p' "$output/request.txt")
        [[ -n $requests ]] || requests=$known
    fi
    request="model $(realpath "$model")"$'\n'"evaluation $(realpath "$evaluation")"$'\n'"sequence length $window"
    if [[ -e $output/request.txt ]] &&
        [[ $(sed '/^requests /d' "$output/request.txt") != "$request" || (-n $known && $(realpath "$requests") != "$known") ]]; then
        refuse "$output holds another comparison ($(tr '\n' ';' <"$output/request.txt" | sed 's/;$//; s/;/, /g'))"
    fi
    [[ -z $requests ]] || request+=$'\n'"requests $(realpath "$requests")"
    printf '%s\n' "$request" >"$output/request.txt"
}

# ---- time left -------------------------------------------------------------------------------------------------------

measured_seconds=0 measured_passes=0 windows=0

# prune_passes: cost of the run whose options are collected, in forward passes of one sample through the model; a
# backward pass costs two. Masking alone takes one pass for the statistics and one to go on, SparseGPT's sums and
# updates weigh about four more, regional gradients and optimisation add their backward passes, a reconstruction those
# of its epochs. The preset best does that with more samples where there are few, and trains the whole model, which
# takes seven passes a step and one through the dense model; a sample that is drawn takes as long as two.
prune_passes() {
    local n rounds drawn
    n=$(whole_option --samples 128) rounds=$(whole_option --ro-rounds 5)
    drawn=$(whole_option --ro-samples $((n < 32 ? n : 32)))
    local method passes=2  # statistics, and on to the next block
    method=$(method_now)
    [[ $method != rgs* && $method != wanda++* ]] || passes=$((passes + 2))
    [[ $method != *sparsegpt* ]] || passes=$((passes + 4))
    [[ $method != *reconstruct ]] || passes=$((passes + 6 + 3 * $(whole_option --epochs 10)))
    if [[ ${option_value[--preset]:-} == best ]]; then
        local added=$((16384 / (n * window) - 1)) added_at_the_end=$((24576 / (n * window) - 1)) epochs=1
        added=$((added < 0 ? 0 : added > 3 ? 3 : added))
        added_at_the_end=$((added_at_the_end < 1 ? 1 : added_at_the_end > 7 ? 7 : added_at_the_end))
        [[ $calibration != self:* ]] || epochs=3
        passes=$(((1 + added) * (8 + 3 * $(whole_option --epochs 2)) + (1 + added_at_the_end) * (1 + 7 * epochs)))
        passes=$((passes + 2 * (added + added_at_the_end)))
    fi
    if [[ $method == ro || $method == *+ro || $method == wanda++* ]]; then
        printf '%d' $(((passes + 2) * n + 4 * rounds * drawn))
    else
        printf '%d' $((passes * n))
    fi
}

# whole_option NAME DEFAULT: a collected option if it is a whole number; what is not is for espalier to refuse.
whole_option() {
    local value=${option_value[$1]:-}
    [[ $value =~ ^[0-9]+$ ]] || value=$2
    printf '%d' "$((10#$value))"
}

# number_in FILE KEY: whole part of a number in a JSON file.
number_in() {
    sed -n "/\"$2\"/ { s/.*\"$2\": *\([0-9]*\).*/\1/p; q }" "$1"
}

measure() {
    measured_seconds=$((measured_seconds + ${1:-0}))
    measured_passes=$((measured_passes + ${2:-0}))
}

# announce ROW: say what comes, and how long this and all later rows will take at the speed measured so far.
announce() {
    local row passes=0 left=''
    for ((row = $1; row < ${#names[@]}; row++)); do
        collect_for "$row"
        is_evaluated "${names[row]}" || passes=$((passes + $(prune_passes) + windows))
    done
    if ((passes && measured_passes)); then
        left=", about $(duration $((passes * measured_seconds / measured_passes))) left for all"
    fi
    printf '\n[%d/%d] %s%s\n' "$1" $((${#names[@]} - 1)) "${names[$1]}" "$left"
}

duration() {
    if (($1 < 60)); then
        printf '%d s' "$1"
    elif (($1 < 3600)); then
        printf '%d min' $((($1 + 30) / 60))
    else
        printf '%d h %02d min' $(($1 / 3600)) $(($1 % 3600 / 60))
    fi
}

# ---- steps -----------------------------------------------------------------------------------------------------------

# step NAME ACTION COMMAND...: run a command, its output also into a log (of inspect, whose table is long, only the
# last line is shown); leave with its status when it fails.
step() {
    local log status=0
    log=$output/logs/$(folder_name "$1").$2.log
    if [[ $2 == inspect ]]; then
        "${@:3}" >"$log" 2>&1 || status=$?
        tail -n 1 "$log"
    else
        "${@:3}" 2>&1 | tee -i "$log" || status=$?
    fi
    ((status == 0)) && return
    printf 'compare.sh: %s of %s ended with status %d; its output is in %s\n' "$2" "$1" "$status" "$log" >&2
    exit "$status"
}

perplexity_file() {
    printf '%s/perplexity/%s.json' "$output" "$(folder_name "$1")"
}

folder_of() {
    if [[ $1 == dense ]]; then printf '%s' "$model"; else printf '%s/runs/%s' "$output" "$(folder_name "$1")"; fi
}

# is_newer FILE NAME INPUT: whether a result is there and newer than the model and what it was measured with.
is_newer() {
    local folder
    folder=$(folder_of "$2")
    [[ -s $1 && $1 -nt $3 && $1 -nt $folder/manifest.json && $1 -nt $folder/config.json ]]
}

is_evaluated() {
    is_newer "$(perplexity_file "$1")" "$1" "$evaluation"
}

# evaluate NAME: with --device and --threads of the collected options.
evaluate() {
    local options
    list_options --device --threads
    step "$1" evaluate "${launcher[@]}" "$espalier" evaluate --model "$(folder_of "$1")" --tokens "$evaluation" \
        --sequence-length "$window" --json "$(perplexity_file "$1")" "${options[@]}"
}

scores_file() {
    printf '%s/scores/%s.json' "$output" "$(folder_name "$1")"
}

# score NAME: in the tasks, when there are some, with the options of evaluate.
score() {
    local options file
    [[ -n $requests ]] || return 0
    file=$(scores_file "$1")
    ! is_newer "$file" "$1" "$requests" || return 0
    list_options --device --threads
    step "$1" score "${launcher[@]}" "$espalier" score --model "$(folder_of "$1")" --requests "$requests" \
        --output "$file" "${options[@]}"
}

record() {
    local more=()
    [[ -n $python ]] || return 0
    [[ $1 == dense ]] || more=(--run "$(folder_of "$1")" --inspected)
    [[ -z $requests ]] || more+=(--scores "$(scores_file "$1")")
    "$python" "$here/comparison.py" add "$output/comparison.json" --name "$1" --perplexity "$(perplexity_file "$1")" \
        --command-line "$command_line" "${more[@]}"
}

measure_dense() {
    printf 'dense model\n'
    collect_for 0
    is_evaluated dense || evaluate dense
    score dense
    record dense
    windows=$(number_in "$(perplexity_file dense)" windows)
}

# compare_row ROW: prune, inspect, evaluate, record. Only runs that start from nothing tell about speed.
compare_row() {
    local name=${names[$1]} folder start=$SECONDS new=true options
    folder=$(folder_of "$name")
    [[ ! -e $folder ]] || new=false
    announce "$1"
    collect_for "$1"
    list_options
    step "$name" prune "${launcher[@]}" "$espalier" prune --model "$model" --calibration "$calibration" \
        --output "$folder" "${options[@]}"
    if ! is_evaluated "$name"; then
        step "$name" inspect "$espalier" inspect "$folder" --model "$model"
        evaluate "$name"
    fi
    score "$name"
    record "$name"
    [[ $new == false ]] || measure $((SECONDS - start)) $(($(prune_passes) + windows))
}

# show_so_far: the numbers that most came for, before the other rows.
show_so_far() {
    [[ -n $python ]] || return 0
    printf '\n'
    "$python" "$here/comparison.py" print "$output/comparison.json"
}

finish() {
    printf '\n'
    if [[ -z $python ]]; then
        printf 'perplexities: %s/perplexity%s\n' "$output" "${requests:+, scores: $output/scores}"
        return
    fi
    "$python" "$here/comparison.py" print "$output/comparison.json"
    "$python" "$here/report.py" --comparison "$output/comparison.json" --output "$output/report.html"
}

main() {
    local row
    parse_command_line "$@"
    check_command_line
    find_espalier
    find_python
    window=${sequence_length:-2048}
    keep_request
    measure_dense
    for ((row = 1; row < ${#names[@]}; row++)); do
        compare_row "$row"
        ((row > 2 || row == ${#names[@]} - 1)) || show_so_far
    done
    finish
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=jobs/run_options.sh
source "$here/run_options.sh"
command_line=$(printf '%q ' "$0" "$@")
python=''
main "$@"
