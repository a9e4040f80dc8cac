"""What the documents name exists: types, functions, fields and files of the sources."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import List, Set

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(str(path.relative_to(REPOSITORY)) for folder in ("", "docs", "slurm/packages", "tests/emulation")
                   for path in (REPOSITORY / folder).glob("*.md") if path.name != "CHANGELOG.md")  # fmt: skip
FOLDERS = ("src", "kernels", "mpi", "io", "jobs", "slurm", "tests", "docs")
SOURCES = {".h", ".cpp", ".cu", ".cuh", ".py", ".sh", ".sbatch"}

CODE = re.compile(r"```(?:.|\n)*?```|^ {4}.*$|`[^`\n]+`", re.MULTILINE)  # and pictures
TYPE = re.compile(r"(?<![\w./-])[A-Z][a-z0-9]+(?:[A-Z][a-z0-9]+)+\b")
FOREIGN = {"BoostConfig", "Dockerfile", "PropagateResourceLimitsExcept", "pmix_v4", "pmix_v5"}  # of other projects
QUOTED_TYPE = re.compile(r"`([A-Z][a-z]+\w*)(?:::|`)")
MEMBER = re.compile(r"\b[A-Z]\w+::(\w+)")
IDENTIFIER = re.compile(r"`([a-z][a-z0-9]*(?:_[a-z0-9]+)+)`")
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./*-]*[\w*]")


@lru_cache(maxsize=None)
def source_text() -> str:
    files = [path for folder in FOLDERS[:6] for path in sorted((REPOSITORY / folder).rglob("*")) if path.suffix in SOURCES]
    assert len(files) > 200
    return "\n".join(path.read_text(errors="replace") for path in files)


@lru_cache(maxsize=None)
def words_of_sources() -> Set[str]:
    return set(re.findall(r"\w+", source_text()))


@lru_cache(maxsize=None)
def types_of_sources() -> Set[str]:
    return set(re.findall(r"\b(?:class|struct|using)\s+(\w+)", source_text()))


def exists(path: str) -> bool:
    """As a file or folder, as a pattern, or as a module named without its ending."""
    return any(any(REPOSITORY.glob(path + ending)) for ending in ("", ".h", ".cpp", ".cu", ".cuh", ".py"))


def faults(text: str) -> List[str]:
    """A sentence for each name that the sources lack."""
    code = "\n".join(CODE.findall(text))
    types = set(TYPE.findall(code)) | set(QUOTED_TYPE.findall(text))
    return (
        [f"{name} is no type of the sources" for name in sorted(types - types_of_sources() - FOREIGN)]
        + [f"{name} is not in the sources"
           for name in sorted((set(MEMBER.findall(code)) | set(IDENTIFIER.findall(text))) - words_of_sources() - FOREIGN)]
        + [f"{path} is no file" for path in sorted(set(PATH.findall(text))) if not exists(path)]
    )  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_exists(document: str) -> None:
    text = (REPOSITORY / document).read_text()
    assert faults(text) == []


def test_the_patterns_find_what_is_to_be_checked() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    assert len(PATH.findall(text)) + len(IDENTIFIER.findall(text)) > 20


@pytest.mark.parametrize("planted, fault", [
    ("adds them to a mini-batch (`MiniBatchGradient`)", "MiniBatchGradient is no type"),
    ("    a picture ─▶ BlockScribe ──┐", "BlockScribe is no type"),
    ("`Sessions::agree`", "Sessions is no type"),
    ("`Session::agree_on_nothing(x)`", "agree_on_nothing is not in the sources"),
    ("`plan_remembrance` decides", "plan_remembrance is not in the sources"),
    ("see (src/prune/memory_planning) for it", "src/prune/memory_planning is no file"),
    ("`slurm/scaling/*.sbash FOLDER`", "slurm/scaling/*.sbash is no file"),
])  # fmt: skip
def test_planted_names_are_found(planted: str, fault: str) -> None:
    found = faults(f"{planted}\n`OrderedSum` and `Session::agree`, mpi/ordered_sum.h, src/plan/rehearsal.\n")
    assert len(found) == 1 and found[0].startswith(fault), found
