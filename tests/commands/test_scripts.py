"""No script throws away what a failing step said."""

from __future__ import annotations

import re
from typing import List

from documents import REPOSITORY, scripts, tracked

# Beginning of a command whose failure is an answer: a question, not a step.
QUESTIONS = (
    "command -v", "compgen", "kill -0", 'kill "$pid"', 'kill -KILL "$pid"', "find ", "sinfo", "systemctl show", "df ",
    "dpkg-query", "nvidia-smi -L", "mpirun --version", "apt-get indextargets", "apt-cache policy", "ldconfig -p", "ldd ", "sed -n", '"$compiler" -dump', 'python=$("$candidate" -c', "python3 -c 'import glob",
    "PATH=$PATH:/sbin:/usr/sbin ldconfig -p",
)  # fmt: skip
DISCARDED = re.compile(r"(?:2|&)?>&?\s*/dev/null")


def discarded(text: str) -> List[str]:
    """Lines that discard the output of what is no question."""
    lines = re.sub(r"\\\n", " ", text).split("\n")
    return [line.strip() for line in lines if DISCARDED.search(line) and not any(question in line for question in QUESTIONS)]


def test_ci_builds_every_target_that_is_built_on_request() -> None:
    texts = [(REPOSITORY / path).read_text() for path in tracked("*CMakeLists.txt", "*.cmake")]
    targets = {name for text in texts for name in re.findall(r"add_executable\((\w+)\s+EXCLUDE_FROM_ALL", text)}
    assert len(targets) >= 3
    ci = (REPOSITORY / ".ci" / "run").read_text() + (REPOSITORY / "tests" / "run.sh").read_text()
    assert not {name for name in targets if not re.search(rf"\b{name}\b", ci)}


def test_no_script_discards_what_a_step_says() -> None:
    faults = [f"{path}: {line}" for path in scripts() for line in discarded((REPOSITORY / path).read_text())]
    assert not faults, faults


def test_discarded_output_is_found() -> None:
    text = 'cmake --build x >/dev/null\nprune \\\n  2>/dev/null\ncommand -v gcc >/dev/null && x\nrun &>/dev/null\nmake 2>&1\n'
    assert len(discarded(text)) == 3
