"""English text of three domains that differ, from Debian packages: manuals, an encyclopaedia, novels.

Each domain is cut by documents into a part to calibrate with, one to make choices with (validation), and one that only
reports use (test); no document and no paragraph is in two of them.
"""

from __future__ import annotations

import gzip
import random
import re
import struct
import subprocess
import tarfile
import zlib
from pathlib import Path
from typing import Callable, NamedTuple

from extract_prose import SOURCES, Source, extract_documents, fetch_package, read_pages, write_text

PARTS = ("calibration", "validation", "test")
SHARES = {"calibration": 0.5, "validation": 0.25, "test": 0.25}
MINIMUM_DOCUMENT = 4000  # characters: about a thousand tokens


class Domain(NamedTuple):
    """Where its text comes from, and what it is, in a few words."""

    documents: Callable[[Path], list[str]]
    about: str


def file_of_package(deb: Path, name: str) -> bytes:
    """The content of one file of a package, by the end of its path."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as unpack:
        with tarfile.open(fileobj=unpack.stdout, mode="r|") as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(name):
                    content = archive.extractfile(member).read()
                    unpack.stdout.read()
                    return content
    raise ValueError(f"{deb.name} holds no {name}")


def joined(paragraphs: list[str], least: int = MINIMUM_DOCUMENT) -> list[str]:
    """Documents of at least so many characters, of paragraphs that follow each other."""
    documents: list[str] = []
    for paragraph in paragraphs:
        if documents and len(documents[-1]) < least:
            documents[-1] += "\n\n" + paragraph
        else:
            documents.append(paragraph)
    return [document for document in documents if len(document) >= least]


def manuals(packages: Path) -> list[str]:
    """Manuals about Debian, those that the demo uses."""
    seen: set[str] = set()
    documents: list[str] = []
    for source in SOURCES["calibration"] + SOURCES["evaluation"]:
        documents += documents_of(source, packages, seen)
    return documents


def documents_of(source: Source, packages: Path, seen: set[str]) -> list[str]:
    """Documents of one package's HTML pages."""
    pages = read_pages(fetch_package(source.package, packages), source)
    return [part for document in extract_documents(pages, source.index, seen) for part in joined(document.split("\n\n"))]


def articles(dictionary: str) -> list[str]:
    """The articles of a dictd dictionary that are prose: markup, dates and links left out, short ones too."""
    found = []
    for article in re.split(r"\n(?=\S)", dictionary):
        text = " ".join(line.strip() for line in article.split("\n"))
        text = re.sub(r"<[^>]*> ?|[{}]|\(\d{4}-\d\d-\d\d\)", "", text)
        text = re.sub(r"\s+", " ", text).strip()
        if len(text) > 400 and "http" not in text:
            found.append(text)
    return found


def encyclopaedia(packages: Path) -> list[str]:
    """Articles of the Free On-line Dictionary of Computing, some of them a document; mixed, since they are sorted."""
    deb = fetch_package("dict-foldoc", packages)
    texts = articles(gzip.decompress(file_of_package(deb, "foldoc.dict.dz")).decode(errors="replace"))
    random.Random(0).shuffle(texts)
    return joined(texts)


def lines_of_r_strings(database: bytes) -> list[list[str]]:
    """The strings of each object in an R package's lazy-load database: records of a length and zlib data, in which a
    string is flags, a length and bytes."""
    objects, place = [], 0
    while place + 4 < len(database):
        stream = zlib.decompressobj()
        data = stream.decompress(database[place + 4 :])
        place = len(database) - len(stream.unused_data)
        lines = []
        for match in re.finditer(rb"\x00[\x00-\x0f][\x00-\xff]\x09(....)", data, re.DOTALL):
            length = struct.unpack(">i", match.group(1))[0]
            if 0 <= length < 2000:
                lines.append(data[match.end() : match.end() + length].decode("latin1"))
        objects.append(lines)
    return objects


def novels(packages: Path) -> list[str]:
    """Jane Austen's novels."""
    deb = fetch_package("r-cran-janeaustenr", packages)
    documents = []
    for lines in lines_of_r_strings(file_of_package(deb, "janeaustenr/data/Rdata.rdb")):
        paragraphs = [re.sub(r"\s+", " ", text).strip() for text in re.split(r"\n\s*\n", "\n".join(lines))]
        documents += joined([text for text in paragraphs if len(text) > 200])
    return documents


DOMAINS = {
    "manuals": Domain(manuals, "manuals about Debian"),
    "encyclopaedia": Domain(encyclopaedia, "the Free On-line Dictionary of Computing"),
    "novels": Domain(novels, "novels of Jane Austen"),
}


def split(documents: list[str]) -> dict[str, list[str]]:
    """The three parts, mixed by a fixed seed, so that all of a domain's sources are in each."""
    order = list(dict.fromkeys(documents))
    random.Random(1).shuffle(order)
    parts, begin = {}, 0
    for part in PARTS:
        end = len(order) if part == PARTS[-1] else begin + round(SHARES[part] * len(order))
        parts[part], begin = order[begin:end], end
    return parts


def write_domains(folder: Path) -> dict[str, dict[str, Path]]:
    """The texts, made once: FOLDER/novels.test.txt …, by domain and part."""
    files = {name: {part: folder / f"{name}.{part}.txt" for part in PARTS} for name in DOMAINS}
    for name, domain in DOMAINS.items():
        if all(file.exists() for file in files[name].values()):
            continue
        for part, documents in split(domain.documents(folder / "packages")).items():
            write_text(files[name][part], documents)
    return files
