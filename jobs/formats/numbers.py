"""Numbers of command lines, checked."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A command-line integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def not_negative(text: str) -> int:
    """A command-line integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value
