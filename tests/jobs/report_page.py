"""Reads a page that report.py wrote and checks what must hold for every page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link"}


class PageParser(HTMLParser):
    """Checks that elements are closed in order; collects texts, headings and attributes."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def all(self, tag: str) -> list[str]:
        """Texts of the elements of a kind."""
        return [text for kind, text in self.texts if kind == tag]


def parsed(page: str) -> PageParser:
    """Parse a page and check what must hold for every page."""
    parser = PageParser()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    tags = {tag for tag, _, _ in parser.attributes}
    assert not tags & {"script", "link", "img", "iframe", "object", "use", "image"}
    assert not [value for _, name, value in parser.attributes if name in ("src", "href", "xlink:href", "onload")]
    assert "url(" not in page and "@import" not in page and "http" not in page
    shown = " ".join(text for tag, text in parser.texts if tag != "style")
    assert not re.search(r"\b(nan|inf|infinity|none|null)\b", shown, re.IGNORECASE)
    drawn = [value for _, name, value in parser.attributes if name in ("d", "x", "y", "cx", "cy", "width", "transform")]
    assert not [value for value in drawn if re.search("nan|inf|none|e[-+]", value, re.IGNORECASE)]
    return parser
