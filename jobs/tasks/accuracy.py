"""Accuracies of tasks from what `espalier score` wrote. Only the standard library (Python 3.9 or later)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

from formats.json_file import InputRefused, read_json


class Share(NamedTuple):
    """How many of the items are right, and how sure that is."""

    value: float
    error: Optional[float]  # standard error; of one item alone there is none

    def text(self) -> str:
        """In per cent."""
        value = f"{100 * self.value:.1f}"
        return value if self.error is None else f"{value} ± {100 * self.error:.1f}"


class Accuracy(NamedTuple):
    """Of one task, as lm-evaluation-harness counts. A task that asks for greedy answers has only `acc`."""

    items: int
    acc: Share
    acc_norm: Optional[Share] = None  # likelihoods by the answers' characters
    acc_bytes: Optional[Share] = None  # by their bytes

    def as_json(self) -> dict[str, Any]:
        """For tables of other programs."""
        content: dict[str, Any] = {"items": self.items}
        for name in SHARES:
            share = getattr(self, name)
            if share is not None:
                content[name] = share.value
                if share.error is not None:
                    content[f"{name}_stderr"] = share.error
        return content

    @staticmethod
    def from_json(content: dict[str, Any]) -> Accuracy:
        """What as_json has written."""
        shares = {name: Share(content[name], content.get(f"{name}_stderr")) for name in SHARES if name in content}
        return Accuracy(content["items"], **shares)


SHARES = ("acc", "acc_norm", "acc_bytes")


def best(values: list[float]) -> int:
    """Index of the largest; the first of equal ones."""
    return values.index(max(values))


def right_answers(item: dict[str, Any]) -> tuple[bool, Optional[bool], Optional[bool]]:
    """Whether an item is right: by likelihood, by characters, by bytes."""
    likelihoods = item["log_likelihoods"]
    if len(likelihoods) == 1:
        return item["greedy"][0], None, None
    chosen = [best(likelihoods)]
    for lengths in (item["characters"], item["bytes"]):
        chosen.append(best([value / max(length, 1) for value, length in zip(likelihoods, lengths)]))
    return chosen[0] == item["gold"], chosen[1] == item["gold"], chosen[2] == item["gold"]


def share_of(right: list[bool]) -> Share:
    """Mean and its standard error, from the sample's variance."""
    value = sum(right) / len(right)
    error = math.sqrt(value * (1 - value) / (len(right) - 1)) if len(right) > 1 else None
    return Share(value, error)


def accuracy_of(items: list[dict[str, Any]]) -> Accuracy:
    """All accuracies of a task's items."""
    right, by_characters, by_bytes = zip(*map(right_answers, items))
    several = [index for index, value in enumerate(by_characters) if value is not None]

    def of(values: tuple[Optional[bool], ...]) -> Optional[Share]:
        return share_of([bool(values[index]) for index in several]) if several else None

    return Accuracy(len(items), share_of(list(right)), of(by_characters), of(by_bytes))


def mean_of(tasks: Iterable[Accuracy], name: str = "acc") -> Optional[Share]:
    """Of the tasks' acc, or of another share where tasks have it; each counts the same."""
    shares = [share for accuracy in tasks if (share := getattr(accuracy, name)) is not None]
    if not shares:
        return None
    errors = [share.error for share in shares]
    known = [error for error in errors if error is not None]
    error = math.sqrt(sum(error**2 for error in known)) / len(shares) if len(known) == len(shares) else None
    return Share(sum(share.value for share in shares) / len(shares), error)


class Scores(NamedTuple):
    """What one model has in all tasks of a request file."""

    requests_sha256: str
    tasks: dict[str, Accuracy]


def read_scores(path: Path) -> Scores:
    """The accuracies that a file of `espalier score` holds."""
    content = read_json(path)
    if content.get("format") != "espalier-scores" or content.get("version") != 1:
        raise InputRefused(f"{path} is not what `espalier score` writes (format espalier-scores, version 1)")
    try:
        return Scores(content["requests_sha256"], dict(read_tasks(content["tasks"])))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise InputRefused(f"{path}: its tasks cannot be read ({error!r})") from error


def read_tasks(tasks: list[dict[str, Any]]) -> Iterator[tuple[str, Accuracy]]:
    """Name and accuracy of each task."""
    for task in tasks:
        yield task["name"], accuracy_of(task["items"])


def task_cells(models: dict[str, dict[str, Accuracy]]) -> list[list[str]]:
    """A table of models (down) and tasks (across) with its heading, in per cent with standard errors. acc_bytes has
    columns where it differs from acc_norm: in English it hardly does."""
    accuracies = [accuracy for tasks in models.values() for accuracy in tasks.values()]
    shown = [name for name in SHARES if any(getattr(accuracy, name) for accuracy in accuracies)]
    if all(accuracy.acc_bytes == accuracy.acc_norm for accuracy in accuracies):
        shown = [name for name in shown if name != "acc_bytes"]
    names = list(dict.fromkeys(name for tasks in models.values() for name in tasks))
    lines = [["Model"], *([model] for model in models)]

    def add(heading: str, shares: list[Optional[Share]]) -> None:
        if any(share is not None for share in shares):
            for line, cell in zip(lines, [heading, *(share.text() if share else "" for share in shares)]):
                line.append(cell)

    for task in names:
        of_task = [tasks.get(task) for tasks in models.values()]
        for share in shown:
            add(f"{task} {share}" if share == "acc" else share, [getattr(one, share, None) for one in of_task])
    for share in shown if len(names) > 1 else []:
        add(f"mean {share}", [mean_of(tasks.values(), share) for tasks in models.values()])
    return lines
