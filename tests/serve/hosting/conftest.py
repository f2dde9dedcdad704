"""A registry on SQLite with tiny bundles that a real engine can load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openautoglm.models.card import CARD_NAME
from openautoglm.serve.registry.registry import Registry, open_registry
from openautoglm.serve.registry.settings import RegistrySettings


@pytest.fixture
def make_bundle(bundle_path: Path, tmp_path: Path) -> Callable[[int], Path]:
    """Makes bundles that differ in their cards."""
    def make(seed: int) -> Path:
        path = tmp_path / f"made-{seed}"
        shutil.copytree(bundle_path, path)
        card = json.loads((path / CARD_NAME).read_text(encoding="utf-8"))
        card["recipe"] = {**card["recipe"], "seed": seed}
        (path / CARD_NAME).write_text(json.dumps(card), encoding="utf-8")
        return path
    return make


@pytest.fixture
def registry(tmp_path: Path, make_bundle: Callable[[int], Path]) -> Iterator[Registry]:
    """The model `reports` in three versions, kept where they lie."""
    settings = RegistrySettings(retry_s=0.05, lock_wait_s=2)
    with open_registry(tmp_path / "registry.db", tmp_path / "store", settings) as opened:
        for seed in (1, 2, 3):
            opened.versions.register(make_bundle(seed), "reports", by="test", copy=False)
        yield opened
