"""docs/security.md: every class of advisories has a rule and tests, and the tests are there."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("pickle on sockets", "unsafe loaders", "SSRF", "authentication by the beginning of a path", "unbounded `n`",
           "regex and grammar bombs", "template bombs", "grammar caches", "a request's error kills the engine",
           "addresses and paths in error texts", "path traversal in model load", "integer overflow in file headers")
SERVERS = ("vLLM", "SGLang", "Triton", "llama.cpp", "Ray")


def rows() -> list[list[str]]:
    """The table's rows: class, where it was seen, rule, tests."""
    part = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").partition("## Classes of faults")[2]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


@lru_cache
def defined_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_class_has_a_rule_and_tests_that_are_there(row: list[str]) -> None:
    _, seen, rule, held = row
    assert seen
    assert rule
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", held)
    assert len(named) == held.count("`") // 2 > 0
    for path, name in named:
        assert name in defined_in(ROOT / path), f"{path} has no {name}"


def test_no_class_is_forgotten() -> None:
    table = rows()
    assert all(any(word in row[0] for row in table) for word in CLASSES)
    assert all(any(word in row[1] for row in table) for word in SERVERS)
