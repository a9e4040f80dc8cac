#!/usr/bin/env bash
# What a little training wins back after pruning, on the demo's model; `recover.sh --help` explains.
set -euo pipefail

usage() {
    cat <<'END'
recover.sh [options]

Takes the demo's model, and its runs of wanda and wanda++ (jobs/demo.sh), trains each further in three ways on text that
the demo calibrates with, and measures all on text that was used for nothing else: perplexity, and how often the model
finds the sentence that goes on with a passage. Writes a table. About 10 minutes on 2 cores; what is there already is
not done again.

  --demo DIR          where the demo has written [default: build/demo]
  --model DIR         the dense model, where the demo was given one, with --calibration-text and --evaluation-text
  --calibration-text FILE, --evaluation-text FILE
  --output DIR        [default: build/recover]
  --steps N           training steps of 8 samples of 64 tokens [default: 14]
  --items N           items of the task [default: 100]
  --espalier PROGRAM  [default: build/release/espalier]
END
}

refuse() {
    printf 'recover.sh: %s\n' "$1" >&2
    exit 2
}

root=$(cd "$(dirname "$0")/.." && pwd)
demo=$root/build/demo output=$root/build/recover steps=14 items=100 espalier=$root/build/release/espalier
model='' calibration_text='' evaluation_text=''
while (($#)); do
    case $1 in
        --help) usage && exit 0 ;;
        --demo | --model | --calibration-text | --evaluation-text | --output | --steps | --items | --espalier)
            (($# > 1)) || refuse "$1 takes a value"
            name=${1#--}
            printf -v "${name//-/_}" '%s' "$2"
            shift 2
            ;;
        *) refuse "$1 is not an option (--help lists them)" ;;
    esac
done
for number in "$steps" "$items"; do [[ $number =~ ^[1-9][0-9]*$ ]] || refuse "'$number' is no number of steps or items"; done
[[ -x $espalier ]] || refuse "$espalier is no program; cmake --preset release && cmake --build --preset release"
: "${model:=$demo/SmolLM2-135M-Instruct}" "${calibration_text:=$demo/prose/calibration.txt}"
: "${evaluation_text:=$demo/prose/evaluation.txt}"
runs=$demo/comparison/runs
[[ -e $model/config.json && -e $runs/wanda/manifest.json && -e $runs/wanda++/manifest.json ]] ||
    refuse "$demo has no model with runs of wanda and wanda++; run jobs/demo.sh first"
mapfile -t names <"$demo/tokens/names"
evaluation=${names[1]}
python=$root/build/venv/bin/python
mkdir -p "$output"

# once FILE COMMAND...: unless FILE is there; what the command says goes into FILE.log, and is shown when it fails.
once() {
    local file=$1
    shift
    [[ ! -e $file ]] || return 0
    "$@" >"$file.log" 2>&1 || refuse "status $? of: $*"$'\n'"$(tail -n 10 "$file.log")"
}

step() { printf '[%d min %02d s] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$1"; }

step "tokens to train on, and a task of held-out prose"
held_out=16
once "$output/training-$steps.h5" "$python" "$root/jobs/prepare_tokens.py" calibration --tokenizer "$model" \
    --text "$calibration_text" --samples $((8 * steps + held_out)) --sequence-length 64 --seed 1 \
    --output "$output/training-$steps.h5"
once "$output/cloze-$items.h5" "$python" "$root/jobs/prepare_requests.py" cloze --tokenizer "$model" \
    --text "$evaluation_text" --items "$items" --context-characters 160 --output "$output/cloze-$items.h5"

# measure NAME MODEL: perplexity, the task's likelihoods, and what inspect finds.
measure() {
    once "$output/$1.perplexity.json" "$espalier" evaluate --model "$2" --tokens "$evaluation" --json "$output/$1.perplexity.json"
    once "$output/$1.scores.json" "$espalier" score --model "$2" --requests "$output/cloze-$items.h5" \
        --output "$output/$1.scores.json"
    [[ ! -e $output/$1.inspection ]] || return 0
    "$espalier" inspect "$2" >"$output/$1.inspecting" 2>"$output/$1.inspection.log" ||
        refuse "inspect finds faults: $(grep -m 3 FAULT "$output/$1.inspecting")"
    mv "$output/$1.inspecting" "$output/$1.inspection"
}

# train NAME BASE WORDS...
train() {
    local name=$1 base=$2
    shift 2
    step "$name"
    [[ -e $output/$name/metrics.json ]] ||
        "$espalier" finetune --model "$base" --data "$output/training-$steps.h5" --output "$output/$name" --steps "$steps" \
            --held-out "$held_out" --evaluate-steps $(((steps + 1) / 2)) "$@" >"$output/$name.log" 2>&1 ||
        refuse "finetune failed: $(tail -n 5 "$output/$name.log")"
    measure "$name" "$output/$name"
}

step "the dense model and the two pruned ones"
measure dense "$model"
rows=(dense)
for method in wanda wanda++; do
    base=$runs/$method
    measure "$method" "$base"
    # Updates of low rank take a higher rate than usual for a dozen steps (chosen on the held-out samples).
    train "$method, lora, lm" "$base" --train lora --loss lm --learning-rate 3e-3
    train "$method, masked-lora, kl" "$base" --train masked-lora --loss kl --teacher "$model" --learning-rate 3e-3
    train "$method, masked, kl" "$base" --train masked --loss kl --teacher "$model"
    rows+=("$method" "$method, lora, lm" "$method, masked-lora, kl" "$method, masked, kl")
done

"$python" "$root/jobs/recovery_table.py" "$output" "${rows[@]}" >"$output/table.md"
step "done; the table is $output/table.md"
cat "$output/table.md"
