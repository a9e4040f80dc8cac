"""The oracle's masks and SparseGPT, against brute force."""

from __future__ import annotations

import itertools
from typing import List

import pytest
import torch
from torch import Tensor

import sparsegpt
from masks import Pattern, inexact_groups, select
from small_models import PATTERNS

torch.set_num_threads(1)


def brute_force_mask(scores: Tensor, pattern: Pattern) -> Tensor:
    """Removes one weight after the other, each time the lowest score, the lower column of equals."""
    mask = torch.ones_like(scores, dtype=torch.bool)
    rows, columns = scores.shape
    width = pattern.group_width(columns)
    for row, first in itertools.product(range(rows), range(0, columns, width)):
        for _ in range(pattern.removed_per_group(columns)):
            left = [column for column in range(first, first + width) if mask[row, column]]
            mask[row, min(left, key=lambda column: (float(scores[row, column]), column))] = False
    return mask


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("levels", [2, 5, 10**6])
def test_masks_against_brute_force_with_ties_and_zeros(pattern: str, levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(0, levels, (9, 24), generator=generator).double()
    parsed = Pattern.parse(pattern, "0.7")
    selection = select(scores, parsed)
    assert torch.equal(selection.mask, brute_force_mask(scores, parsed))
    assert inexact_groups(selection.mask, parsed) == 0
    broken = selection.mask.clone()
    broken[3, 5] ^= True
    assert inexact_groups(broken, parsed) == 1


def test_margin_is_the_distance_to_the_other_side_of_the_cut() -> None:
    margin = select(torch.tensor([[4.0, 1.0, 5.0, 2.0]], dtype=torch.float64), Pattern.parse("2:4")).margin
    assert margin.tolist() == [[0.5, 0.75, 0.6, 0.5]]


def test_sparsity_is_an_exact_decimal() -> None:
    assert Pattern.parse("unstructured", "0.29").removed_per_group(100) == 29
    assert Pattern.parse("unstructured", "0.7").removed_per_group(160) == 112
    assert Pattern.parse("unstructured", "0.7").removed_per_group(64) == 44


def brute_force_sweep(weight: Tensor, gram: Tensor, pattern: Pattern) -> Tensor:
    """SparseGPT's recursion with an explicit inverse of each trailing block instead of a Cholesky factor."""
    weight, gram = sparsegpt.prepare(weight, gram)
    columns = weight.shape[1]
    inverses = [torch.linalg.inv(gram[column:, column:]) for column in range(columns)]
    starts: List[int] = list(range(0, columns, pattern.group if pattern.structured else 128))
    for first, end in zip(starts, starts[1:] + [columns]):
        removed = pattern.group - pattern.kept
        if not pattern.structured:
            removed = int(end * pattern.sparsity) - int(first * pattern.sparsity)
        factors = torch.stack([inverses[column][0, 0] for column in range(first, end)])
        order = (weight[:, first:end].square() / factors).argsort(dim=1, stable=True)
        for column in range(first, end):
            gone = (order[:, :removed] == column - first).any(1)
            change = weight[gone, column, None] / inverses[column][0, 0] * inverses[column][0]
            weight[gone, column:] -= change
            weight[gone, column] = 0.0
    return weight


@pytest.mark.parametrize("pattern", ["2:4", "3:8", "5:12", "unstructured"])
def test_sparsegpt_against_explicit_inverses(pattern: str) -> None:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(6, 144, dtype=torch.float64, generator=generator)
    inputs = torch.randn(400, 144, dtype=torch.float64, generator=generator)
    inputs[:, 17] = 0.0
    parsed = Pattern.parse(pattern, "0.6")
    swept = sparsegpt.sweep(weight, inputs.T @ inputs, parsed)
    assert torch.allclose(swept.weight, brute_force_sweep(weight, inputs.T @ inputs, parsed), atol=1e-10)
    assert torch.equal(swept.weight != 0, swept.selection.mask) and not swept.selection.mask[:, 17].any()
    assert inexact_groups(swept.selection.mask, parsed) == 0
    forced = sparsegpt.sweep(weight, inputs.T @ inputs, parsed, swept.selection.mask)
    assert torch.equal(forced.weight, swept.weight) and torch.equal(forced.selection.mask, swept.selection.mask)


def test_sparsegpt_column_blocks_are_multiples_of_m() -> None:
    widths = {"2:4": 128, "3:8": 128, "5:12": 120, "64:256": 256, "unstructured": 128}
    assert {text: sparsegpt.column_block_width(Pattern.parse(text)) for text in widths} == widths
