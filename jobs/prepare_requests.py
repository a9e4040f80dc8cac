#!/usr/bin/env python3
"""Turn items of downstream tasks into an HDF5 request file for `espalier score`.

    prepare_requests.py lm-eval --tokenizer DIR --tasks arc_easy,hellaswag [--include-path DIR] [--fewshot N]
                        [--limit N] --output REQUESTS.h5
    prepare_requests.py json-lines --tokenizer DIR --items FILE... [--delimiter " "] --output REQUESTS.h5
    prepare_requests.py cloze --tokenizer DIR --text FILE... [--items 500] [--context-characters 300] [--seed 0]
                        --output REQUESTS.h5

`lm-eval` takes tasks of lm-evaluation-harness, where it is installed, with its own prompts and examples; those of type
multiple_choice and loglikelihood. `json-lines` takes your own: each line is an object
{"context": "…", "choices": ["…", "…"], "answer": 0}; a blank (--delimiter) stands between context and choice; each file
is one task, named like it. `cloze` makes a task of any prose: which of four sentences goes on with a passage? One does;
the others are sentences of about the same length from elsewhere in the text.

What a model is asked for are the tokens of a continuation after those of its context, cut apart as
lm-evaluation-harness does: blanks at the end of a context belong to the continuation, both are tokenised together.

The output (docs/formats.md) holds the same bytes for the same input and package versions. It is written under a
temporary name and renamed. Exit status 2 and one sentence on stderr when there is nothing to write.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
from itertools import accumulate
from pathlib import Path

from formats.json_file import InputRefused
from formats.documents import read_documents
from formats.numbers import not_negative, positive

# HDF5's locks fail on many network mounts. HDF5 reads this when it is loaded, and it wins over `locking=False` below.
os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"
try:
    import h5py
    import numpy as np
    import tokenizers

    from formats.hdf5_file import write_hdf5
    from tasks.cloze import cloze_items
    from tasks.harness import harness_tasks
    from tasks.item import RequestTokenizer, Task, check_items
    from tasks.json_lines import read_json_lines
except ModuleNotFoundError as missing:
    sys.exit(f"prepare_requests.py: the Python package {missing.name} is missing; run "
             "jobs/virtual_environment.sh build/venv jobs/requirements.txt and then this with build/venv/bin/python")


def read_tasks(options: argparse.Namespace) -> tuple[list[Task], dict[str, str | int]]:
    """The tasks that the command line asks for, and where they come from."""
    if options.kind == "lm-eval":
        names = [name for name in options.tasks.split(",") if name]
        made = harness_tasks(names, options.include_path, options.fewshot, options.limit)
        given = {name: value for name in ("fewshot", "limit") if (value := getattr(options, name)) is not None}
        return made, {"lm_eval": importlib.metadata.version("lm_eval"), **given}
    if options.kind == "json-lines":
        made = [
            Task(file.stem, check_items(read_json_lines(file, options.delimiter), str(file))) for file in options.items
        ]
        return made, {"delimiter": options.delimiter}
    documents, text_sha256 = read_documents(options.text, options.document_separator)
    items = cloze_items(documents, options.items, options.context_characters, options.seed)
    return [Task("cloze", items)], {
        "dataset": ", ".join(file.name for file in options.text),
        "text_sha256": text_sha256,
        "context_characters": options.context_characters,
        "seed": options.seed,
    }


def begins(lengths: list[int]) -> np.ndarray:
    """Where each of several lists begins when they follow each other, and where the last ends."""
    return np.array(list(accumulate(lengths, initial=0)), dtype=np.int64)


def make_datasets(tasks: list[Task], tokenizer: RequestTokenizer) -> dict[str, np.ndarray]:
    """The file's datasets."""
    items = [item for task in tasks for item in task.items]
    choices = [choice for item in items for choice in item.choices]
    requests = [tokenizer.encode(choice) for choice in choices]
    int32 = {
        "context_ids": [token for request in requests for token in request.context],
        "continuation_ids": [token for request in requests for token in request.continuation],
        "characters": [len(choice.answer) for choice in choices],
        "bytes": [len(choice.answer.encode()) for choice in choices],
        "gold": [item.gold for item in items],
        "task": [number for number, task in enumerate(tasks) for _ in task.items],
    }
    datasets = {name: np.array(values, dtype=np.int32) for name, values in int32.items()}
    datasets["context_begin"] = begins([len(request.context) for request in requests])
    datasets["continuation_begin"] = begins([len(request.continuation) for request in requests])
    datasets["item_begin"] = begins([len(item.choices) for item in items])
    return datasets


def prepare(options: argparse.Namespace) -> list[Task]:
    """Read, tokenise and write; returns the tasks."""
    tokenizer = RequestTokenizer(options.tokenizer, options.add_bos)
    tasks, origin = read_tasks(options)
    repeated = {task.name for task in tasks if [other.name for other in tasks].count(task.name) > 1}
    if repeated:
        raise InputRefused(f"two tasks would be called '{sorted(repeated)[0]}'")
    attributes: dict[str, str | int | bytes] = {
        "tasks": np.bytes_(json.dumps([task.name for task in tasks])),  # of fixed length, as the program reads it
        "tokenizer_sha256": tokenizer.sha256,
        "created_by": f"prepare_requests.py {options.kind} with tokenizers {tokenizers.__version__}, h5py "
        f"{h5py.__version__}",
        **origin,
    }
    write_hdf5(options.output, make_datasets(tasks, tokenizer), attributes)
    return tasks


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The three sub-commands and their options."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--tokenizer", type=Path, required=True, help="model folder, or its tokenizer file")
    common.add_argument("--output", type=Path, required=True, help="HDF5 file to write")
    common.add_argument(
        "--add-bos",
        action=argparse.BooleanOptionalAction,
        help="begin each context with the bos token, or not (default: as the tokenizer does)",
    )
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    commands = parser.add_subparsers(dest="kind", required=True)
    harness = commands.add_parser("lm-eval", parents=[common], help="tasks of lm-evaluation-harness")
    harness.add_argument("--tasks", required=True, help="names, separated by commas")
    harness.add_argument("--include-path", type=Path, help="folder with tasks of your own, as lm_eval has it")
    harness.add_argument("--fewshot", type=not_negative, help="examples in front (default: as each task says)")
    harness.add_argument("--limit", type=positive, help="the first items only")
    lines = commands.add_parser("json-lines", parents=[common], help="your own items")
    lines.add_argument("--items", type=Path, nargs="+", required=True, help="files of lines {context, choices, answer}")
    lines.add_argument("--delimiter", default=" ", help="between context and choice (default: a blank)")
    cloze = commands.add_parser("cloze", parents=[common], help="which sentence goes on with a passage of prose?")
    cloze.add_argument("--text", type=Path, nargs="+", required=True, help="text files, as for prepare_tokens.py")
    cloze.add_argument("--items", type=positive, default=500, help="items to make (default 500)")
    cloze.add_argument("--context-characters", type=positive, default=300, help="at least (default 300)")
    cloze.add_argument("--seed", type=int, default=0, help="seed of the draws (default 0)")
    cloze.add_argument("--document-separator", default="\f", help="line between two documents (default: a form feed)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run, and map refusals to exit status 2."""
    options = parse_arguments(arguments)
    try:
        tasks = prepare(options)
    except InputRefused as error:
        print(f"prepare_requests: {error}", file=sys.stderr)
        return 2
    for task in tasks:
        requests = sum(len(item.choices) for item in task.items)
        print(f"{options.output}: {task.name}, {len(task.items)} items with {requests} continuations")
    return 0


if __name__ == "__main__":
    sys.exit(main())
