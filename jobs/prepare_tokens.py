#!/usr/bin/env python3
"""Turn text files into an HDF5 token file for `espalier prune` or `espalier evaluate`.

    prepare_tokens.py calibration --tokenizer DIR --text FILE... [--samples 128] [--sequence-length 2048] [--seed 0]
                      --output TOKENS.h5
    prepare_tokens.py evaluation --tokenizer DIR --text FILE... [--sequence-length 2048] --output TOKENS.h5

`calibration` draws samples by Wanda's rule (Sun et al., ICLR 2024, lib/data.py): draw a document until one has more
than T tokens, then take T tokens at a random offset of it. `evaluation` follows the WikiText-2 convention: the whole
text is tokenised once as one string and cut into floor(total / T) rows; the tail is dropped.

DIR is a model folder, or a model's folder in the Hugging Face cache. Its tokenizer.json is used or, where there is
none, its tokenizer.model (SentencePiece), with the ids that transformers' LlamaTokenizer gives.

A document is the "text" field of one line of a .jsonl or .json file (C4's shards are such) or of one record of a .json
array, the column "text" of one row of a .csv or .parquet file (the latter needs pyarrow), or a piece of a plain text
file between two separator lines (by default lines that hold only a form feed); a file without separators is one
document. Files ending in .gz are decompressed. `evaluation` joins documents with two newlines, as Wanda joins
WikiText-2's rows.

The output holds the dataset /input_ids, int32 [samples, T], whose attributes say where it came from; the same input and
package versions give the same bytes. It is written under a temporary name and renamed. Exit status 2 and one sentence
on stderr when there is nothing to write.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path

from formats.json_file import InputRefused
from formats.documents import read_documents
from formats.numbers import positive

# HDF5's locks fail on many network mounts. HDF5 reads this when it is loaded, and it wins over `locking=False` below.
os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"
try:
    import h5py
    import numpy as np
    import tokenizers

    from formats.hdf5_file import write_hdf5
    from formats.text_tokenizer import TextTokenizer, load_tokenizer
except ModuleNotFoundError as missing:
    sys.exit(f"prepare_tokens.py: the Python package {missing.name} is missing; run "
             "jobs/virtual_environment.sh build/venv jobs/requirements.txt and then this with build/venv/bin/python")

SAMPLING_RULES = {
    "calibration": "Wanda: draw documents until one has more than T tokens, then T tokens at a random offset",
    "evaluation": "WikiText-2: documents joined by two newlines, tokenised once, floor(total / T) windows",
}


def draw_rows(documents: list[str], tokenizer: TextTokenizer, samples: int, length: int, seed: int) -> np.ndarray:
    """Wanda's sampling rule: the same draws, in the same order, from Python's own generator.

    Rejected documents use up draws too, so the set depends on tokenizer and length. A finite text may hold no document
    that is long enough; that is refused once every document has been seen.
    """
    generator = random.Random(seed)
    long_documents: dict[int, list[int]] = {}
    too_short: set[int] = set()
    rows = np.empty((samples, length), dtype=np.int32)
    for row in rows:
        while True:
            if len(too_short) == len(documents):
                raise InputRefused(
                    f"none of the {len(documents)} documents has more than {length} tokens: "
                    "give longer documents or a smaller --sequence-length"
                )
            index = generator.randint(0, len(documents) - 1)
            if index not in long_documents and index not in too_short:
                ids = tokenizer.encode(documents[index])
                if len(ids) > length:
                    long_documents[index] = ids
                else:
                    too_short.add(index)
            if index in long_documents:
                break
        ids = long_documents[index]
        offset = generator.randint(0, len(ids) - length - 1)
        row[:] = ids[offset : offset + length]
    return rows


def cut_windows(
    documents: list[str], tokenizer: TextTokenizer, length: int, most_tokens: int | None = None
) -> np.ndarray:
    """The WikiText-2 convention: one string, tokenised once, cut into rows that do not overlap."""
    ids = tokenizer.encode("\n\n".join(documents))[:most_tokens]
    windows = len(ids) // length
    if windows == 0:
        raise InputRefused(f"the text has only {len(ids)} tokens, fewer than one window of {length}")
    return np.array(ids[: windows * length], dtype=np.int32).reshape(windows, length)


def prepare(options: argparse.Namespace) -> np.ndarray:
    """Read, tokenise, sample and write; returns the rows."""
    tokenizer = load_tokenizer(options.tokenizer, options.add_bos)
    documents, text_sha256 = read_documents(options.text, options.document_separator)
    if not any(document.strip() for document in documents):
        raise InputRefused("the text is empty")
    length = options.sequence_length
    if options.kind == "calibration":
        rows = draw_rows(documents, tokenizer, options.samples, length, options.seed)
    else:
        rows = cut_windows(documents, tokenizer, length, options.max_tokens)
    attributes: dict[str, str | int] = {
        "kind": options.kind,
        "samples": rows.shape[0],
        "sequence_length": rows.shape[1],
        "dataset": ", ".join(file.name for file in options.text),
        "text_sha256": text_sha256,
        "tokenizer_sha256": tokenizer.sha256,
        "add_bos": int(tokenizer.adds_bos()),
        "sampling_rule": SAMPLING_RULES[options.kind],
        "created_by": f"prepare_tokens.py with tokenizers {tokenizers.__version__}, h5py {h5py.__version__}",
    }
    if options.kind == "calibration":
        attributes["seed"] = options.seed
    write_hdf5(options.output, {"input_ids": rows}, attributes, attributes_of="input_ids")
    return rows


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The two sub-commands and their options."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--tokenizer", type=Path, required=True, help="model folder, or its tokenizer file")
    kinds = "text files: .txt, .jsonl, .json, .csv, each also with .gz, and .parquet"
    common.add_argument("--text", type=Path, nargs="+", required=True, help=kinds)
    common.add_argument("--sequence-length", type=positive, default=2048, help="tokens per row, T (default 2048)")
    common.add_argument("--output", type=Path, required=True, help="HDF5 file to write")
    common.add_argument("--document-separator", default="\f", help="line between two documents (default: a form feed)")
    common.add_argument(
        "--add-bos",
        action=argparse.BooleanOptionalAction,
        help="begin each tokenised text with the bos token, or not (default: as the tokenizer does)",
    )
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    commands = parser.add_subparsers(dest="kind", required=True)
    calibration = commands.add_parser("calibration", parents=[common], help="random samples for pruning")
    calibration.add_argument("--samples", type=positive, default=128, help="rows to draw (default 128)")
    calibration.add_argument("--seed", type=int, default=0, help="seed of the draws (default 0)")
    evaluation = commands.add_parser("evaluation", parents=[common], help="consecutive windows for perplexity")
    evaluation.add_argument("--max-tokens", type=positive, help="use the beginning of the text only (default: all)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run, and map refusals to exit status 2."""
    options = parse_arguments(arguments)
    try:
        rows = prepare(options)
    except InputRefused as error:
        print(f"prepare_tokens: {error}", file=sys.stderr)
        return 2
    print(f"{options.output}: {options.kind}, {rows.shape[0]} rows of {rows.shape[1]} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
