"""docs/reference.md is what docs/make_reference.py makes of the program's help."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from documents import REPOSITORY, help_of, subcommands

PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
REFERENCE = (REPOSITORY / "docs" / "reference.md").read_text()


def test_the_reference_is_made_from_the_help() -> None:
    command = [sys.executable, str(REPOSITORY / "docs" / "make_reference.py"), str(PROGRAM)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == REFERENCE, "the help has changed: docs/make_reference.py > docs/reference.md"


def test_every_option_is_in_the_reference() -> None:
    """Counted in the help itself, so that the script cannot lose one."""
    sections = dict(zip(*[iter(re.split(r"^## espalier (\w+)\n", REFERENCE, flags=re.MULTILINE)[1:])] * 2))
    assert sorted(sections) == sorted(subcommands(PROGRAM))
    for command, section in sections.items():
        options = re.findall(r"^  --(\S+)", help_of(PROGRAM, command), re.MULTILINE)
        assert len(options) > 2
        rows = re.findall(r"^\| `--(\S+)` \| .+ \| .+ \|$", section, re.MULTILINE)
        assert rows == options
