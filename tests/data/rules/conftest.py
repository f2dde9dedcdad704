"""What the tests of the rules share: a short way to an example, and the rows of E2E with their fields."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from openautoglm.core.values import Example, Origin

Make = Callable[..., Example]


@pytest.fixture
def make() -> Make:
    def build(source: str = "source", target: str = "target", **fields: str) -> Example:
        return Example(source, target, Origin("rows.csv", 1), tuple(fields.items()))
    return build


@pytest.fixture(scope="session")
def e2e_train(shared_data: Path) -> list[Example]:
    """The 42,061 training rows of E2E NLG, their fields parsed from the meaning representation."""
    field = re.compile(r"([\w ]+)\[([^\]]*)\]")
    with (shared_data / "e2e-nlg" / "trainset.csv").open(encoding="utf-8", newline="") as file:
        return [Example(row["mr"], row["ref"], Origin("trainset.csv", place),
                        tuple((name.strip(), value) for name, value in field.findall(row["mr"])))
                for place, row in enumerate(csv.DictReader(file), start=2)]
