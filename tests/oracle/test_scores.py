"""`espalier score` against the oracle: log-likelihoods and greedy answers, on tiny random models.

The program is $ESPALIER, by default build/release/espalier of this repository.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List, Tuple

import numpy
import pytest
import torch

from checkpoint import Model, ModelConfig, read_config, read_model_folder
from decoder import block_forward, embed, logits
from espalier_program import DEVICE, espalier, run_program
from random_model import ModelRequest, make_model
from request_file import Item, write_requests

ITEMS = [([7, 3, 3], [[5, 9], [200], [1, 2, 3]]), ([11] * 20, [[4], [6]]), ([9], [[8, 8]])]


def make_items() -> List[Item]:
    """Short and long ones; the last asks for a greedy answer."""
    generator = numpy.random.default_rng(5)
    drawn = [
        (generator.integers(0, 256, size=length).tolist(), [generator.integers(0, 256, 4).tolist() for _ in range(2)])
        for length in (30, 2, 14, 14, *[44] * 12)
    ]  # more than one pass
    return [*ITEMS, *drawn]


def expected(config: ModelConfig, model: Model, context: List[int], continuation: List[int]) -> Tuple[float, bool]:
    """From the definition, one sequence at a time."""
    x = embed(model, torch.tensor((context + continuation)[:-1]))
    for index in range(config.block_count):
        x = block_forward(config.of_block(index), model.block(index), x)
    rows = torch.log_softmax(logits(config, model, x)[-len(continuation) :], dim=-1)
    of_tokens = rows.gather(1, torch.tensor(continuation)[:, None])[:, 0]
    return float(of_tokens.sum()), bool((of_tokens == rows.max(dim=1).values).all())


def score(espalier: Path, model: Path, requests: Path, output: Path, ranks: int = 0) -> Dict:
    """What the program finds."""
    words = ["score", "--model", model, "--requests", requests, "--output", output, "--device", DEVICE]
    run_program(espalier, *words, ranks=ranks)
    return json.loads(output.read_text())


@pytest.mark.parametrize("family", ["llama3", "phi3-mini", "mistral3"])
def test_scores(espalier: Path, tmp_path: Path, family: str) -> None:
    """Sequences are short and long of longrope's original length; contexts are shared."""
    model_folder = make_model(tmp_path / "model", ModelRequest(family))
    config, model, items = read_config(model_folder), read_model_folder(model_folder), make_items()
    with torch.no_grad():
        greedy = ITEMS[2][0]
        x = embed(model, torch.tensor(greedy))
        for index in range(config.block_count):
            x = block_forward(config.of_block(index), model.block(index), x)
        items[2] = (greedy, [[int(logits(config, model, x)[-1].argmax())]])
    requests = write_requests(tmp_path / "requests.h5", items)
    found = score(espalier, model_folder, requests, tmp_path / "scores.json")
    (task,) = found["tasks"]
    assert task["name"] == "random" and len(task["items"]) == len(items) and found["cut"] == 0
    number = 0
    for item, (context, choices) in zip(task["items"], items):
        for likelihood, is_greedy, choice in zip(item["log_likelihoods"], item["greedy"], choices):
            number += 1
            assert (likelihood, is_greedy) == (
                pytest.approx(expected(config, model, context, choice)[0], rel=2e-6),
                expected(config, model, context, choice)[1],
            )
        assert item["characters"] == item["bytes"] == list(range(number - len(choices) + 1, number + 1))
    assert task["items"][2]["greedy"] == [True]
    if family != "llama3":
        return
    others = score(espalier, model_folder, requests, tmp_path / "ranks.json", ranks=3)
    assert others["tasks"] == found["tasks"]


def test_long_contexts_lose_their_beginning(espalier: Path, tmp_path: Path) -> None:
    model_folder = make_model(tmp_path / "model", ModelRequest("llama1"))
    config_file = model_folder / "config.json"
    content = json.loads(config_file.read_text())
    config_file.write_text(json.dumps({**content, "max_position_embeddings": 16}))
    config, model = read_config(model_folder), read_model_folder(model_folder)
    context, continuation = list(range(40)), [90, 91, 92]
    requests = write_requests(tmp_path / "requests.h5", [(context, [continuation])])
    found = score(espalier, model_folder, requests, tmp_path / "scores.json")
    assert found["cut"] == 1
    kept = (context + continuation)[-17:-3]
    likelihood = found["tasks"][0]["items"][0]["log_likelihoods"][0]
    assert likelihood == pytest.approx(expected(config, model, kept, continuation)[0], rel=2e-6)
