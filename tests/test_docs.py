"""The documentation works: shell and Python blocks of README and docs are run, in order, in an empty folder.

Comments in the documents say what tests must know; they stand above the block they concern:

    <!-- not run: reason -->                      the block is left out
    <!-- file: task.yaml -->                      the block is written to that file
    <!-- before: command -->                      a command that readers need not see
    <!-- in tests: minutes: 30 -> minutes: 0.1 --> words replaced in the block, to save time
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MADE_BY_TOOLS = {"task-reference.md"}
RUN = {"bash", "sh", "shell", "console", "python"}
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$|<!--(.*?)-->", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_WORDS = ("not run", "file", "before", "in tests", "figures")


class Block(NamedTuple):
    """One step of a document: a fenced block with its comments, or a hidden command."""

    line: int
    language: str
    text: str
    file: str = ""
    left_out: str = ""


def blocks(path: Path) -> Iterator[Block]:
    """Yield the steps of a document in order."""
    text = path.read_text(encoding="utf-8")
    notes: dict[str, str] = {}
    for found in _BLOCK.finditer(text):
        line = text[: found.start()].count("\n") + 1
        if found[3] is not None:
            for word, value in comments(found[3], f"{path.name}:{line}"):
                if word == "before":
                    yield Block(line, "bash", value)
                else:
                    notes[word] = value
            continue
        body = found[2]
        if "in tests" in notes:
            shown, _, tested = notes["in tests"].partition(" -> ")
            assert shown in body, f"{path.name}:{line}: no {shown!r} to replace"
            body = body.replace(shown, tested)
        yield Block(line, found[1], body, notes.get("file", ""), notes.get("not run", ""))
        notes.clear()


def comments(text: str, where: str) -> Iterator[tuple[str, str]]:
    """Yield the (word, value) pairs of a comment; several are separated by semicolons."""
    word, _, value = text.strip().partition(": ")
    assert word in _WORDS, f"{where}: a comment must begin with one of {_WORDS}, not {word!r}"
    assert value, f"{where}: the comment says nothing"
    if word == "file" and "; " in value:
        value, _, rest = value.partition("; ")
        yield from comments(rest, where)
    yield word, value


def runnable(path: Path) -> list[Block]:
    return [block for block in blocks(path)
            if not block.left_out and (block.file or block.language in RUN)]


def environment(folder: Path) -> dict[str, str]:
    """The environment of a reader: our package, its command, and no settings of the machine."""
    commands = folder / ".bin"
    commands.mkdir()
    script = commands / "autoglm"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m openautoglm "$@"\n')
    script.chmod(0o755)
    own = {"PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
           "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return {**os.environ, **own}


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in DOCUMENTS if runnable(path)],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_run(path: Path, tmp_path: Path) -> None:
    variables = environment(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for block in runnable(path):
        if block.file:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
            continue
        command = [sys.executable, "-"] if block.language == "python" else ["bash", "-euo", "pipefail", "-s"]
        done = subprocess.run(command, input=block.text, cwd=tmp_path, env=variables, capture_output=True,
                              text=True, timeout=300, check=False)
        report = f"{path.name}:{block.line}\n{block.text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.returncode == 0, report


def anchors(path: Path) -> list[str]:
    """The anchors that a page of this kind has, one a heading."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"<!--.*?-->", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for found in _LINK.finditer(text):
        target, _, anchor = (found[1] or found[2]).partition("#")
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file = path.parent / target if target else path
        assert file.exists(), f"{path.name}: {target} does not exist"
        if anchor:
            assert anchor in anchors(file), f"{path.name}: {target} has no heading #{anchor}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_that_are_named_exist(path: Path) -> None:
    """A path in code marks, such as `data/read/`, is a place of the package or of the checkout."""
    rooms = {item.name for item in (ROOT / "src" / "openautoglm").iterdir() if item.is_dir()}
    for name in re.findall(r"`([a-z_0-9]+/[\w/]*(?:\.py)?)`", path.read_text(encoding="utf-8")):
        if name.partition("/")[0] in rooms:
            inside = ROOT / "src" / "openautoglm" / name
            outside = ROOT / name
            in_a_run = name in ("data/", "search/", "train/", "evaluate/")
            assert inside.exists() or outside.exists() or in_a_run, f"{path.name}: {name} does not exist"


def test_a_block_that_is_not_run_says_why() -> None:
    for path in DOCUMENTS:
        for block in blocks(path):
            if block.language in RUN and path.name not in MADE_BY_TOOLS:
                assert not block.left_out or len(block.left_out) > 10, f"{path.name}:{block.line}"


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    pages = [path.name for path in sorted(folder.glob("[0-9]*.md"))]
    assert [page for page in pages if f"({page})" not in listed] == []
    assert [page[:3] for page in pages] == [f"{number:03d}" for number in range(1, len(pages) + 1)]
