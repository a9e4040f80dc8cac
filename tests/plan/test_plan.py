"""`espalier plan` and `prune --dry-run-ranks` as a user sees them, and a dry run against real ranks.

The program is $ESPALIER, by default build/release/espalier.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List

import numpy
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("ESPALIER", REPOSITORY / "build" / "release" / "espalier")).resolve()
MPIRUN = shutil.which("mpirun")
assert PROGRAM.exists(), f"{PROGRAM} is not built"

MODEL = "synthetic:llama-tiny"
CALIBRATION = ["--calibration=synthetic:16x48", "--device=cpu"]
# Where times are compared: enough of each operation to be measured.
LONGER = ["--calibration=synthetic:16x384", "--device=cpu"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
               "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}  # fmt: skip


def run(*words: str, status: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run([str(PROGRAM), *words], env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    return done


def plan(*words: str) -> Dict[str, Any]:
    return json.loads(run("plan", "--json", *words).stdout)


def test_the_plan_of_a_70b_is_there_at_once() -> None:
    """Processor seconds, since other work slows this: a plan computes nothing."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ["--model=synthetic:llama-2-70b", "--ranks=16", "--block-groups=2", "--gpu=h100"]
    text = run("plan", *words).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3.0
    for expected in ("16 in 2 block group(s)", "device memory", "optimise", "matrix products", "hidden states"):
        assert expected in text


def test_the_measured_7b_is_foreseen() -> None:
    """On an H200: 2.91 s a block, 11.18 GB, 32,107 TFLOP (docs/performance.md)."""
    seen = plan("--model=synthetic:llama-2-7b", "--gpu=h200")
    assert seen["block_seconds"] == pytest.approx(2.91, rel=0.1)
    assert seen["memory_bytes"] == pytest.approx(11.18e9, rel=0.02)
    assert seen["flops"] == pytest.approx(32107e12, rel=0.001)
    assert seen["bytes_communicated"] == 0


def test_totals_are_those_of_all_ranks(tmp_path: Path) -> None:
    """Multiplications to the last; bytes about, since every block draws other samples."""
    for ranks, words in ((1, []), (2, ["--ro-batch=4"]), (3, []), (4, ["--block-groups=2", "--ro-batch=2"])):
        run_folder = tmp_path / f"totals-{ranks}"
        launch = [str(MPIRUN), "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
        subprocess.run([*launch, str(PROGRAM), "prune", f"--model={MODEL}", f"--output={run_folder}", *CALIBRATION, *words],
                       env=ENVIRONMENT, check=True, capture_output=True, timeout=120)  # fmt: skip
        blocks = json.loads((run_folder / "metrics.json").read_text())["blocks"]
        seen = plan(f"--model={MODEL}", "--gpu=cpu", "--samples=16", "--sequence-length=48", f"--ranks={ranks}", *words)
        pruning = sum(block["flops"] for block in blocks)
        one = blocks[0]["flops"]
        if len(words) < 2:
            assert seen["flops"] == pruning, ranks
        else:  # two of four blocks are also passed densely
            assert pruning < seen["flops"] < pruning + one / 2
        if ranks == 1:
            assert seen["bytes_communicated"] == 0
        # What a block's owner sent is at most its share of all.
        sent = sum(count["bytes_sent"] for block in blocks for counts in block["communication"].values()
                   for count in counts.values())  # fmt: skip
        assert seen["bytes_communicated"] >= sent


def test_groups_are_paid_for() -> None:
    """Dense passes cost arithmetic, reading and communication, and groups that wait for each other cost time."""
    words = ["--model=synthetic:llama-2-7b", "--samples=32", "--ro-rounds=1"]
    one, two = (plan(*words, "--ranks=2", f"--block-groups={groups}") for groups in (1, 2))
    assert two["flops"] > one["flops"] and two["bytes_read"] == pytest.approx(1.5 * one["bytes_read"])
    assert two["bytes_communicated"] > 16 * 2048 * 4096 * 4
    assert two["run_seconds"] > two["blocks_in_a_row"] * two["block_seconds"] + two["dense_seconds"]
    assert plan(*words, "--ranks=3", "--block-groups=4")["blocks_in_a_row"] == 16, "a round of three groups, one of one"


def test_a_group_on_two_machines_is_slower() -> None:
    words = ["--model=synthetic:llama-2-70b", "--ranks=12", "--block-groups=2", "--ro-batch=6", "--shards=12"]
    assert plan(*words)["block_seconds"] > plan(*words, "--gpus-per-node=6")["block_seconds"]


def test_more_ranks_need_less_memory_and_time() -> None:
    one, eight = (plan("--model=synthetic:llama-2-70b", f"--ranks={n}", "--ro-batch=8") for n in (1, 8))
    assert eight["memory_bytes"] < one["memory_bytes"]
    assert eight["run_seconds"] < one["run_seconds"] / 4
    assert eight["bytes_communicated"] > 0


def test_the_table_has_a_row_for_every_power_of_two() -> None:
    words = ["--model=synthetic:llama-2-7b", "--samples=32", "--ro-rounds=1", "--table"]
    rows = plan(*words)["rows"]
    assert [row["ranks"] for row in rows] == [2**n for n in range(11)]
    assert all(later["run_seconds"] <= earlier["run_seconds"] for earlier, later in zip(rows, rows[1:]))
    assert run("plan", *words).stdout.count("%") == len(rows)


def test_ranks_without_samples_do_not_count() -> None:
    """With 8 shards on 16 ranks half of the ranks have the work of 8."""
    eight, sixteen = (plan("--model=synthetic:llama-2-7b", f"--ranks={n}", "--ro-batch=8", "--shards=8") for n in (8, 16))
    assert sixteen["phases"]["dense_pass"]["seconds"] > 0.9 * eight["phases"]["dense_pass"]["seconds"]


def test_a_gpu_that_is_too_small_is_named() -> None:
    done = run("plan", "--model=synthetic:llama-2-70b", "--gpu-memory=4GiB", status=3)
    assert "needs even with its hidden states in host memory" in done.stderr
    streamed = plan("--model=synthetic:llama-2-7b", "--gpu-memory=8GiB")
    assert streamed["hidden_states"] == "host" and streamed["memory_bytes"] < 8 * 2**30


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--gpu=v100"], "--gpu 'v100' is not one of h100, h200"),
        (["--ranks=0"], "--ranks"),
        (["--block-groups=81"], "--block-groups must lie between 1 and the model's 80"),
        (["--rates=/nothere"], "--rates /nothere cannot be read"),
        (["--rates=/nothere", "--gpu=h100"], "not both"),
        (["--gpu-memory=1TB"], "is more than"),
    ],
)
def test_wrong_words_are_refused(words: List[str], sentence: str) -> None:
    assert sentence in run("plan", "--model=synthetic:llama-2-70b", *words, status=2).stderr


