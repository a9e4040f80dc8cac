"""Runs the command lines that the documents show, on tiny inputs, so that none of them rots.

Every command runs in a folder of its own that holds, under the names that the documents use, a random model, token files,
a finished run, and links to the repository's scripts. What cannot run here is in NOT_RUN with the reason; a command that
fails and is not listed fails the test, and so does an entry of NOT_RUN that no document shows any more.

The program is $ESPALIER, by default build/release/espalier. Needs build/venv (jobs/virtual_environment.sh).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest
from documents import REPOSITORY, all_commands, commands_of_help, commands_of_markdown, commands_of_script

sys.path.insert(0, str(REPOSITORY / "tests" / "oracle"))
from random_model import ModelRequest, make_model, random_tokens, write_tokens  # noqa: E402

PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
assert PROGRAM.exists(), f"{PROGRAM} is not built"
SECONDS = 150  # of a command, on a machine that is busy with much else

# Beginning of a command -> why it does not run here.
NOT_RUN: Dict[str, str] = {
    "module load": "a cluster's modules",
    "git clone": "the address of a repository",
    "cd ": "changes the shell's folder",
    "tail -F": "follows a log until it is interrupted",
    "jobs/demo.sh": "minutes; .ci/full runs it, test_the_demo on a tiny model",
    "jobs/recover.sh": "minutes; test_the_demo runs it on a tiny model",
    "build/venv/bin/python jobs/quality/bench.py": "hours; tests/jobs/test_quality.py runs it with a made-up program",
    "tests/run.sh": "it is what runs this test",
    "tests/systems.sh": "builds whole systems with debootstrap",
    "sudo apt-get": "installs packages",
    "python3 -m venv ~/cmake": "installs packages into the home folder",
    "~/cmake/bin/pip": "installs packages into the home folder",
    "export PATH=~/cmake": "changes the shell's PATH",
    "tests/fuzz/run.sh": "minutes; a step of .ci/run",
    "tests/gpu/run.sh": "a GPU",
    "tests/benchmarks/gpu.sh": "a GPU",
    "tests/benchmarks/run.sh": "a target that only CI builds; .ci/run runs it on a tiny model",
    "tests/benchmarks/finetune.sh": "what only the exports' tests install; .ci/run runs it on a tiny model",
    "tests/same_bits.sh": "two builds; minutes",
    "tests/slurm/": "starts a Slurm; a step of .ci/run",
    "slurm/packages/stage.sh": "builds everything again",
    "slurm/env.sh": "says what this machine lacks, which is no fault of the script",
    "jobs/virtual_environment.sh FOLDER": "minutes of downloads; the part of tests/run.sh that runs this test uses it",
    "jobs/bundle.sh": "copies Debian's Open MPI 4.1, which not every system has",
    "FOLDER/run": "the bundle that jobs/bundle.sh makes",
}
# What this machine is too small for -> what stands in for it. `plan` takes the names as they are.
TINY = {"synthetic:128x2048": "synthetic:8x32", "synthetic:llama-2-7b": "synthetic:llama-tiny:2",
        "synthetic:llama-2-70b": "synthetic:llama-tiny:2", "cuda": "cpu"}  # fmt: skip
# Two names of one thing.
SAME = {"MODEL": "DIR", "RUN2": "RUN", "calibration.h5": "tokens.h5", "build/release/espalier": "espalier"}
# Word of a command -> words that are added to it, so that it takes a moment, or changes nothing.
ADDED = {
    "doctor": "--rates rates.json",
    "cloze": "--items 20",
    "prune": "--samples 8 --ro-rounds 1",
    "finetune": "--samples 8 --rank 8",
    "slurm/finetune.sbatch": "--samples 8 --rank 8",
    "jobs/install_dependencies.sh": "--list",
    "slurm/submit.sh": "--dry-run",
    "slurm/sweep.sh": "--dry-run",
    "slurm/scaling/strong.sh": "--dry-run",
    "slurm/scaling/weak.sh": "--dry-run --sequence-length 16",
}
# What `…` and "[options …]" stand for, as far as the command does not say it itself.
USUAL = {"--model": "DIR", "--calibration": "tokens.h5", "--output": "RUN"}
USUAL_TO_FINETUNE = {"--model": "RUN", "--data": "tokens.h5", "--output": "TUNED2"}


def make_tokenizer(folder: Path) -> None:
    """One token a byte."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {token: index for index, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the documents name."""
    world = tmp_path_factory.mktemp("world")
    for folder in ("jobs", "slurm", "tests"):
        (world / folder).symlink_to(REPOSITORY / folder)
    (world / "build" / "release").mkdir(parents=True)
    (world / "build" / "release" / "espalier").symlink_to(PROGRAM)
    (world / "build" / "venv").symlink_to(REPOSITORY / "build" / "venv")

    make_model(world / "DIR", ModelRequest("llama2", "bf16"))
    config = json.loads((world / "DIR" / "config.json").read_text())
    (world / "DIR" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    make_tokenizer(world / "DIR")
    write_tokens(world / "tokens.h5", random_tokens(128, 16, 256, 0))
    write_tokens(world / "evaluation.h5", random_tokens(1, 2048, 256, 1))
    for name in ("A.txt", "B.txt", "corpus.txt"):
        # Sentences for cloze, of which no two are alike.
        (world / name).write_text(" ".join(f"Tree {i} grows along a wall of {i} bricks, and fruits." for i in range(99)))
    (world / "TABLE").symlink_to("table.txt")
    (world / "table.txt").write_text("--method wanda\n--method wanda++ --alpha 10\n")

    def espalier(*words: str) -> str:
        return run(shlex.join(["build/release/espalier", *words]), world).stdout

    espalier("prune", "--model", "DIR", "--calibration", "tokens.h5", "--output", "RUN", "--method", "wanda")
    low_rank = ["--rank", "2", "--steps", "1", "--samples", "8", "--targets", "q_proj"]
    for train, output in (("lora", "LORA"), ("masked-lora", "TUNED")):
        espalier("finetune", "--model", "RUN", "--data", "tokens.h5", "--output", output, "--train", train, *low_rank)
    requests = "cloze --tokenizer DIR --text B.txt --items 20 --output cloze.h5"
    run(f"build/venv/bin/python jobs/prepare_requests.py {requests}", world)
    for model, scores in (("DIR", "dense.json"), ("RUN", "pruned.json"), ("TUNED", "tuned.json")):
        espalier("score", "--model", model, "--requests", "cloze.h5", "--output", scores)
    plan = ["--model", "synthetic:llama-2-7b", "--table", "--json", "--block-groups", "1", "--ro-batch", "8"]
    (world / "plan.json").write_text(espalier("plan", *plan))
    (world / "rates.json").write_text(json.dumps(json.loads((world / "plan.json").read_text())["rates"]))
    return world


def run(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """The command in a shell in `folder`; fails unless its status is 0."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("ESPALIER_", "SLURM_"))}
    environment = {
        **own, "ESPALIER": str(PROGRAM), "ESPALIER_SLURM": str(folder / "slurm"), "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_btl_vader_single_copy_mechanism": "none", "OMPI_MCA_mpi_yield_when_idle": "1",
        "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=SECONDS)  # fmt: skip
    if done.returncode != 0:
        pytest.fail(f"status {done.returncode} of: {command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}", pytrace=False)
    return done


def without_launcher(words: List[str]) -> List[str]:
    """What Slurm would start, to be run alone: its own options end at the first word that is none."""
    if words[0] not in ("srun", "sbatch"):
        return words
    start = next(i for i, word in enumerate(words) if i > 0 and not word.startswith("-") and word != "...")
    # A batch script then runs with mpirun, as on a cluster without PMIx.
    batch = ["SLURM_JOB_ID=1", "SLURM_ARRAY_TASK_ID=0", "ESPALIER_LAUNCHER=mpirun", "bash"]
    return (batch if words[0] == "sbatch" else []) + words[start:]


def as_run_here(command: str) -> str:
    """The command with what is tiny in the place of what is large, and without what only a cluster has."""
    command = re.sub(r"\[options[^\]]*\]", "…", command)
    command = re.sub(r"\[[^\]]*\]", "", command)  # optional words of a synopsis
    command = re.sub(r"(--dry-run-ranks|mpirun -n) \d+", r"\1 2", command)
    words = without_launcher([SAME.get(word, word) for word in command.split()])
    if {"…", "..."} & set(words):
        words = [word for word in words if word not in ("…", "...")]
        names_its_output = any("sweep" in word or "scaling" in word for word in words)
        finetunes = any("finetune" in word for word in words)
        for name, value in (USUAL_TO_FINETUNE if finetunes else USUAL).items():
            if name not in words and not (name == "--output" and names_its_output):
                words += [name, value]
    if "finetune" in words:  # the documents' other commands use one that is there
        words = [word.replace("TUNED", "TUNED2") for word in words]
    if {"prune", "finetune", "evaluate", "score"} & set(words):
        words = [TINY.get(word, word) for word in words]
    for word, added in ADDED.items():
        if word in words and added.split()[0] not in words:
            words += added.split()
    return " ".join(words)


def check_cmake(command: str) -> None:
    """Presets, options and targets that a cmake command names are there; building them is CI's task."""
    presets = json.loads((REPOSITORY / "CMakePresets.json").read_text())["configurePresets"]
    files = [REPOSITORY / "CMakeLists.txt", *(REPOSITORY / "tests").rglob("CMakeLists.txt")]
    text = "\n".join(path.read_text() for path in files)
    for name in re.findall(r"--preset (\S+)", command):
        assert name in [preset["name"] for preset in presets], f"{command}: there is no preset {name}"
    for name in re.findall(r"-D(ESPALIER_\w+)", command):
        assert re.search(rf"(set|option)\({name}\b", text), f"{command}: there is no option {name}"
    for names in re.findall(r"--target ((?:[a-z_]+ ?)+)", command):
        for name in names.split():
            assert re.search(rf"add_(executable|custom_target)\({name}\b", text), f"{command}: no target {name}"


COMMANDS = all_commands(PROGRAM)
LISTED = {start: [command for command in COMMANDS if as_run_here(command).startswith(start) or command.startswith(start)]
          for start in NOT_RUN}  # fmt: skip
# As they are run here: some differ only in names that stand for the same thing.
HERE = sorted({as_run_here(command) for command in COMMANDS} - {as_run_here(c) for listed in LISTED.values() for c in listed})


@pytest.mark.parametrize("command", HERE, ids=lambda command: command[:90])
def test_the_command_runs(command: str, world: Path, tmp_path: Path) -> None:
    if command.startswith("cmake"):
        check_cmake(command)
        return
    outputs = re.findall(r"--output[ =](\S+)", command)
    for entry in world.iterdir():
        if entry.name not in outputs:
            (tmp_path / entry.name).symlink_to(entry)
    run(command, tmp_path)


def test_the_demo(world: Path) -> None:
    """With a model and texts of one's own, from the second step on."""
    done = run("jobs/demo.sh --skip-install --espalier build/release/espalier --model DIR --calibration-text A.txt "
               "--evaluation-text B.txt --samples 8 --sequence-length 16 --evaluation-tokens 256 --output demo", world)  # fmt: skip
    table = [line.split()[0] for line in done.stdout.split("\n") if re.match(r"[a-z+]+(?: \*)? +[\d.,]+ +[\d.]+", line)]
    methods = ["wanda++", "best", "magnitude", "wanda", "sparsegpt", "rgs", "ro"]
    assert table == ["dense", "wanda++", "dense", "wanda++", "best", "dense", *methods], done.stdout
    assert (world / "demo" / "comparison" / "report.html").exists() and list((world / "demo").glob("exported-*/config.json"))
    done = run("jobs/recover.sh --demo demo --model DIR --calibration-text A.txt --evaluation-text B.txt --output recover "
               "--steps 1 --items 20 --espalier build/release/espalier", world)  # fmt: skip
    rows = [line.split(" | ") for line in done.stdout.split("\n") if line.startswith("| ") and "---" not in line][1:]
    assert [row[0][2:] for row in rows[1:5]] == ["wanda", "wanda, lora, lm", "wanda, masked-lora, kl", "wanda, masked, kl"]
    assert len(rows) == 9 and [row[-1].split()[0] for row in rows[1:5]] == ["|", "none", "all", "all"], rows


def test_what_ci_runs_instead_it_does_run() -> None:
    ci = (REPOSITORY / ".ci" / "run").read_text()
    for start in ("jobs/demo.sh", "tests/run.sh", "tests/fuzz/run.sh", "tests/slurm/", "tests/benchmarks/run.sh"):
        assert start in ci, f"{start} is in NOT_RUN since .ci/run or .ci/full runs it, which it does not"


def test_what_is_not_run_is_still_documented() -> None:
    unused = [start for start, commands in LISTED.items() if not commands]
    assert not unused, f"no document shows these any more: {unused}"


def test_scripts_that_are_not_run_exist() -> None:
    for command, document in COMMANDS.items():
        program = command.split()[0]
        if re.match(r"(jobs|slurm|tests|docs|\.ci)/", program):
            assert os.access(REPOSITORY / program, os.X_OK), f"{document}: {program} is no program"


def test_commands_are_found() -> None:
    """The extraction itself: continued lines, comments, quotes, several commands in a line."""
    text = "prose\n```sh\na 'b # c' && \\\n  d   # e\nmpirun -n 2 f; g\n```\n```python\nnot me\n```\n"
    assert list(commands_of_markdown(text)) == ["a 'b # c'", "d", "mpirun -n 2 f", "g"]
    comment = "#!/bin/sh\n# Words.\n#   jobs/a.sh X \\\n#       --y z     explains\n# jobs/no.sh\nset -e\n#   jobs/b.sh\n"
    assert list(commands_of_script(comment)) == ["jobs/a.sh X --y z"]
    assert list(commands_of_help("x\nExample:\n  espalier plan --model DIR\n\nOptions:\n  espalier is no example\n")) == ["espalier plan --model DIR"]
    assert len(HERE) > 30


def test_a_wrong_command_is_noticed(world: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="status 2 of: .*\n.*no-such-option"):
        run("build/release/espalier plan --model DIR --no-such-option 1", world)
    with pytest.raises(AssertionError, match="no preset debug-of-old"):
        check_cmake("cmake --preset debug-of-old")
