"""Markdown files: lines of prose are at most 120 columns wide, and the paths and options that they name exist."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Iterator, List, Set, Tuple

import pytest
from documents import REPOSITORY, help_of, markdown_files, scripts, subcommands, tracked

MOST_COLUMNS = 120
PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
# What has happened is told with the names it had then.
OF_THEIR_TIME = {Path("CHANGELOG.md")}
# Options of other programs that the documents name.
FOREIGN = {
    "--allow-run-as-root", "--bind", "--build-arg", "--constraint", "--cpus-per-task", "--distribution", "--exclusive", "--gpus-per-task",
    "--gpus-per-node", "--mpi", "--ntasks-per-node", "--map-by", "--nv", "--oversubscribe", "--shm-size", "--entrypoint",
}  # fmt: skip


def prose(text: str) -> Iterator[Tuple[int, str]]:
    """(number, line) of the lines outside of fenced blocks and tables."""
    fenced = False
    for number, line in enumerate(text.split("\n"), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.lstrip().startswith("|"):
            yield number, line


def too_wide(text: str) -> List[int]:
    """Lines of prose that are too wide even without the addresses of their links."""
    return [number for number, line in prose(text) if len(re.sub(r"\]\([^)]*\)", "]", line)) > MOST_COLUMNS]


@pytest.mark.parametrize("path", markdown_files(), ids=str)
def test_prose_fits_into_the_columns(path: Path) -> None:
    lines = too_wide((REPOSITORY / path).read_text())
    assert not lines, f"{path}: lines {lines} have more than {MOST_COLUMNS} columns"


def test_wide_lines_are_found() -> None:
    wide = "word " * 30
    text = f"{wide}\n| {wide} |\n```sh\n{wide}\n```\n[short]({wide})\n{wide}"
    assert too_wide(text) == [1, 7]


def test_named_files_exist() -> None:
    missing = []
    for path in set(markdown_files()) - OF_THEIR_TIME:
        text = (REPOSITORY / path).read_text()
        for name in re.findall(r"`((?:docs|io|jobs|kernels|mpi|slurm|src|tests|\.ci)/[\w./-]+)", text):
            found = name.rstrip("./")
            if not any((REPOSITORY / (found + suffix)).exists() for suffix in ("", ".h", ".cpp", ".cu", ".py")):
                missing.append(f"{path}: {name}")
        for address in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in address and not (REPOSITORY / path).parent.joinpath(address).exists():
                missing.append(f"{path}: link to {address}")
    assert not missing, missing


def known_options() -> Set[str]:
    """Options of espalier, and all that our scripts speak of."""
    texts = [help_of(PROGRAM, name) for name in subcommands(PROGRAM)]
    texts += [(REPOSITORY / path).read_text() for path in [*scripts(), *tracked("jobs/*.py", "tests/*.py")]]
    return set(re.findall(r"--[a-z][a-z0-9-]*", "\n".join(texts))) | {"--help", "--version"}


def test_named_options_exist() -> None:
    known, unknown = known_options() | FOREIGN, []
    for path in set(markdown_files()) - OF_THEIR_TIME:
        for code in re.findall(r"`([^`\n]+)`", (REPOSITORY / path).read_text()):
            unknown += [f"{path}: {option}" for option in re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", code) if option not in known]
    assert not unknown, unknown


def test_our_own_classes_exist() -> None:
    """What docs/architecture.md calls a type is one."""
    sources = "\n".join((REPOSITORY / path).read_text() for path in tracked("src/*.h", "src/*.cpp", "io/*.h", "mpi/*.h", "kernels/*.h"))
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    names = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+)", text))
    assert len(names) > 10
    missing = [name for name in sorted(names) if not re.search(rf"\b(class|struct|using|enum class) {name}\b", sources)]
    assert not missing, missing