def test_rates_that_doctor_measured(tmp_path: Path) -> None:
    rates = tmp_path / "rates.json"
    subprocess.run([str(PROGRAM), "doctor", "--device=cpu", f"--rates={rates}"], env=ENVIRONMENT, cwd=tmp_path, check=True,
                   capture_output=True, timeout=120)  # fmt: skip
    seen = plan(f"--model={MODEL}", f"--rates={rates}", "--samples=16", "--sequence-length=256")
    assert seen["run_seconds"] > 0
    measured = json.loads(rates.read_text())
    del measured["tf32"]["attention"]
    rates.write_text(json.dumps(measured))
    assert 'field "attention"' in run("plan", f"--model={MODEL}", f"--rates={rates}", status=2).stderr


WORK = ["--method=wanda++", "--ro-batch=4"]


def dry_run(folder: Path, ranks: int, calibration: List[str]) -> Dict[int, Dict[str, Any]]:
    report = folder / "dry.json"
    run("prune", f"--model={MODEL}", *calibration, *WORK, f"--dry-run-ranks={ranks}", f"--dry-run-report={report}", "--gpus-per-node=64")
    return {point["ranks"]: point["dry_run"] for point in json.loads(report.read_text())["strong"]}


def test_a_dry_run_takes_the_network_of_rates(tmp_path: Path) -> None:
    rates = tmp_path / "rates.json"
    subprocess.run([str(PROGRAM), "doctor", "--device=cpu", f"--rates={rates}"], env=ENVIRONMENT, cwd=tmp_path, check=True,
                   capture_output=True, timeout=120)  # fmt: skip
    slow = json.loads(rates.read_text())
    slow["network"]["inside"]["latency"] = 0.1
    rates.write_text(json.dumps(slow))
    words = ["prune", f"--model={MODEL}", *CALIBRATION, "--method=wanda", "--dry-run-ranks=2"]
    report = tmp_path / "dry.json"
    run(*words, f"--rates={rates}", f"--dry-run-report={report}")
    seen = json.loads(report.read_text())
    two = next(point["dry_run"] for point in seen["strong"] if point["ranks"] == 2)
    assert sum(phase["seconds"] for phase in two["phases"].values()) > 0.5 and f"network of {rates}" in seen["rates"]["origin"]
    slow["kind"] = "gpu"
    rates.write_text(json.dumps(slow))
    assert "are of a GPU, but this runs on a CPU" in run(*words, f"--rates={rates}", status=2).stderr
    wanted = ["prune", f"--model={MODEL}", *CALIBRATION, f"--output={tmp_path / 'run'}", f"--rates={rates}"]
    assert "--rates is for --dry-run-ranks" in run(*wanted, status=2).stderr


