#!/usr/bin/env python3
"""Makes docs/reference.md from what `espalier --help` and `espalier COMMAND --help` print.

    docs/make_reference.py [PROGRAM] > docs/reference.md        PROGRAM: build/release/espalier unless given

tests/commands fails when the file and the help differ: change the help in src/cli, then run this again.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, Tuple

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# Reference

Made from the program's own help by docs/make_reference.py; to change it, change the help in src/cli and run that again.
Files are described in [formats.md](formats.md), GPUs in [gpu.md](gpu.md), batch jobs in [cluster.md](cluster.md).
"""


def help_of(program: Path, *command: str) -> str:
    done = subprocess.run([str(program), *command, "--help"], capture_output=True, text=True, check=True)
    return done.stdout


def options(text: str) -> Iterator[Tuple[str, str, str]]:
    """(option, default, meaning) of every option in a list that Boost has wrapped."""
    for item in re.split(r"^  (?=--)", text, flags=re.MULTILINE)[1:]:
        name, takes_value, meaning = re.match(r"--(\S+)( arg)?\s+(.*)", item, re.DOTALL).groups()
        meaning = " ".join(meaning.split())
        default = "–" if takes_value else "off"
        if meaning.endswith(" (required)"):
            meaning, default = meaning[: -len(" (required)")], "required"
        elif found := re.match(r"(.*) \[default: (.*)\]$", meaning):
            meaning, default = found.groups()
        yield f"`--{name}`", default, meaning


def explained(text: str) -> str:
    """The sentences before the options as Markdown: examples become blocks of shell."""
    parts: List[str] = []
    for paragraph in text.strip().split("\n\n"):
        head, _, rest = paragraph.partition("\n")
        if re.match(r"Examples?:$", head):
            parts.append("```sh\n" + "\n".join(line.strip() for line in rest.split("\n")) + "\n```")
        else:
            parts.append(paragraph)
    return "\n\n".join(parts)


def command_section(program: Path, name: str) -> str:
    text = help_of(program, name)
    summary, rest = text.split("\n\n", maxsplit=1)
    explanation, listed = rest.split("Options:\n")
    listed, closing = listed.split("\n\n", maxsplit=1)
    if not closing.startswith("Every option"):
        raise SystemExit(f"make_reference.py: the end of `espalier {name} --help` is not understood")
    rows = [f"| {option} | {default} | {meaning} |" for option, default, meaning in options(listed)]
    table = "\n".join(["| option | default | meaning |", "| --- | --- | --- |", *rows])
    title, sentence = summary.split(": ", maxsplit=1)
    return f"## {title}\n{sentence[0].upper()}{sentence[1:]}.\n\n{explained(explanation)}\n\n{table}\n"


def pairs(text: str) -> str:
    """`  name  meaning` lines, meanings continued on indented lines, as a table."""
    rows = []
    for item in re.split(r"^  (?=\S)", text, flags=re.MULTILINE)[1:]:
        name, meaning = item.split(maxsplit=1)
        rows.append(f"| `{name}` | {' '.join(meaning.split())} |")
    return "\n".join(["| | |", "| --- | --- |", *rows]) + "\n"


def reference(program: Path) -> str:
    overview = help_of(program)
    usage, statuses = overview.split("\nExit status:\n")
    statuses, variables = statuses.split("\nEnvironment:\n")
    names = re.findall(r"^  ([a-z]+) {2,}\S", usage, re.MULTILINE)
    closing = help_of(program, names[0]).split("\n\n")[-1].strip()
    sections = [command_section(program, name) for name in names]
    return "\n".join([
        HEAD, *sections, f"## Where options come from\n{closing}\n\nLog, events and manifest of a run say where each value came from.\n",
        f"## Exit status\n{pairs(statuses)}", f"## Environment\n{pairs(variables)}".rstrip("\n") + "\n",
    ])  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(reference(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "release" / "espalier"))
