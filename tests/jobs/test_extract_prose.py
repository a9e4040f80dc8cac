"""extract_prose.py on made-up pages and a made-up package; nothing is downloaded."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
extract_prose = importlib.import_module("extract_prose")

PROSE = "This paragraph has more than sixty letters, ends with a full stop &amp; is kept."
PAGE = f"""<html><head><title>This title is long enough to be taken for a paragraph, but it is not one.</title></head>
<body>
<div class="navheader"><p>Previous page, next page, up one level, and more than sixty letters of it all.</p><br></div>
<h1>A heading that is longer than sixty letters but does not end like a sentence at all</h1>
<p>{PROSE}
<p>The old way to write <em>HTML</em> leaves paragraphs open, and the <code>parser</code>
   must cope<sup>[3]</sup> with it.</p>
<pre class="screen">$ dpkg -l | grep the listing goes on and on, and it even ends with a full stop.</pre>
<ul><li>An item of a list is prose as well when it is a whole sentence like this one.</li><li>Short item.</li></ul>
<table><tr><td>A table is left out although this cell is a perfectly fine English sentence.</td></tr></table>
<div class="toc"><div><p>A nested table of contents with sentences that are longer than sixty letters.</p></div>
<p>Still inside the table of contents, after an inner element of the same name was closed.</p></div>
<p>0x00 0x01 0x02 0x03 0x04 0x05 0x06 0x07 0x08 0x09 0x0a 0x0b 0x0c 0x0d 0x0e 0x0f.</p>
<p>The last paragraph follows the table of contents and must not be swallowed with it.
</body></html>"""
KEPT = [
    "This paragraph has more than sixty letters, ends with a full stop & is kept.",
    "The old way to write HTML leaves paragraphs open, and the parser must cope with it.",
    "An item of a list is prose as well when it is a whole sentence like this one.",
    "The last paragraph follows the table of contents and must not be swallowed with it.",
]


def sentence(name: str) -> str:
    """A paragraph that passes as prose and names itself."""
    return f"The paragraph called {name} is only here to be found again in the right place."


def test_keeps_paragraphs_and_nothing_else():
    assert [text for text in extract_prose.parse_page(PAGE).paragraphs if extract_prose.is_prose(text)] == KEPT


def test_pages_come_in_the_order_of_the_index():
    pages = {name: f"<p>{sentence(name)}</p>" for name in ("alpha", "beta", "gamma", "unlinked")}
    pages["index"] = "".join(f'<li><a href="{name}#part">x</a></li>' for name in ("gamma", "alpha", "gamma", "beta"))
    documents = extract_prose.extract_documents(pages, "index", set())
    assert documents == ["\n\n".join(sentence(name) for name in ("gamma", "alpha", "beta", "unlinked"))]


def test_short_pages_are_joined_until_a_document_is_long_enough():
    pages = [["a" * 6], ["b" * 3, "c" * 3], [], ["d" * 20], ["e"]]
    assert extract_prose.join_documents(pages, 10) == ["aaaaaa\n\nbbb\n\nccc", "d" * 20 + "\n\ne"]
    assert extract_prose.join_documents([["short"]], 10) == ["short"]
    assert extract_prose.join_documents([[]], 10) == []


def test_a_paragraph_seen_before_is_not_used_again():
    seen: set[str] = set()
    pages = [f"<p>{sentence('shared')}</p><p>{sentence(name)}</p>" for name in ("shared", "new")]
    first, second = (extract_prose.extract_documents({"page": page}, "index", seen) for page in pages)
    assert (first, second) == ([sentence("shared")], [sentence("new")])


def command_line(work: Path) -> list[str]:
    """Arguments that write work/c.txt and work/e.txt."""
    return ["--work", str(work), "--calibration", str(work / "c.txt"), "--evaluation", str(work / "e.txt")]


def make_package(work: Path, name: str, pages: dict[str, str]) -> None:
    """A .deb file in the place where a download would have put it."""
    root = work / f"root-{name}"
    for path, html in pages.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(html)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1.5\nArchitecture: all\nMaintainer: No One <no@example.org>\nDescription: test\n"
    )
    (work / "packages").mkdir(exist_ok=True)
    command = ["dpkg-deb", "--build", "-Znone", root, work / f"packages/{name}_1.5_all.deb"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_packages_become_two_texts_and_a_second_run_does_nothing(tmp_path, monkeypatch, capsys):
    source = extract_prose.Source("doc-a", ("usr/share/a", "usr/share/doc/a"), "*.html", "index.html", ("search.html",))
    sources = {"calibration": (source,), "evaluation": (source._replace(package="doc-b"),)}
    monkeypatch.setattr(extract_prose, "SOURCES", sources)
    for name in "ab":
        page = f"<p>{sentence('both')}</p><p>{sentence(name)}</p>"
        other = f"<p>{sentence('elsewhere')}</p>"
        files = {"p.html": page, "search.html": other, "de/p.html": other}
        make_package(tmp_path, f"doc-{name}", {f"usr/share/doc/a/{file}": html for file, html in files.items()})
    arguments = command_line(tmp_path)
    assert extract_prose.main(arguments) == 0
    assert (tmp_path / "c.txt").read_text() == f"{sentence('both')}\n\n{sentence('a')}\n"
    assert (tmp_path / "e.txt").read_text() == f"{sentence('b')}\n"
    summary = capsys.readouterr().out
    assert "calibration: doc-a 1.5, 1 documents" in summary and "evaluation: doc-b 1.5" in summary

    shutil.rmtree(tmp_path / "packages")
    assert extract_prose.main(arguments) == 0
    assert capsys.readouterr().out == summary

    (tmp_path / "e.txt").write_text("changed")  # now it has to start again, and there is no such package to download
    assert extract_prose.main(arguments) == 2
    message = capsys.readouterr().err
    assert "apt-get" in message and message.count("\n") == 1


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_package_that_this_release_lacks_is_left_out(tmp_path, monkeypatch, capsys):
    known = extract_prose.Source("doc-a", ("usr/share/doc/a",), "*.html", "index.html")
    unknown = known._replace(package="doc-of-an-older-release")
    monkeypatch.setattr(extract_prose, "SOURCES", {"calibration": (unknown, known), "evaluation": (unknown,)})
    make_package(tmp_path, "doc-a", {"usr/share/doc/a/p.html": f"<p>{sentence('a')}</p>"})
    arguments = command_line(tmp_path)
    assert extract_prose.main(arguments) == 2
    assert "apt knows none of doc-of-an-older-release" in capsys.readouterr().err
    monkeypatch.setattr(extract_prose, "SOURCES", {"calibration": (unknown, known), "evaluation": (known._replace(package="doc-b"),)})
    make_package(tmp_path, "doc-b", {"usr/share/doc/a/p.html": f"<p>{sentence('b')}</p>"})
    assert extract_prose.main(arguments) == 0
    assert "doc-of-an-older-release is not in this release and is left out" in capsys.readouterr().out
    assert (tmp_path / "c.txt").read_text() == f"{sentence('a')}\n"


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_refuses_a_package_with_another_layout(tmp_path, monkeypatch, capsys):
    source = extract_prose.Source("doc-a", ("usr/share/doc/a",), "*.html", "index.html")
    monkeypatch.setattr(extract_prose, "SOURCES", {"calibration": (source,), "evaluation": ()})
    make_package(tmp_path, "doc-a", {"usr/share/doc/other/p.html": "<p>x</p>"})
    arguments = command_line(tmp_path)
    assert extract_prose.main(arguments) == 2
    assert "lays it out differently" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.txt*"))