def real_run(folder: Path, ranks: int, calibration: List[str]) -> List[Dict[str, Any]]:
    """Blocks that rank 0 owned: what they cost."""
    launch = [str(MPIRUN), "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    output = folder / f"run-{ranks}"
    subprocess.run([*launch, str(PROGRAM), "prune", f"--model={MODEL}", f"--output={output}", "--fresh", *calibration,
                    *WORK],
                   env=ENVIRONMENT, check=True, capture_output=True, timeout=120)  # fmt: skip
    blocks = json.loads((output / "metrics.json").read_text())["blocks"]
    return [block for block in blocks if block["index"] % ranks == 0]


@pytest.mark.skipif(MPIRUN is None, reason="mpirun is not installed")
def test_a_dry_run_counts_what_real_ranks_count(tmp_path: Path) -> None:
    """Of the first block; others draw other samples, of which more or fewer lie on another rank."""
    points = dry_run(tmp_path, 4, CALIBRATION)
    for ranks in (1, 2, 4):
        block = real_run(tmp_path, ranks, CALIBRATION)[0]
        for phase, counts in block["communication"].items():
            assert points[ranks]["phases"][phase]["communication"] == counts, (ranks, phase)
        if ranks == 1:
            assert points[ranks]["flops_of_block"] == block["flops"]


def test_a_dry_run_of_block_groups() -> None:
    """Strong and weak; of fewer ranks than groups, too."""
    calibration = ["--calibration=synthetic:16x128", "--device=cpu"]
    done = run("prune", f"--model={MODEL}", *calibration, *WORK, "--dry-run-ranks=6", "--block-groups=3")
    assert done.stdout.count(" %") == 8
    weak = done.stdout.split("weak scaling")[1]
    assert all(0.3 < float(share) / 100 < 1.5 for share in re.findall(r"([0-9.]+) %", weak)), weak


def test_the_dense_states_for_later_rounds_are_planned() -> None:
    one, four = (plan("--model=synthetic:llama-2-7b", "--gpu-memory=6GiB", f"--block-groups={n}") for n in (1, 4))
    assert four["host_bytes"] > one["host_bytes"] + 4e9


def test_headline_and_items_are_one_count() -> None:
    for words in (["--ranks=3", "--ro-batch=4"], ["--ranks=2", "--block-groups=4"], ["--evaluate=100000", "--ranks=2"]):
        seen = plan("--model=synthetic:llama-2-7b", *words)
        assert sum(seen["memory"].values()) == seen["memory_bytes"] > 0, words


def test_an_evaluation_is_planned(tmp_path: Path) -> None:
    """In numbers: the windows of WikiText-2, and what one pass of them multiplies."""
    seen = plan("--model=synthetic:llama-2-7b", "--evaluate=341469", "--gpu=h200")
    assert (seen["windows"], seen["sequence_length"], seen["hidden_states"]) == (166, 2048, "device")
    tokens, weights = 166 * 2048, 32 * 202.4e6 + 32000 * 4096
    assert seen["flops"] == pytest.approx(2 * tokens * weights, rel=0.05)  # and attention
    small = plan("--model=synthetic:llama-2-7b", "--evaluate=341469", "--gpu-memory=2GiB")
    assert small["hidden_states"] == "host" and small["memory_bytes"] < 2 * 2**30 < seen["memory_bytes"]
    text = run("plan", "--model=synthetic:llama-2-7b", "--evaluate=341469").stdout
    assert "166 windows of 2048 tokens on 1 rank(s)" in text and "hidden states" in text
    # From a file, by its rows.
    numpy.save(tmp_path / "tokens.npy", numpy.zeros((3, 64), numpy.int32))
    seen = plan("--model=synthetic:llama-tiny", f"--evaluate={tmp_path / 'tokens.npy'}", "--gpu=cpu")
    assert (seen["windows"], seen["sequence_length"]) == (3, 64)


def others_use_cores() -> float:
    """Cores that other programs keep busy just now."""

    def busy() -> float:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")

    before, begin = busy(), time.monotonic()
    time.sleep(0.5)
    return (busy() - before) / (time.monotonic() - begin)


@pytest.mark.skipif(MPIRUN is None, reason="mpirun is not installed")
def test_a_dry_run_takes_the_time_of_real_ranks(tmp_path: Path) -> None:
    """Within a quarter; the best of some tries each. Ranks need a core each that nobody else uses, of steady speed."""
    for ranks in [n for n in (1, 2, 4) if n <= len(os.sched_getaffinity(0))]:
        dry: List[float] = []
        real: List[float] = []
        for _ in range(6):
            give_up = time.monotonic() + 20
            while others_use_cores() > 0.2 and time.monotonic() < give_up:
                time.sleep(1)
            phases = dry_run(tmp_path, ranks, LONGER)[ranks]["phases"].values()
            dry.append(sum(phase["seconds"] for phase in phases))
            real.append(min(sum(block["seconds"].values()) for block in real_run(tmp_path, ranks, LONGER)))
            if 0.75 < min(dry) / min(real) < 1.25:
                break
        if others_use_cores() > 0.5 or max(max(times) / min(times) for times in (dry, real)) > 1.4:
            pytest.skip("this machine's speed varies by more than what is tested")
        assert 0.75 < min(dry) / min(real) < 1.25, f"{ranks} ranks: {dry} s in dry runs, {real} s in real ones"


def test_a_dry_run_is_for_one_process(tmp_path: Path) -> None:
    done = subprocess.run([str(MPIRUN), "--oversubscribe", "-n", "2", str(PROGRAM), "prune", f"--model={MODEL}", *CALIBRATION, *WORK,
                           "--dry-run-ranks=4"], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 2 and "one process" in done.stderr
