"""The whole program on emulated GPUs: bits do not depend on their number, and what it says when they fail.

The program is $ESPALIER, by default tests/emulation/espalier. test_rank_invariance.py and the oracle run with it too:
    ESPALIER=tests/emulation/espalier pytest tests/prune/test_rank_invariance.py
    ESPALIER=tests/emulation/espalier ESPALIER_TEST_DEVICE=cuda pytest tests/oracle -k "f32 and prune"
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/oracle"))
from request_file import write_requests  # noqa: E402

ESPALIER = os.environ.get("ESPALIER", str(ROOT / "tests/emulation/espalier"))
METHODS = {
    "wanda": ["--method", "wanda"],
    "sparsegpt": ["--method", "sparsegpt"],
    "wanda++": ["--method", "wanda++", "--ro-rounds", "1", "--ro-samples", "4", "--ro-batch", "4"],
    "wanda++ in two groups": ["--method", "wanda++", "--ro-rounds", "1", "--ro-samples", "2", "--block-groups", "2"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two wide blocks and eight calibration samples."""
    folder = tmp_path_factory.mktemp("model")
    subprocess.run([sys.executable, ROOT / "tests/oracle/random_model.py", "--family", "llama-wide",
                    "--dtype", "bf16", "--blocks", "2", "--output", folder / "m", "--tokens", folder / "t.h5",
                    "--rows", "8", "--length", "24"], check=True)
    return folder / "m", folder / "t.h5"


