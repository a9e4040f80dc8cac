"""No script throws away what a failing step said."""

from __future__ import annotations

import re
from typing import List

from documents import REPOSITORY, scripts, tracked

# Beginnings of commands whose failure is an answer: questions, not steps.
QUESTIONS = (
    "command -v", "compgen", "kill -0", 'kill "$pid"', 'kill -KILL "$pid"', "find ", "sinfo", "systemctl show", "df ",
    "dpkg-query", "nvidia-smi -L", "mpirun --version", "apt-get indextargets", "apt-cache policy", "ldconfig -p", "ldd ",
    '"$compiler" -dump', '"$candidate" -c', "PATH=$PATH:/sbin:/usr/sbin ldconfig -p",
    "python3 -c ''", "sed -n ''",  # what is quoted is left out
)  # fmt: skip
DISCARDED = re.compile(r"(?:2|&)?>&?\s*/dev/null|2>&-")
BEFORE_A_COMMAND = re.compile(r"&&|\|\||;|\||\$\(|<\(|\(|\{ |\b(?:then|if|elif|while|until|do|else)\b|! |`")


def discarded(text: str) -> List[str]:
    """Commands whose output is discarded though they are no questions."""
    text = re.sub(r"^\s*#.*$", "", re.sub(r"\\\n", " ", text), flags=re.MULTILINE)
    commands = [part.strip() for line in text.split("\n") for part in BEFORE_A_COMMAND.split(re.sub(r"'[^']*'", "''", line))]
    return [command for command in commands if DISCARDED.search(command) and not command.startswith(QUESTIONS)]


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
    text = ("cmake --build x >/dev/null; find .\nprune \\\n  2>/dev/null\ncommand -v gcc >/dev/null && x\nrun &>/dev/null\n"
            "make 2>&1\nif ldd x 2>/dev/null | grep y; then prune 2>&-; fi\n")  # fmt: skip
    assert len(discarded(text)) == 4
