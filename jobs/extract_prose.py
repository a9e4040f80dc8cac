#!/usr/bin/env python3
"""Make English calibration and evaluation text from Debian's documentation packages.

    extract_prose.py --work build/demo/prose --calibration calibration.txt --evaluation evaluation.txt

For machines where C4 and WikiText-2 are out of reach but a Debian mirror is not. The packages are fetched with
`apt-get download` into WORK/packages and read there; nothing is installed and no root rights are needed. From their
HTML pages only paragraphs of running prose are kept. A document is a run of pages in reading order, long enough for
T = 2048; a line with a form feed stands between two documents (as prepare_tokens.py expects).

Which packages, and why. A perplexity is only worth reading when calibration and evaluation text are of one kind (the
papers use web text and encyclopaedia text) and still share no sentence. So both sides are manuals about Debian, by
different authors and from different packages:

  calibration   debian-policy        rules for packages: formal, definitions
                debian-reference-en  a system user's tutorial: short, practical
                harden-doc           the Securing Debian manual: long explanations
  evaluation    developers-reference how developers work together: procedures, advice
                debian-faq           questions and answers for new users

Novels (r-cran-janeaustenr) would be plainer English, but 19th-century dialogue on one side only measures the distance
between domains. A paragraph that occurs twice, in one package or across the two sides, is kept once, so no evaluation
paragraph is seen in calibration. Use the numbers for comparisons between methods, not beside published ones.

Releases hold other editions of these manuals, so texts and perplexities differ between them; Debian 13 has no
harden-doc any more. A package that the release lacks is left out, and said to be.

A second run with unchanged outputs does nothing. Exit status 2 and one sentence on stderr when a package cannot be had.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import NamedTuple

SEPARATOR = "\n\f\n"
MINIMUM_DOCUMENT = 16_000  # characters; English has four to five a token, so more than 2048 tokens
MINIMUM_PARAGRAPH = 60  # characters; shorter ones are captions, labels and link lists
MINIMUM_LETTERS = 0.85  # share of letters and spaces; less is a command line or a table of values
SENTENCE_END = (".", "!", "?", ":", ";", ")", '"', "”", "’")

SKIPPED_ELEMENTS = {"head", "nav", "header", "footer", "pre", "script", "style", "table", "form", "svg", "math", "sup"}
SKIPPED_CLASSES = {
    *("toc", "toctree-wrapper", "contents", "index", "bibliography"),  # lists of places
    *("navheader", "navfooter", "sphinxsidebar", "related", "docnav", "headerlink"),  # navigation
    *("titlepage", "legalnotice", "footnote", "footnotes", "footnote-reference"),  # front matter and notes
    *("programlisting", "screen", "highlight", "literallayout"),  # listings
}
BLOCK_ELEMENTS = {
    *("body", "section", "div", "p", "blockquote", "ul", "ol", "li", "dl", "dt", "dd", "br", "hr"),
    *("h1", "h2", "h3", "h4", "h5", "h6"),
}


class ProseRefused(Exception):
    """The text cannot be made; the message is one sentence for the user."""


class PackageUnknown(Exception):
    """This release has no such package."""


class Source(NamedTuple):
    """English pages of one package: the first of these folders that has any, pattern of the names, the page that lists
    them, pages left out."""

    package: str
    folders: tuple[str, ...]
    pages: str
    index: str
    left_out: tuple[str, ...] = ()


SOURCES = {
    "calibration": (
        Source(
            package="debian-policy",
            folders=("usr/share/doc/debian-policy/policy.html",),
            pages="*.html",
            index="index.html",
            left_out=("search.html", "genindex.html"),
        ),
        Source(
            package="debian-reference-en",
            folders=("usr/share/debian-reference", "usr/share/doc/debian-reference-common/docs"),  # Debian 12, 13
            pages="*.en.html",
            index="index.en.html",
        ),
        Source(
            package="harden-doc",
            folders=("usr/share/doc/harden-doc/html/en-US",),
            pages="*.html",
            index="index.html",
            left_out=("changelog_history.html",),
        ),
    ),
    "evaluation": (
        Source(
            package="developers-reference",
            folders=("usr/share/developers-reference",),
            pages="*.html",
            index="index.html",
            left_out=("search.html", "developers-reference.html"),  # the latter holds all the other pages once more
        ),
        Source("debian-faq", ("usr/share/doc/debian/FAQ",), "*.en.html", "index.en.html"),
    ),
}


class ParagraphParser(HTMLParser):
    """Collects the text of block elements and the links of a page, leaving out navigation, tables and listings."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.paragraphs: list[str] = []
        self.links: list[str] = []
        self._text: list[str] = []
        self._skipped = ""  # name of the element being skipped; only its own kind is counted, others may stay open
        self._depth = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "a" and values.get("href"):
            self.links.append(str(values["href"]).partition("#")[0])
        if self._skipped:
            self._depth += tag == self._skipped
        elif tag in SKIPPED_ELEMENTS or SKIPPED_CLASSES & set((values.get("class") or "").split()):
            if tag in BLOCK_ELEMENTS or tag in ("pre", "table"):
                self._end_paragraph()
            self._skipped, self._depth = tag, 1
        elif tag in BLOCK_ELEMENTS:
            self._end_paragraph()

    def handle_endtag(self, tag: str) -> None:
        if self._skipped:
            self._depth -= tag == self._skipped
            if self._depth == 0:
                self._skipped = ""
        elif tag in BLOCK_ELEMENTS:
            self._end_paragraph()

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._text.append(data)

    def close(self) -> None:
        super().close()
        self._end_paragraph()

    def _end_paragraph(self) -> None:
        paragraph = " ".join("".join(self._text).split())
        self._text = []
        if paragraph:
            self.paragraphs.append(paragraph)


