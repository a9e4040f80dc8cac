"""Pruned weights are the same bits for any number of ranks and threads, under real mpirun, for every method."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ESPALIER = os.environ.get("ESPALIER", str(ROOT / "build/release/espalier"))
RANDOM_MODEL = ROOT / "tests/oracle/random_model.py"
RANKS = (1, 2, 3, 4, 8)
COMMON = ["--ro-rounds", "2", "--ro-samples", "6", "--ro-learning-rate", "1e-4"]
CASES = {
    "magnitude": ["--method", "magnitude"],
    "wanda": ["--method", "wanda", "--pattern", "unstructured", "--sparsity", "0.6"],
    "sparsegpt": ["--method", "sparsegpt"],
    "rgs": ["--method", "rgs", "--pattern", "4:8"],
    "ro": ["--method", "ro", *COMMON],
    "wanda++": ["--method", "wanda++", *COMMON],
    "wanda++ in batches": ["--method", "wanda++", "--ro-batch", "4", *COMMON],
    "ro in batches, mask held": ["--method", "ro", "--ro-batch", "4", "--hold-mask", *COMMON],
    "reconstruct": ["--method", "reconstruct", "--epochs", "2"],
    "reconstruct in two groups": ["--method", "wanda+reconstruct", "--epochs", "2", "--block-groups", "2",
                                  "--only-blocks", "1-3"],
    "magnitude in two groups": ["--method", "magnitude", "--block-groups", "2"],
    "wanda in two groups": ["--method", "wanda", "--block-groups", "2"],
    "ro in two groups": ["--method", "ro", "--block-groups", "2", *COMMON],
    "rgs in two groups": ["--method", "rgs", "--block-groups", "2"],
    "sparsegpt in two groups": ["--method", "sparsegpt", "--block-groups", "2"],
    "wanda++ in two groups": ["--method", "wanda++", "--block-groups", "2", *COMMON],
    "wanda++ in two groups and batches": ["--method", "wanda++", "--block-groups", "2", "--ro-batch", "4", *COMMON],
    # Fewer ranks than groups work in rounds; on three, two ranks have nothing to do in the second.
    "wanda++ in four groups": ["--method", "wanda++", "--block-groups", "4", *COMMON],
    "searched learning rate": ["--method", "wanda++", "--block-groups", "2", "--ro-rounds", "1", "--ro-samples", "4",
                               "--ro-learning-rate", "auto", "--only-blocks", "2-3"],
    # On two and three ranks, ranks with groups before the searching one must not wait for its result.
    "learning rate searched in the third of four groups": [
        "--method", "ro", "--block-groups", "4", "--ro-rounds", "1", "--ro-samples", "4", "--ro-learning-rate", "auto",
        "--only-blocks", "2-3"],
}


def run(ranks: int, arguments: list[str], threads: int = 1, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """The binary on so many ranks; 0 ranks is without mpirun."""
    launcher = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMPI_ALLOW_RUN_AS_ROOT": "1",
                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    result = subprocess.run([*launcher, ESPALIER, *arguments], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == expect, result.stderr
    return result


def digest(run_folder: Path) -> str:
    """One hash over all files that hold weights or masks."""
    files = sorted(run_folder.glob("blocks/*.h5")) + [run_folder / "non_block.h5"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Four blocks wide enough that every rank gets rows of its own, and ten calibration samples."""
    folder = tmp_path_factory.mktemp("model")
    subprocess.run([sys.executable, RANDOM_MODEL, "--family", "llama-wide", "--dtype", "bf16", "--blocks", "4",
                    "--output", folder / "m", "--tokens", folder / "t.h5",
                    "--rows", "10", "--length", "24"], check=True)
    return folder / "m", folder / "t.h5"


@pytest.mark.parametrize("case", CASES)
def test_same_bits_for_every_rank_count(case: str, model: tuple[Path, Path], tmp_path: Path) -> None:
    digests = {}
    for ranks in RANKS:
        output = tmp_path / str(ranks)
        run(ranks, ["prune", "--model", str(model[0]), "--calibration", str(model[1]), "--output", str(output), *CASES[case]])
        digests[ranks] = digest(output)
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize("case", ["sparsegpt", "wanda++", "wanda++ in batches"])
def test_same_bits_for_every_thread_count(case: str, model: tuple[Path, Path], tmp_path: Path) -> None:
    digests = set()
    for threads in (1, 2, 3):
        output = tmp_path / str(threads)
        run(0, ["prune", "--model", str(model[0]), "--calibration", str(model[1]), "--output", str(output), *CASES[case]], threads)
        digests.add(digest(output))
    assert len(digests) == 1


def test_result_depends_on_groups_and_shards(model: tuple[Path, Path], tmp_path: Path) -> None:
    """The comparison above can fail: what may change the bits does."""
    digests = set()
    for name, more in {"plain": [], "groups": ["--block-groups", "2"], "shards": ["--shards", "3"]}.items():
        run(0, ["prune", "--model", str(model[0]), "--calibration", str(model[1]), "--output", str(tmp_path / name),
                *CASES["wanda++"], *more])
        digests.add(digest(tmp_path / name))
    assert len(digests) == 3


def test_perplexity_has_the_same_digits(model: tuple[Path, Path], tmp_path: Path) -> None:
    texts = set()
    for ranks in (0, 1, 2, 3, 8):
        file = tmp_path / f"{ranks}.json"
        out = run(ranks, ["evaluate", "--model", str(model[0]), "--tokens", str(model[1]), "--sequence-length", "16",
                          "--json", str(file)]).stdout
        assert re.fullmatch(r"perplexity \d+\.\d{6} \(T = 16, 15 windows\)\n", out)
        texts.add((out, json.loads(file.read_text())["perplexity"]))
    assert len(texts) == 1
    evaluate = ["evaluate", "--model", str(model[0]), "--tokens", str(model[1])]
    line, report = run(0, [*evaluate, "--sequence-length", "16", "--json"]).stdout.splitlines()
    assert (line + "\n", json.loads(report)["perplexity"]) in texts
    assert "(T = 24, 10 windows)" in run(0, evaluate).stdout, "windows are the file's rows"


def test_one_failing_rank_ends_all(model: tuple[Path, Path], tmp_path: Path) -> None:
    """The owner of block 1 (rank 1) cannot create its file: all end at once, with that rank's sentence, once."""
    output = tmp_path / "run"
    prune = ["prune", "--model", str(model[0]), "--calibration", str(model[1]), "--output", str(output), "--method", "wanda"]
    run(0, prune)
    manifest = json.loads((output / "manifest.json").read_text())
    manifest["blocks"], manifest["complete"] = manifest["blocks"][:1], False
    (output / "manifest.json").write_text(json.dumps(manifest))
    (output / "blocks/00001.h5.tmp").mkdir()
    result = run(3, prune, expect=3)
    sentences = [line for line in result.stderr.splitlines() if line.startswith("espalier:")]
    assert len(sentences) == 1 and sentences[0].startswith("espalier: rank 1: ") and "00001.h5" in sentences[0]


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
