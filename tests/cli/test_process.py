"""What the system and the environment see of the program: its name in ps, its libraries, variables that nothing reads.

The program is $ESPALIER, by default build/release/espalier.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict, Set

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
assert PROGRAM.exists(), f"{PROGRAM} is not built"
# Of C++ and CMake, not of the environment.
MACROS = re.compile(r"#\s*(?:define|ifdef|ifndef) (ESPALIER_\w+)|\b(?:option|set)\((ESPALIER_\w+)")


def environment(**variables: str) -> Dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("ESPALIER_")}
    return {**own, "OMP_NUM_THREADS": "1", **variables}


def test_ps_and_top_show_its_name(tmp_path: Path) -> None:
    """It starts itself again, with better variables for its libraries; and is still called what it was called."""
    link = tmp_path / "another-name"
    link.symlink_to(PROGRAM)
    own = {key: value for key, value in environment().items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [str(link), "prune", "--device=cpu", "--model=synthetic:llama-tiny", "--calibration=synthetic:64x512",
               f"--output={tmp_path / 'run'}"]  # fmt: skip
    with subprocess.Popen(command, env=own, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()  # the second start has begun its work
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        spins = b"GOMP_SPINCOUNT=" in Path(f"/proc/{process.pid}/environ").read_bytes()
        process.kill()
    assert spins, "the program has not started itself again: this test proves nothing"
    assert name == PROGRAM.name[:15]
    assert words[0] == str(link).encode(), "argv[0] stays"


def test_the_program_needs_no_nvidia_library(tmp_path: Path) -> None:
    """They are the module's: the program starts without them, and without the module it says that it has none."""
    libraries = subprocess.run(["ldd", str(PROGRAM)], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in libraries and not re.search(r"lib(cuda|cublas|cusolver|nccl)", libraries), libraries
    alone = tmp_path / "espalier"
    shutil.copy(PROGRAM, alone)
    said = subprocess.run([str(alone), "--version"], env=environment(), capture_output=True, text=True, check=True).stdout
    assert said.endswith(" (without CUDA)\n")
    refused = subprocess.run([str(alone), "prune", "--model=synthetic:llama-tiny", "--calibration=synthetic:4x32",
                              f"--output={tmp_path / 'run'}", "--device=cuda"],
                             env=environment(), capture_output=True, text=True, check=False)  # fmt: skip
    assert refused.returncode == 2 and "--device cuda: built without CUDA (no libespalier_cuda.so" in refused.stderr


def test_a_misspelt_command_is_answered_with_the_nearest() -> None:
    done = subprocess.run([str(PROGRAM), "prnue"], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "there is no command 'prnue'; did you mean prune?" in done.stderr


def variables_in_files() -> Set[str]:
    """Every ESPALIER_... of scripts, tests and sources, but for macros and what only CMake knows."""
    named: Set[str] = set()
    macros: Set[str] = set()
    for top in ("src", "kernels", "mpi", "io", "jobs", "slurm", "tests", "docs", "README.md", "CMakeLists.txt", ".ci"):
        root = REPOSITORY / top
        for path in [root] if root.is_file() else root.rglob("*"):
            if not path.is_file() or path.suffix in (".png", ".h5", ".pyc") or path.name.endswith("variables_test.cpp"):
                continue
            text = path.read_text(errors="replace")
            named |= set(re.findall(r"(?<![\w-])\$?\{?(ESPALIER_[A-Z][A-Z0-9_]+)", text))
            macros |= {name for pair in MACROS.findall(text) for name in pair if name}
    return named - macros - {"ESPALIER_NAME"}  # of the help: any option


def test_only_variables_that_nothing_reads_are_warned_of() -> None:
    """The table in src/cli/environment_variables.cpp has what the scripts and the tests read."""
    variables = {name: "1" for name in variables_in_files()}
    assert {"ESPALIER_SRUN_OPTIONS", "ESPALIER_COMMUNICATION_DEADLINE", "ESPALIER_TEST_DEVICE"} <= set(variables)
    misspelt = "ESPALIER_" + "SAMPELS"
    done = subprocess.run([str(PROGRAM), "inspect", "/nonexistent"], env=environment(**variables, **{misspelt: "1"}),
                          capture_output=True, text=True, check=False)  # fmt: skip
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings == [f"warning: {misspelt} is set, but nothing reads it; did you mean ESPALIER_SAMPLES?"]