def prune(gpus: int, model: tuple[Path, Path], output: Path, arguments: list[str],
          **variables: str) -> "subprocess.CompletedProcess[str]":
    """One rank for each GPU."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
                   **variables}
    return subprocess.run(["mpirun", "--oversubscribe", "-n", str(gpus), ESPALIER, "prune", "--device", "cuda",
                           "--model", model[0], "--calibration", model[1], "--output", output, *arguments],
                          env=environment, capture_output=True, text=True, timeout=300)


def digest(run_folder: Path) -> str:
    """One hash over all files that hold weights or masks."""
    files = sorted(run_folder.glob("blocks/*.h5")) + [run_folder / "non_block.h5"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def peak(run_folder: Path) -> int:
    """Bytes of GPU memory that tensors took at most."""
    return max(block["peak_bytes"] for block in json.loads((run_folder / "metrics.json").read_text())["blocks"])


@pytest.mark.parametrize("method", METHODS)
def test_same_bits_on_any_number_of_gpus(method: str, model: tuple[Path, Path], tmp_path: Path) -> None:
    digests = {}
    for gpus, order, streams in [(1, "forward", "eager"), (2, "reverse", "lazy"), (4, "greedy", "eager")]:
        done = prune(gpus, model, tmp_path / str(gpus), METHODS[method], ESPALIER_EMULATION_ORDER=order,
                     ESPALIER_EMULATION_STREAMS=streams)
        assert done.returncode == 0, done.stderr
        digests[gpus] = digest(tmp_path / str(gpus))
    assert len(set(digests.values())) == 1, digests


TRAININGS = {
    "masked-lora": ["--train", "masked-lora", "--loss", "mix", "--train-norms", "--rank", "8"],
    "lora": ["--train", "lora", "--loss", "lm", "--targets", "q_proj,down_proj", "--rank", "8"],
    "masked": ["--train", "masked", "--loss", "kl", "--train-norms"],
}


@pytest.mark.parametrize("training", TRAININGS)
def test_fine_tuning_on_any_number_of_gpus(training: str, model: tuple[Path, Path], tmp_path: Path) -> None:
    """Weights on every GPU or shared, in any order of execution."""
    done = prune(1, model, tmp_path / "pruned", ["--method", "wanda"])
    assert done.returncode == 0, done.stderr
    digests = {}
    for gpus, order, streams, weights in [(1, "forward", "eager", "auto"), (2, "reverse", "lazy", "shared")]:
        output = tmp_path / f"{gpus}-{order}"
        teacher = [] if "lm" in TRAININGS[training] else ["--teacher", str(model[0])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
                       "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
                       "ESPALIER_EMULATION_ORDER": order, "ESPALIER_EMULATION_STREAMS": streams}
        done = subprocess.run(["mpirun", "--oversubscribe", "-n", str(gpus), ESPALIER, "finetune", "--device", "cuda",
                               "--model", tmp_path / "pruned", "--data", model[1], "--output", output, "--steps", "2",
                               "--batch", "6", "--held-out", "2", "--evaluate-steps", "2", "--learning-rate", "1e-2",
                               "--sequence-length", "12", "--weights", weights, *TRAININGS[training], *teacher],
                              env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        files = sorted((output / "blocks").glob("*.h5"))
        digests[output.name] = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize("fault, words", [
    ("ncclGetUniqueId:1:0", ["ncclGetUniqueId failed", "NCCL_DEBUG=INFO"]),
    ("ncclGroupEnd:2:1", ["ncclGroupEnd failed"]),
    ("ncclBroadcast:1:0", ["ncclBroadcast failed", "failed on purpose"]),
    ("exchange:3:1", ["an exchange failed on purpose"]),
    ("silence:3:1", ["has not answered for", " s in block 0", "an NCCL exchange"]),
])
def test_failures_of_nccl_end_all_ranks(fault: str, words: list[str], model: tuple[Path, Path], tmp_path: Path) -> None:
    done = prune(2, model, tmp_path / "run", METHODS["wanda++"], ESPALIER_EMULATED_NCCL_FAULT=fault,
                 ESPALIER_COMMUNICATION_DEADLINE="2")
    assert done.returncode == 3, done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("espalier: ")]
    assert len(sentences) == 1, done.stderr
    for word in words:
        assert word in sentences[0], done.stderr


@pytest.mark.parametrize("method", ["wanda++ in two groups", "wanda++", "sparsegpt", "wanda"])
def test_a_budget_is_kept_and_changes_no_bits(method: str, tmp_path: Path) -> None:
    """With less memory the hidden states travel between host and GPU; the plan's numbers are those of the run."""
    calibrated = ("synthetic:llama-tiny:2", "synthetic:24x64")
    assert prune(1, calibrated, tmp_path / "whole", METHODS[method]).returncode == 0
    whole, host = peak(tmp_path / "whole"), 0
    for gpus in (1, 2):
        output = tmp_path / f"streamed{gpus}"
        budget = 0
        for share in (0.55, 0.7, 0.85, 0.95):  # the smallest that is enough
            budget = int(share * whole)
            # The GPU has hardly more than that and cuBLAS's work space.
            done = prune(gpus, calibrated, output, [*METHODS[method], "--fresh", "--gpu-memory", str(budget)],
                         ESPALIER_EMULATION_STREAMS="lazy",
                         ESPALIER_EMULATED_GPU_MEMORY=str((32 << 20) + budget + (1 << 16)))
            if done.returncode == 0:
                break
            assert done.returncode == 3 and "hidden states in host memory" in done.stderr, done.stderr
        assert done.returncode == 0, done.stderr
        assert peak(output) <= budget
        assert digest(output) == digest(tmp_path / "whole")
        host += "travel to the GPU" in done.stderr
    assert host > 0, "no run was short of memory"


def test_evaluation_keeps_a_budget_with_the_same_digits(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tests/oracle/random_model.py", "--family", "llama1", "--dtype", "bf16",
                    "--blocks", "1", "--output", tmp_path / "m", "--tokens", tmp_path / "t.h5", "--rows", "130",
                    "--length", "24"], check=True)
    losses = []
    for budget in (["--gpu-memory", "2000KiB"], ["--gpu-memory", "1700KiB"]):
        done = subprocess.run([ESPALIER, "evaluate", "--device", "cuda", "--model", tmp_path / "m", "--tokens",
                               tmp_path / "t.h5", "--json", *budget],
                              env={**os.environ, "OMP_NUM_THREADS": "1", "ESPALIER_EMULATION_STREAMS": "lazy"},
                              capture_output=True, text=True, timeout=300)  # fmt: skip
        assert done.returncode == 0, done.stderr
        losses.append((json.loads(done.stdout.splitlines()[-1])["loss"], "travel to the GPU" in done.stderr))
    assert losses[0][0] == losses[1][0] and [host for _, host in losses] == [False, True], losses


