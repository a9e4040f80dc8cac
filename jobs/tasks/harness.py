"""Items of lm-evaluation-harness's tasks, made by its own request builder."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from formats.json_file import InputRefused
from tasks.item import Choice, Item, Task


def load_tasks(names: list[str], include: Path | None) -> dict[str, Any]:
    """The harness's task objects by name; groups become their tasks."""
    try:
        from lm_eval.tasks import TaskManager, get_task_dict  # pylint: disable=import-outside-toplevel
    except ModuleNotFoundError as error:
        raise InputRefused(
            f"lm-evaluation-harness is not installed ({error}): build/venv/bin/pip install lm_eval"
        ) from error
    # The seeds of the harness's own runs: some tasks shuffle their choices.
    random.seed(0)
    numpy.random.seed(1234)
    with said_in_one_sentence("its tasks cannot be loaded"):
        manager = TaskManager(include_path=str(include) if include else None)
        unknown = [name for name in names if name not in manager.all_tasks]
        if unknown:
            raise InputRefused(f"lm-evaluation-harness knows no task {', '.join(unknown)}")
        return dict(flattened(get_task_dict(names, manager)))


@contextmanager
def said_in_one_sentence(what: str) -> Iterator[None]:
    """What the harness, its data sets and their hubs raise is of any kind."""
    try:
        yield
    except InputRefused:
        raise
    except Exception as error:
        sentence = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise InputRefused(f"lm-evaluation-harness: {what} ({sentence})") from error


def flattened(tasks: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Tasks of groups of groups."""
    for name, task in tasks.items():
        if isinstance(task, dict):
            yield from flattened(task)
        else:
            yield str(name), task


def gold_of(task: Any, document: Any, choices: list[str], name: str) -> int:
    """Index of the right choice, as the harness finds it."""
    gold = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    if isinstance(gold, str) and gold in choices:
        gold = choices.index(gold)
    if type(gold) is not int or not 0 <= gold < len(choices):
        raise InputRefused(f"the task {name} has items without one right choice ({gold!r}), which are not supported")
    return gold


def refuse_other_kinds(task: Any, name: str) -> None:
    """Only what acc and acc_norm of log-likelihoods judge."""
    if task.OUTPUT_TYPE not in ("multiple_choice", "loglikelihood"):
        raise InputRefused(
            f"the task {name} asks for '{task.OUTPUT_TYPE}'; multiple_choice and loglikelihood can be scored"
        )
    if callable(getattr(getattr(task, "config", None), "process_results", None)):
        raise InputRefused(f"the task {name} judges answers by a function of its own, which is not supported")


def choose_fewshot(task: Any, fewshot: int | None) -> None:
    """As the harness does: a task that says 0 keeps it."""
    own = task.get_config("num_fewshot")
    if own is None or (fewshot is not None and own != 0):
        task.set_config(key="num_fewshot", value=fewshot or 0)


def items_of(task: Any, name: str) -> Iterator[Item]:
    """The items of a task whose requests are built."""
    requests: dict[int, list[Any]] = {}
    for instance in task.instances:
        requests.setdefault(instance.doc_id, []).append(instance)
    for instances in requests.values():
        instances.sort(key=lambda instance: instance.idx)
        document = instances[0].doc
        if task.OUTPUT_TYPE == "loglikelihood":
            context, continuation = instances[0].args
            yield Item((Choice(context, continuation, continuation),), 0)
            continue
        answers = list(task.doc_to_choice(document))
        # Further requests are those of acc_mutual_info, without their contexts.
        pairs = [instance.args for instance in instances[: len(answers)]]
        choices = tuple(Choice(*pair, answer) for pair, answer in zip(pairs, answers))
        yield Item(choices, gold_of(task, document, answers, name))


def harness_tasks(names: list[str], include: Path | None, fewshot: int | None, limit: int | None) -> list[Task]:
    """The tasks with their items; `fewshot` None leaves the examples to each task."""
    made = []
    for name, task in load_tasks(names, include).items():
        refuse_other_kinds(task, name)
        choose_fewshot(task, fewshot)
        with said_in_one_sentence(f"the requests of {name} cannot be built"):
            task.set_fewshot_seed(seed=1234)  # the harness's own
            task.build_all_requests(limit=limit, rank=0, world_size=1)
            made.append(Task(name, list(items_of(task, name))))
    return made
