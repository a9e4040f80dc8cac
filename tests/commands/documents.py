"""Finds the command lines that the documents show: fenced `sh` blocks of Markdown files, the comment at the top of a
script, and the examples in the help of `espalier`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Dict, Iterator, List

REPOSITORY = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^ *```(?:sh|bash|shell)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# An example in a comment is indented by at least two blanks and begins with a program.
COMMENTED = re.compile(r"^#  +((?:build|jobs|slurm|tests|docs|\.ci)/\S+|cmake|sbatch|srun|mpirun|espalier)(?=\s|$)")
HELP_EXAMPLE = re.compile(r"^ +((?:mpirun -n \d+ )?espalier [a-z]+(?: .*)?)$")


def tracked(*patterns: str) -> List[Path]:
    """Files of the repository, new ones that git does not ignore included, relative to its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return sorted({Path(line) for line in done.stdout.splitlines() if (REPOSITORY / line).is_file()})


def markdown_files() -> List[Path]:
    return tracked("*.md")


def scripts() -> List[Path]:
    return tracked("*.sh", "*.sbatch", ".ci/*")


def without_comment(line: str) -> str:
    """The line up to a `#` that stands outside of quotes and after a blank."""
    quote = ""
    for position, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and (position == 0 or line[position - 1].isspace()):
            return line[:position]
    return line


def simple_commands(text: str) -> Iterator[str]:
    """The commands of a piece of shell: continued lines joined, comments removed, split at `&&` and `;`."""
    for line in re.sub(r"\\\n", " ", text).split("\n"):
        for command in re.split(r"\s*(?:&&|;)\s*", without_comment(line)):
            if command.strip():
                yield " ".join(command.split())


def commands_of_markdown(text: str) -> Iterator[str]:
    for block in FENCE.findall(text):
        yield from simple_commands(block)


def commands_of_script(text: str) -> Iterator[str]:
    """The examples in the comment at the top of a script."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line and not line.startswith("#"):
            return
        if not COMMENTED.match(line):
            continue
        example = line
        while example.endswith("\\"):
            number += 1
            example = example[:-1] + lines[number].lstrip("# ")
        # What follows after two blanks explains.
        yield from simple_commands(re.split(r"(?<=\S) {2,}(?!\S*=)", example.lstrip("# "))[0])


def commands_of_help(text: str) -> Iterator[str]:
    examples = text.partition("\nExample")[2].partition("\nOptions:\n")[0]
    for line in re.sub(r"\\\n +", " ", examples).split("\n"):
        if example := HELP_EXAMPLE.match(line):
            yield from simple_commands(example.group(1))


def all_commands(program: Path) -> Dict[str, str]:
    """Every command line -> the document that shows it first."""
    found: Dict[str, str] = {}

    def add(commands: Iterator[str], place: str) -> None:
        for command in commands:
            found.setdefault(command, place)

    for path in tracked("README.md", "CONTRIBUTING.md", "docs/*.md"):
        add(commands_of_markdown((REPOSITORY / path).read_text()), str(path))
    for path in scripts():
        add(commands_of_script((REPOSITORY / path).read_text()), str(path))
    for name in subcommands(program):
        add(commands_of_help(help_of(program, name)), f"espalier {name} --help")
    return found


def help_of(program: Path, *command: str) -> str:
    done = subprocess.run([str(program), *command, "--help"], capture_output=True, text=True, check=True)
    return done.stdout


def subcommands(program: Path) -> List[str]:
    """The commands that `espalier --help` lists."""
    return re.findall(r"^  ([a-z]+) {2,}\S", help_of(program), re.MULTILINE)