def parse_page(html: str) -> ParagraphParser:
    """Parse one page."""
    parser = ParagraphParser()
    parser.feed(html)
    parser.close()
    return parser


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is a run of sentences rather than a label, a link list or a command."""
    letters = sum(character.isalpha() or character == " " for character in paragraph)
    return (
        len(paragraph) >= MINIMUM_PARAGRAPH
        and paragraph.endswith(SENTENCE_END)
        and letters >= MINIMUM_LETTERS * len(paragraph)
    )


def in_reading_order(pages: dict[str, ParagraphParser], index: str) -> list[ParagraphParser]:
    """Pages in the order in which the index page first links to them; those without a link come last, by name."""
    links = pages[index].links if index in pages else []
    first = {name: position for position, name in reversed(list(enumerate(links)))}
    return [pages[name] for name in sorted(pages, key=lambda name: (first.get(name, len(links)), name))]


def join_documents(pages: list[list[str]], minimum: int = MINIMUM_DOCUMENT) -> list[str]:
    """Join consecutive pages until each document has `minimum` characters; a short rest goes to the last document."""
    documents: list[str] = []
    open_document = ""
    for paragraphs in pages:
        open_document = "\n\n".join([open_document, *paragraphs] if open_document else paragraphs)
        if len(open_document) >= minimum:
            documents.append(open_document)
            open_document = ""
    if open_document and documents:
        documents[-1] += "\n\n" + open_document
    elif open_document:
        documents.append(open_document)
    return documents


def extract_documents(pages: dict[str, str], index: str, seen: set[str]) -> list[str]:
    """Documents of one package from its HTML pages; `seen` holds the paragraphs used before and is added to."""
    parsed = {name: parse_page(html) for name, html in pages.items()}
    kept: list[list[str]] = []
    for page in in_reading_order(parsed, index):
        paragraphs = [text for text in dict.fromkeys(page.paragraphs) if is_prose(text) and text not in seen]
        seen.update(paragraphs)
        kept.append(paragraphs)
    return join_documents(kept)


def fetch_package(package: str, folder: Path) -> Path:
    """The .deb file of a package in `folder`, downloaded unless it is there. Raises PackageUnknown."""
    cached = sorted(folder.glob(f"{package}_*.deb"))
    if cached:
        return cached[-1]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as download:
        command = ["apt-get", "download", "--quiet", package]
        try:
            done = subprocess.run(
                command, cwd=download, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise ProseRefused(
                "apt-get is missing: the demo text comes from Debian packages, so run this on Debian"
            ) from error
        files = list(Path(download).glob("*.deb"))
        if done.returncode != 0 or not files:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            if f"Unable to locate package {package}" in done.stderr:
                raise PackageUnknown(package)
            raise ProseRefused(f"`{' '.join(command)}` failed ({reason}): check the network, or run apt-get update")
        return files[0].rename(folder / files[0].name)


def package_version(deb: Path) -> str:
    """Version field of a .deb file."""
    return subprocess.run(["dpkg-deb", "-f", deb, "Version"], capture_output=True, text=True, check=True).stdout.strip()


def read_pages(deb: Path, source: Source) -> dict[str, str]:
    """HTML pages of a package by file name, read from the archive without unpacking it."""
    pages: dict[str, dict[str, str]] = {folder: {} for folder in source.folders}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as unpack:
        with tarfile.open(fileobj=unpack.stdout, mode="r|") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                wanted = fnmatch.fnmatchcase(path.name, source.pages) and path.name not in source.left_out
                folder = str(path.parent)
                if wanted and member.isfile() and folder in pages:
                    pages[folder][path.name] = archive.extractfile(member).read().decode(errors="replace")
    found = [of_folder for of_folder in pages.values() if of_folder]
    if not found:
        raise ProseRefused(
            f"{deb.name} holds no {source.pages} in {' or '.join(source.folders)}: this release of Debian lays it out "
            "differently"
        )
    return found[0]


def write_text(output: Path, documents: list[str]) -> None:
    """Write documents with separator lines under a temporary name, then rename."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + ".partial")
    try:
        partial.write_text(SEPARATOR.join(documents) + "\n", encoding="utf-8")
        os.replace(partial, output)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sha256(path: Path) -> str:
    """Hash of a file, or an empty string where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def finished_summary(record: Path, outputs: dict[str, Path]) -> list[str]:
    """Summary lines of an earlier run of this very script whose outputs are still as it left them, else none."""
    try:
        earlier = json.loads(record.read_text(encoding="utf-8"))
        state = {kind: sha256(output) for kind, output in outputs.items()}
        if earlier["script"] == sha256(Path(__file__)) and earlier["outputs"] == state:
            return earlier["summary"]
    except (OSError, ValueError, KeyError):
        pass
    return []


def extract(work: Path, outputs: dict[str, Path]) -> list[str]:
    """Make both texts; returns summary lines."""
    record = work / "prose.json"
    summary = finished_summary(record, outputs)
    if summary:
        return summary
    seen: set[str] = set()
    for kind, sources in SOURCES.items():
        texts: list[str] = []
        unknown: list[str] = []
        for source in sources:
            try:
                deb = fetch_package(source.package, work / "packages")
            except PackageUnknown:
                unknown.append(source.package)
                summary.append(f"{kind}: {source.package} is not in this release and is left out")
                continue
            documents = extract_documents(read_pages(deb, source), source.index, seen)
            size = sum(len(document.encode()) for document in documents)
            summary.append(f"{kind}: {source.package} {package_version(deb)}, {len(documents)} documents, {size} bytes")
            texts += documents
        if sources and len(unknown) == len(sources):
            raise ProseRefused(f"apt knows none of {', '.join(unknown)}: run apt-get update, or enable their section")
        write_text(outputs[kind], texts)
    state = {kind: sha256(output) for kind, output in outputs.items()}
    finished = {"script": sha256(Path(__file__)), "outputs": state, "summary": summary}
    record.write_text(json.dumps(finished, indent=2) + "\n", encoding="utf-8")
    return summary


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, extract, and map refusals to exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for downloaded packages")
    parser.add_argument("--calibration", type=Path, required=True, help="text file to write, for pruning")
    parser.add_argument("--evaluation", type=Path, required=True, help="text file to write, for perplexity")
    options = parser.parse_args(arguments)
    outputs = {"calibration": options.calibration, "evaluation": options.evaluation}
    try:
        summary = extract(options.work, outputs)
    except (ProseRefused, OSError, tarfile.TarError, subprocess.CalledProcessError) as error:
        print(f"extract_prose: {error}", file=sys.stderr)
        return 2
    print("\n".join(summary))
    for kind, output in outputs.items():
        print(f"{kind} text: {output}, {output.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
