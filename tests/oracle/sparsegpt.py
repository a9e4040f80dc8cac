"""SparseGPT of one matrix in float64 (Frantar & Alistarh, arXiv 2301.00774), with per-row exact counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Optional, Tuple

import torch
from torch import Tensor

from masks import Pattern, Selection, select_groups

DAMPING = 0.01
COLUMN_BLOCK = 128


@dataclass(frozen=True)
class SweepResult:
    """`weight`: the swept matrix. `selection`: the sweep's own decisions (given the forced ones before them)."""

    weight: Tensor
    selection: Selection
    condition: float


def column_block_width(pattern: Pattern) -> int:
    """128, or for N:M the largest multiple of M not above 128; M itself when M is larger."""
    if not pattern.structured:
        return COLUMN_BLOCK
    return max(COLUMN_BLOCK // pattern.group, 1) * pattern.group


def prepare(weight: Tensor, gram: Tensor) -> Tuple[Tensor, Tensor]:
    """The weight with dead inputs zeroed, and the Gram matrix with unit dead diagonals and 1 % damping."""
    weight, gram = weight.clone(), gram.clone()
    dead = gram.diagonal() == 0
    gram.diagonal()[dead] = 1.0
    weight[:, dead] = 0.0
    gram.diagonal().add_(DAMPING * gram.diagonal().mean())
    return weight, gram


def selections(pattern: Pattern, begin: int, end: int) -> Iterator[Tuple[int, int, int]]:
    """(first column, end column, weights removed) of every selection inside the column block [begin, end)."""
    if not pattern.structured:
        yield begin, end, pattern.removed_up_to(end) - pattern.removed_up_to(begin)
        return
    for first in range(begin, end, pattern.group):
        yield first, first + pattern.group, pattern.group - pattern.kept


def sweep(weight: Tensor, gram: Tensor, pattern: Pattern, forced_mask: Optional[Tensor] = None) -> SweepResult:
    """Prunes [out, in] `weight` column by column, spreading each error over the columns to its right.

    U is the upper Cholesky factor of the inverse Gram matrix. Column j scores w_j^2 / U_jj^2 when its group (N:M) or
    column block (unstructured) is reached; removing w_j subtracts w_j / U_jj * U_j,k from every later column k.
    With `forced_mask` that mask is applied instead of the sweep's own decisions, which are still taken and returned:
    so a finished run can be checked decision by decision although one flipped decision changes all later ones.
    """
    weight, gram = prepare(weight, gram)
    condition = float(torch.linalg.cond(gram))
    factor = torch.linalg.cholesky(torch.linalg.inv(gram)).mH
    mask = torch.ones_like(weight, dtype=torch.bool)
    margin = torch.ones_like(weight)
    columns = weight.shape[1]
    width = column_block_width(pattern)
    for begin in range(0, columns, width):
        for first, end, removed in selections(pattern, begin, min(begin + width, columns)):
            scores = weight[:, first:end].square() / factor.diagonal()[first:end].square()
            chosen = select_groups(scores, removed)
            mask[:, first:end], margin[:, first:end] = chosen.mask, chosen.margin
            applied = chosen.mask if forced_mask is None else forced_mask[:, first:end]
            for column in range(first, end):
                error = torch.where(applied[:, column - first], 0.0, weight[:, column]) / factor[column, column]
                weight[:, column:] -= error[:, None] * factor[column, column:]
                weight[~applied[:, column - first], column] = 0.0
    return SweepResult(weight, Selection(mask, margin), condition)
