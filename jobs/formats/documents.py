"""Documents out of text files: plain text, JSON lines, JSON, CSV, Parquet, also compressed by gzip."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from formats.json_file import InputRefused


def split_documents(text: str, separator: str) -> Iterator[str]:
    """Pieces of a plain text between separator lines, blank ones dropped; a text without separators stays as it is."""
    pieces = re.split(rf"^{re.escape(separator)}\r?$", text, flags=re.MULTILINE)
    if len(pieces) == 1:
        yield text
        return
    for piece in pieces:
        if piece.strip():
            yield piece.strip("\r\n")


def text_field(record: Any, place: str) -> str:
    """The "text" field of a record."""
    try:
        document = record["text"]
    except (KeyError, TypeError, IndexError) as error:
        raise InputRefused(f'{place}: not a JSON object with a "text" field') from error
    if not isinstance(document, str):
        raise InputRefused(f'{place}: the "text" field is not a string')
    return document


def json_documents(text: str, name: str) -> Iterator[str]:
    """The "text" field of every line, or of every record where the file is one array."""
    if text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except ValueError as error:
            raise InputRefused(f"{name} is not JSON ({error})") from error
        for number, record in enumerate(records, start=1):
            yield text_field(record, f"{name}, record {number}")
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputRefused(f'{name}, line {number}: not a JSON object with a "text" field') from error
        yield text_field(record, f"{name}, line {number}")


def csv_documents(text: str, name: str) -> Iterator[str]:
    """The column "text" of a table whose first line names the columns."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if "text" not in (reader.fieldnames or []):
            raise InputRefused(f'{name} has no column "text"')
        for number, row in enumerate(reader, start=1):
            if row["text"] is None:
                raise InputRefused(f'{name}, record {number}: no column "text"')
            yield row["text"]
    except csv.Error as error:
        raise InputRefused(f"{name} is not CSV ({error})") from error


def parquet_documents(file: Path) -> Iterator[str]:
    """The column "text" of a Parquet file, a row group at a time; missing texts are left out."""
    try:
        import pyarrow  # pylint: disable=import-outside-toplevel
        import pyarrow.parquet  # pylint: disable=import-outside-toplevel
    except ModuleNotFoundError as error:
        raise InputRefused(
            f"{file} needs the Python package pyarrow (50 MB, so it is not installed with the others): "
            f"{sys.executable} -m pip install pyarrow"
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            column = table.schema_arrow.field("text") if "text" in table.schema_arrow.names else None
            if column is None or column.type not in (pyarrow.string(), pyarrow.large_string()):
                raise InputRefused(f'{file.name} has no column "text" of strings')
            for batch in table.iter_batches(columns=["text"]):
                yield from (text for text in batch.column(0).to_pylist() if text is not None)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputRefused(f"cannot read {file} as Parquet: {error}") from error


def documents_of(file: Path, content: bytes, separator: str) -> Iterator[str]:
    """The documents of one file, told apart by its name."""
    if file.suffix == ".parquet":
        yield from parquet_documents(file)
        return
    try:
        text = (gzip.decompress(content) if file.suffix == ".gz" else content).decode()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputRefused(f"cannot read {file} as UTF-8 text: {error}") from error
    name = file.name.removesuffix(".gz")
    if name.endswith((".jsonl", ".json")):
        yield from json_documents(text, file.name)
    elif name.endswith(".csv"):
        yield from csv_documents(text, file.name)
    else:
        yield from split_documents(text, separator)


def read_documents(files: list[Path], separator: str) -> tuple[list[str], str]:
    """All documents in order, and the SHA-256 of the files' bytes one after the other (as `cat FILES | sha256sum`)."""
    documents: list[str] = []
    digest = hashlib.sha256()
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise InputRefused(f"cannot read {file}: {error.strerror}") from error
        digest.update(content)
        documents += documents_of(file, content, separator)
    return documents, digest.hexdigest()
