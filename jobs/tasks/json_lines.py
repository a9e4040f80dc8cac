"""Items from lines of JSON: {"context": "…", "choices": ["…", "…"], "answer": 0}."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from formats.json_file import InputRefused
from tasks.item import Choice, Item


def item_of(record: Any, place: str, delimiter: str) -> Item:
    """The item of one line; every fault is named with its line."""
    if not isinstance(record, dict):
        raise InputRefused(f"{place} is not a JSON object")
    for field in ("context", "choices", "answer"):
        if field not in record:
            raise InputRefused(f"{place} has no '{field}'; {{context, choices, answer}} are expected")
    context, choices, answer = record["context"], record["choices"], record["answer"]
    if not isinstance(context, str):
        raise InputRefused(f"{place}: 'context' is not a string")
    if not isinstance(choices, list) or not choices or not all(isinstance(c, str) and c for c in choices):
        raise InputRefused(f"{place}: 'choices' is not a list of strings with something in them")
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise InputRefused(f"{place}: 'answer' is {answer!r}; an index from 0 to {len(choices) - 1} is expected")
    if any("\ud800" <= letter <= "\udfff" for text in (context, *choices) for letter in text):
        raise InputRefused(f"{place} holds half of a surrogate pair, which is no text")
    return Item(tuple(Choice(context, delimiter + choice, choice) for choice in choices), answer)


def read_json_lines(file: Path, delimiter: str) -> Iterator[Item]:
    """The items of a file; empty lines are passed over."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # not splitlines: strings may hold other line ends
    except OSError as error:
        raise InputRefused(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputRefused(f"{file} is not UTF-8 text ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputRefused(f"{place} is not JSON: {error}") from error
        yield item_of(record, place, delimiter)
