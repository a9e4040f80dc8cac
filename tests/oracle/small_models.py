"""Small models and options for the tests of the oracle by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

from torch import Tensor

from checkpoint import Model, ModelConfig, calibration_samples, read_config, read_model_folder
from decoder import embed
from masks import Pattern
from method import PruneOptions
from random_model import ModelRequest, make_model, random_tokens

PATTERNS = ["2:4", "4:8", "3:8", "1:4", "unstructured"]
SAMPLES, TOKENS = 4, 12


def load(folder: Path, family: str, **request: object) -> "tuple[ModelConfig, Model, Tensor]":
    """A small model of a family and the hidden states [N, T, H] of its calibration samples."""
    make_model(folder, ModelRequest(family, **request))
    config, model = read_config(folder), read_model_folder(folder)
    tokens = calibration_samples(random_tokens(SAMPLES, TOKENS), SAMPLES, TOKENS)
    return config, model, embed(model, tokens)


def make_options(method: str, pattern: str = "2:4", **changes: object) -> PruneOptions:
    settings: Dict[str, object] = dict(ro_samples=3, ro_rounds=2, ro_learning_rate=1e-4)
    settings.update(changes)
    return PruneOptions(method, Pattern.parse(pattern), SAMPLES, TOKENS, **settings)


DRAWS = [[2, 0, 3], [1, 2, 0]]
