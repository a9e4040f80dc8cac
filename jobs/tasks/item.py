"""Items of tasks: a question with its choices, as text and as token ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from formats.json_file import InputRefused
from formats.text_tokenizer import TextTokenizer, first_token_of_texts, load_tokenizer


@dataclass(frozen=True)
class Choice:
    """One continuation of a context. `answer` is what counts for its length: without the blank that joins the two."""

    context: str
    continuation: str
    answer: str


@dataclass(frozen=True)
class Item:
    """A question. With one choice only, what is asked is whether greedy decoding gives it."""

    choices: tuple[Choice, ...]
    gold: int  # index of the right choice


@dataclass(frozen=True)
class Request:
    """Token ids of a choice."""

    context: list[int]
    continuation: list[int]


class RequestTokenizer:
    """Token ids of context and continuation by lm-evaluation-harness's rule for the border between the two."""

    def __init__(self, path: Path, add_bos: bool | None) -> None:
        self.path = path
        self.tokenizer = load_tokenizer(path, add_bos)
        self.sha256 = self.tokenizer.sha256
        self.last_context: tuple[str, list[int]] = ("", [])

    @cached_property
    def plain(self) -> TextTokenizer:
        """Without the tokens that begin or end a text."""
        return load_tokenizer(self.path, False)

    @cached_property
    def first(self) -> str:
        """What begins a text that has no context."""
        return first_token_of_texts(self.path)

    def encode(self, choice: Choice) -> Request:
        """Blanks at the end of a context belong to the continuation; both are tokenised together, then cut where the
        context by itself ends."""
        if not choice.context:
            return self.encode_alone(choice.continuation)
        context = choice.context.rstrip()
        continuation = choice.context[len(context) :] + choice.continuation
        if context != self.last_context[0]:
            self.last_context = context, self.ids_of(context)
        begin = self.last_context[1]
        return self.checked(Request(begin, self.ids_of(context + continuation)[len(begin) :]), choice)

    def ids_of(self, text: str) -> list[int]:
        """A text that begins with the token already gets no second one."""
        begins = self.tokenizer.adds_bos() and text.startswith(self.first)
        return (self.plain if begins else self.tokenizer).encode(text)

    def encode_alone(self, continuation: str) -> Request:
        """Behind the token that begins a text, which may be the first of the continuation."""
        ids, begin = self.plain.encode(continuation), self.plain.encode(self.first)
        request = Request(ids[:1], ids[1:]) if ids[:1] == begin else Request(begin, ids)
        return self.checked(request, Choice("", continuation, continuation))

    @staticmethod
    def checked(request: Request, choice: Choice) -> Request:
        """Something must be read, and something predicted."""
        if not request.context or not request.continuation:
            empty = "context" if not request.context else "continuation"
            raise InputRefused(
                f"the {empty} of {choice.continuation!r} after {choice.context[-40:]!r} has no tokens of its own"
            )
        return request


@dataclass(frozen=True)
class Task:
    """A name and its items."""

    name: str
    items: list[Item]


def check_items(items: Iterable[Item], where: str) -> list[Item]:
    """The items as a list; there must be some."""
    checked = list(items)
    if not checked:
        raise InputRefused(f"{where} holds no items")
    return checked
