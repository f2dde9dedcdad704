"""A short way to read some bytes as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openautoglm.core.values import Example, Reject
from openautoglm.data.read import read
from openautoglm.data.settings import DataSettings


@pytest.fixture
def read_bytes(tmp_path: Path) -> Callable[..., list[Example | Reject]]:
    """``read_bytes(content, name, **settings)``: its items; source and target are ``a`` and ``b``."""

    def run(content: bytes, name: str = "f.csv", **options: Any) -> list[Example | Reject]:
        path = tmp_path / name
        path.write_bytes(content)
        if not {"source", "template", "messages", "text"} & options.keys():
            options |= {"source": "a", "target": "b"}
        return list(read([path], DataSettings(train=(str(path),), **options)))

    return run


@pytest.fixture
def brief(read_bytes: Callable[..., list[Example | Reject]]) -> Callable[..., list[tuple[int, str, str]]]:
    """As `read_bytes`, each item as line, source and target, or line, ``!`` and the reason of a reject."""

    def run(content: bytes, name: str = "f.csv", **options: Any) -> list[tuple[int, str, str]]:
        return [(item.origin.line, item.source, item.target) if isinstance(item, Example)
                else (item.origin.line, "!", item.reason) for item in read_bytes(content, name, **options)]

    return run
