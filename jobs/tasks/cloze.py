"""Cloze: which of four sentences goes on with a passage of held-out prose? Three come from elsewhere in it."""

from __future__ import annotations

import random
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from formats.json_file import InputRefused
from tasks.item import Choice, Item

CHOICES = 4
SHORTEST_SENTENCE = 40  # characters
LONGEST_SENTENCE = 240
TRIES = 100  # to draw the wrong choices of an item
PARAGRAPH_END = re.compile(r"\n\s*\n")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
OPENING = "\"'“‘«„(¿¡"


@dataclass(frozen=True)
class Place:
    """A sentence and what stands before it in its document."""

    document: int
    begin: int
    context: str
    sentence: str


def paragraphs_of(document: str) -> list[str]:
    """Without the line ends inside of them: texts are often wrapped."""
    return [" ".join(paragraph.split()) for paragraph in PARAGRAPH_END.split(document) if paragraph.strip()]


def sentences_of(paragraph: str) -> Iterator[tuple[int, int]]:
    """Where sentences begin and end: before a blank after a full stop, where a capital or an opening mark follows."""
    begin = 0
    for match in SENTENCE_END.finditer(paragraph):
        following = paragraph[match.end() : match.end() + 1]
        if following.isupper() or following in OPENING:
            yield begin, match.start()
            begin = match.end()
    yield begin, len(paragraph)


def places_of(documents: list[str], context_characters: int) -> Iterator[Place]:
    """Every sentence that can be asked for: neither too short nor too long, and behind so many characters."""
    for number, document in enumerate(documents):
        paragraphs = paragraphs_of(document)
        text = "\n\n".join(paragraphs)
        offsets = accumulate((len(paragraph) + 2 for paragraph in paragraphs), initial=0)
        bounds = [
            (offset + begin, offset + end)
            for offset, paragraph in zip(offsets, paragraphs)
            for begin, end in sentences_of(paragraph)
        ]
        begins = [begin for begin, _ in bounds]
        for index, (begin, end) in enumerate(bounds):
            context_end = bounds[index - 1][1] if index else 0
            first = bisect_right(begins, context_end - context_characters, hi=index) - 1
            if first >= 0 and SHORTEST_SENTENCE <= end - begin <= LONGEST_SENTENCE:
                yield Place(number, begin, text[begins[first] : context_end], text[begin:end])


class Distractors:
    """Sentences of about the same length from other places, so that neither length nor neighbourhood tells."""

    def __init__(self, places: list[Place]) -> None:
        self.by_length = sorted(places, key=lambda place: (len(place.sentence), place.document, place.begin))
        self.lengths = [len(place.sentence) for place in self.by_length]

    def draw(self, place: Place, generator: random.Random) -> list[str]:
        """The wrong choices of an item; none when there are too few."""
        length, far = len(place.sentence), 2 * len(place.context)
        first, last = bisect_left(self.lengths, length - length // 4), bisect_right(self.lengths, length + length // 4)
        drawn: dict[str, None] = {}
        for _ in range(TRIES):
            other = self.by_length[generator.randrange(first, last)]
            near = other.document == place.document and abs(other.begin - place.begin) <= far
            if not near and other.sentence != place.sentence:
                drawn[other.sentence] = None
            if len(drawn) == CHOICES - 1:
                return list(drawn)
        return []


def cloze_items(documents: list[str], items: int, context_characters: int, seed: int) -> list[Item]:
    """`items` different sentences, drawn and mixed by `seed`."""
    places = list(places_of(documents, context_characters))
    distractors, generator = Distractors(places), random.Random(seed)
    made: list[Item] = []
    for place in generator.sample(places, len(places)):
        if len(made) == items:
            break
        wrong = distractors.draw(place, generator)
        if not wrong:
            continue
        gold = generator.randrange(CHOICES)
        sentences = [*wrong[:gold], place.sentence, *wrong[gold:]]
        made.append(Item(tuple(Choice(place.context, f" {one}", one) for one in sentences), gold))
    if len(made) < items:
        raise InputRefused(
            f"the text has {len(places)} sentences of {SHORTEST_SENTENCE} to {LONGEST_SENTENCE} characters behind "
            f"{context_characters} others, good for {len(made)} items, not for {items}: give more text, or smaller "
            f"--items or --context-characters"
        )
    return made
