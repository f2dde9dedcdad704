"""Native tests share the tiny models of the other targets' tests, and skip where the extension was not built."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtime"))

from openautoglm.runtime.native import native_module, why_not


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process of the tests holds grows while they run; memory limits count it, so here it stays the same."""
    monkeypatch.setattr("openautoglm.runtime.memory.resident_bytes", lambda: 100 << 20)


@pytest.fixture(scope="session")
def extension() -> ModuleType:
    """The extension."""
    module = native_module()
    if module is None:
        pytest.skip(why_not())
    return module


@pytest.fixture(scope="session")
def checkpoint(extension: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A `glm4` with every kind of tensor, several panels wide; copy its folder before you write to it."""
    from runtime_models import tiny_spec, write_checkpoint

    folder, spec = tmp_path_factory.mktemp("native"), tiny_spec(family="glm4", hidden_size=64, ffn_size=96)
    return folder, spec, write_checkpoint(folder, spec, seed=1)