def test_scores_are_the_same_on_two_gpus_and_out_of_host_memory(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tests/oracle/random_model.py", "--family", "llama1", "--dtype", "bf16",
                    "--blocks", "1", "--output", tmp_path / "m", "--tokens", tmp_path / "t.h5", "--rows", "1",
                    "--length", "8"], check=True)  # fmt: skip
    # Six passes of two contexts and their choices.
    write_requests(tmp_path / "r.h5", [([i] * 200, [[1, 2], [3], [4] * 30]) for i in range(12)])
    found = []
    for gpus, budget in ((1, "16MiB"), (2, "16MiB"), (1, "1800KiB")):
        done = subprocess.run(["mpirun", "--oversubscribe", "-n", str(gpus), ESPALIER, "score", "--device", "cuda",
                               "--model", tmp_path / "m", "--requests", tmp_path / "r.h5", "--output",
                               tmp_path / "s.json", "--gpu-memory", budget],
                              env={**os.environ, "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
                                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                                   "OMPI_MCA_btl_vader_single_copy_mechanism": "none"},
                              capture_output=True, text=True, timeout=300)  # fmt: skip
        assert done.returncode == 0, done.stderr
        tasks = json.loads((tmp_path / "s.json").read_text())["tasks"]
        found.append((tasks, "travel to the GPU" in done.stderr))
    assert found[0][0] == found[1][0] == found[2][0] and [host for _, host in found] == [False, False, True]


def test_too_few_gpus_and_too_little_memory(model: tuple[Path, Path], tmp_path: Path) -> None:
    few = prune(3, model, tmp_path / "few", METHODS["wanda"], ESPALIER_EMULATED_GPUS="2")
    assert few.returncode == 2 and "3 ranks on this machine see 2 GPUs" in few.stderr, few.stderr
    shared = prune(2, model, tmp_path / "shared", METHODS["wanda"], ESPALIER_EMULATED_GPUS="1")
    assert shared.returncode == 2 and "share the GPU" in shared.stderr, shared.stderr
    small = prune(1, model, tmp_path / "small", METHODS["wanda"], ESPALIER_EMULATED_GPU_MEMORY=str(33 << 20))
    assert small.returncode == 3 and "do not hold" in small.stderr, small.stderr
    none = prune(1, model, tmp_path / "none", METHODS["wanda"], ESPALIER_EMULATED_GPUS="0")
    assert none.returncode == 2 and "no CUDA-capable device" in none.stderr, none.stderr


def prune_with_module(module: Path, model: tuple[Path, Path], output: Path, device: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([ROOT / "build/release/espalier", "prune", "--method", "magnitude", "--model", model[0],
                           "--calibration", model[1], "--output", output, "--device", device],
                          env={**os.environ, "OMP_NUM_THREADS": "1", "ESPALIER_CUDA_MODULE": str(module)},
                          capture_output=True, text=True, timeout=300)


def test_a_module_that_cannot_be_loaded_is_said(model: tuple[Path, Path], tmp_path: Path) -> None:
    """The CPU is taken, with a line that says why; --device cuda refuses."""
    module = tmp_path / "libespalier_cuda.so"
    module.write_text("no library")
    for device, status in (("auto", 0), ("cuda", 2)):
        done = prune_with_module(module, model, tmp_path / device, device)
        assert done.returncode == status, done.stderr
        assert "its module cannot be loaded" in done.stderr and str(module) in done.stderr
        assert "LD_LIBRARY_PATH" in done.stderr


def test_a_module_of_another_build_is_refused(model: tuple[Path, Path], tmp_path: Path) -> None:
    """Its classes may differ: what it says of itself is looked at before anything of it is called."""
    (tmp_path / "other.c").write_text('struct { const char *identity; } espalier_cuda_module = {"of another build"};\n')
    subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "other.c", "-o", tmp_path / "other.so"], check=True)
    done = prune_with_module(tmp_path / "other.so", model, tmp_path / "run", "cuda")
    assert done.returncode == 2 and "other.so belongs to another build of this program" in done.stderr
