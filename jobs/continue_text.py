#!/usr/bin/env python3
"""How models go on with a text: what anyone sees of pruning at once.

    continue_text.py --model DIR --model RUN ... --prompt "The capital of France" [--tokens 64]

Each model, a Hugging Face folder or a run folder, continues each prompt; `espalier generate` draws the tokens. The same
seed draws by the same numbers from each, so that two models part where they find other tokens likely. The default takes
the most likely token each time. The tokenizer is the model's own or, of a run, that of the model it began with.
Exit status 2 and one sentence on stderr when something does not fit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Optional

from formats.json_file import InputRefused
from formats.numbers import positive

# HDF5's locks fail on many network mounts. HDF5 reads this when it is loaded.
os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"
try:
    import h5py
    import numpy as np

    from formats.checkpoint_folder import locate_model_folder
    from formats.text_tokenizer import TextTokenizer, load_tokenizer, optional_object
except ModuleNotFoundError as missing:
    sys.exit(f"continue_text.py: the Python package {missing.name} is missing; run "
             "jobs/virtual_environment.sh build/venv jobs/requirements.txt and then this with build/venv/bin/python")

PROGRAM = Path(__file__).resolve().parents[1] / "build" / "release" / "espalier"


def folder_of_tokenizer(model: Path) -> Path:
    """Of a run the model that it began with, through all runs between."""
    for _ in range(100):
        manifest = model / "manifest.json"
        if not manifest.exists():
            return model
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
            model = model / content["base" if "base" in content else "model"]["path"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputRefused(f"{manifest} does not say of which model it is a run ({error})") from error
    raise InputRefused(f"{model} is a run of itself")


def ends_of_text(folder: Path) -> set[int]:
    """The token ids at which a model's text ends."""
    for name in ("generation_config.json", "config.json"):
        found = optional_object(locate_model_folder(folder) / name).get("eos_token_id")
        if found is not None:
            return set(found if isinstance(found, list) else [found])
    return set()


def continue_prompts(options: argparse.Namespace, model: Path, tokenizer: TextTokenizer, ends: set[int]) -> list[str]:
    """The continuation of each prompt, up to the end of its text."""
    texts = []
    with tempfile.TemporaryDirectory() as folder:
        for prompt in options.prompt:
            ids = tokenizer.encode(prompt)
            if not ids:
                raise InputRefused("a prompt is empty, and the tokenizer puts no token in front of it")
            prompts, output = Path(folder) / "prompts.npy", Path(folder) / "tokens.h5"
            np.save(prompts, np.array([ids], dtype=np.int32))
            command = [options.espalier, "generate", "--model", model, "--prompts", prompts, "--samples", 1,
                       "--sequence-length", len(ids) + options.tokens, "--temperature", options.temperature,
                       "--top-p", options.top_p, "--seed", options.seed, "--output", output]  # fmt: skip
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise InputRefused((done.stderr.strip().splitlines() or [f"{options.espalier} failed"])[-1][:500])
            with h5py.File(output) as file:
                drawn = file["input_ids"][0].tolist()
                end = next((place for place in range(len(ids), len(drawn)) if drawn[place] in ends), len(drawn))
                # Decoders may strip a text's first blank: what follows is cut off the whole.
                whole, begin = tokenizer.decode(drawn[:end]), tokenizer.decode(ids)
                texts.append(whole[len(begin) :] if whole.startswith(begin) else whole)
    return texts


def main(arguments: Optional[list[str]] = None) -> int:
    """Read, generate, print; map refusals to exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, action="append", required=True, help="model or run folder; may be repeated")
    parser.add_argument("--prompt", action="append", required=True, help="text to continue; may be repeated")
    parser.add_argument("--tokenizer", type=Path, help="model folder, when the models' own is not to be used")
    parser.add_argument("--tokens", type=positive, default=64, help="tokens to draw (default 64)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default: always the most likely token")
    parser.add_argument("--top-p", type=float, default=1.0, help="draw among the most likely of this probability")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--espalier", type=Path, default=PROGRAM, help="the program (default build/release/espalier)")
    options = parser.parse_args(arguments)
    try:
        if not options.espalier.exists():
            raise InputRefused(f"{options.espalier} is no program; cmake --preset release && cmake --build --preset release")
        for model in options.model:
            if not model.is_dir():
                raise InputRefused(f"{model} is no folder of a model or a run")
        for model in options.model:
            folder = options.tokenizer or folder_of_tokenizer(model)
            texts = continue_prompts(options, model, load_tokenizer(folder, None), ends_of_text(folder))
            print(f"{model}:")
            for prompt, text in zip(options.prompt, texts):
                print(f"  {prompt}|{text}", flush=True)
    except (InputRefused, OSError) as error:
        print(f"continue_text: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
