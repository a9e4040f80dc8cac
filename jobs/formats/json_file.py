"""JSON objects in files, and the refusal of a file that is not what it should be. Only the standard library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class InputRefused(Exception):
    """The request cannot be met; the message is one sentence for the user."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputRefused(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputRefused(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputRefused(f"{path} does not hold a JSON object")
    return content


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write readable JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
