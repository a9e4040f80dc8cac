"""Pruning patterns, mask selection, and how close each decision was."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pattern:
    """N:M (keep `kept` of every `group` inputs of a row), or unstructured (`group` 0, remove `sparsity` of a row)."""

    kept: int = 0
    group: int = 0
    sparsity: Fraction = Fraction(0)

    @staticmethod
    def parse(text: str, sparsity: str = "0.5") -> "Pattern":
        """"N:M" or "unstructured"; the sparsity is read as an exact decimal."""
        matched = re.fullmatch(r"(\d+):(\d+)", text)
        if matched:
            return Pattern(int(matched[1]), int(matched[2]))
        if text != "unstructured":
            raise ValueError(f"unknown pattern {text}")
        return Pattern(sparsity=Fraction(sparsity))

    @property
    def structured(self) -> bool:
        return self.group > 0

    def removed_up_to(self, column: int) -> int:
        """Unstructured: weights removed of the first `column` of a row, floor(column * sparsity)."""
        return int(column * self.sparsity)

    def group_width(self, columns: int) -> int:
        """Columns among which one selection chooses."""
        return self.group if self.structured else columns

    def removed_per_group(self, columns: int) -> int:
        """Weights that one selection removes."""
        return self.group - self.kept if self.structured else self.removed_up_to(columns)


@dataclass(frozen=True)
class Selection:
    """`mask`: true = kept. `margin`: relative change of its score after which a weight's decision would turn."""

    mask: Tensor
    margin: Tensor


def select_groups(scores: Tensor, removed: int) -> Selection:
    """Removes the `removed` lowest of the last dimension; of equal scores the lower index goes first.

    The margin of a weight is its distance to the nearest score on the other side of the cut, relative to the larger of
    the two; it is 1 where nothing or everything is removed.
    """
    width = scores.shape[-1]
    if removed in (0, width):
        return Selection(torch.full_like(scores, removed == 0, dtype=torch.bool), torch.ones_like(scores))
    order = torch.argsort(scores, dim=-1, stable=True)
    mask = torch.ones_like(scores, dtype=torch.bool).scatter(-1, order[..., :removed], False)
    ordered = scores.gather(-1, order)
    highest_removed, lowest_kept = ordered[..., removed - 1, None], ordered[..., removed, None]
    opposite = torch.where(mask, highest_removed, lowest_kept)
    largest = torch.maximum(opposite, scores)
    margin = torch.where(largest > 0, (scores - opposite).abs() / largest, torch.zeros_like(scores))
    return Selection(mask, margin)


def select(scores: Tensor, pattern: Pattern) -> Selection:
    """The mask of a whole [out, in] matrix."""
    columns = scores.shape[1]
    width = pattern.group_width(columns)
    if columns % width:
        raise ValueError(f"{width} does not divide {columns}")
    grouped = select_groups(scores.reshape(-1, columns // width, width), pattern.removed_per_group(columns))
    return Selection(grouped.mask.reshape(scores.shape), grouped.margin.reshape(scores.shape))


def inexact_groups(mask: Tensor, pattern: Pattern) -> int:
    """How many groups (N:M) or rows (unstructured) do not remove exactly the demanded number."""
    columns = mask.shape[1]
    width = pattern.group_width(columns)
    removed = (~mask).reshape(-1, width).sum(-1)
    return int((removed != pattern.removed_per_group(columns)).sum())
