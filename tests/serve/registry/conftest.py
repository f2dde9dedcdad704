"""A registry on SQLite and one on PostgreSQL, which is started for the tests; bundles to put in; a clock to set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from registry_tools import QUICK, Clock, Postgres, start_postgres

from openautoglm.models import hf
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.card import CARD_NAME
from openautoglm.models.spec import GlmSpec
from openautoglm.serve.registry.registry import Registry, open_registry
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for all tests; those that stop it start it again."""
    server, folder = start_postgres()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/registry.db"
    return str(request.getfixturevalue("postgres").database())


@pytest.fixture
def registry(url: str, tmp_path: Path, clock: Clock) -> Iterator[Registry]:
    """An empty registry on either database."""
    with open_registry(url, tmp_path / "store", QUICK, now=clock) as opened:
        yield opened


@pytest.fixture(scope="session")
def first_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle; do not change it."""
    tokenizer = Tokenizer.train(["The Punter is a cheap pub near Café Rouge."] * 4, 300)
    shape = {"hidden_size": 32, "layers": 1, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn_size": 48}
    spec = GlmSpec(vocab_size=8, max_positions=128, **shape).with_vocabulary(
        tokenizer.vocab_size, pad_id=tokenizer.pad_id, eos_ids=(tokenizer.special["<|endoftext|>"],))
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    write_bundle(path, model=hf.build(spec, seed=1), spec=spec, tokenizer=tokenizer, template=Template(),
                 card_facts={"scores": {"BLEU": 31.5}})
    return path


@pytest.fixture
def make_bundle(first_bundle: Path, tmp_path: Path) -> Callable[[int], Path]:
    """Makes bundles that differ in their cards."""
    def make(seed: int) -> Path:
        path = tmp_path / f"made-{seed}"
        shutil.copytree(first_bundle, path)
        card = json.loads((path / CARD_NAME).read_text(encoding="utf-8"))
        card["recipe"] = {"seed": seed}
        (path / CARD_NAME).write_text(json.dumps(card), encoding="utf-8")
        return path
    return make


@pytest.fixture
def filled(registry: Registry, make_bundle: Callable[[int], Path]) -> Registry:
    """A registry with the model `reports` in three versions, kept where they lie."""
    for seed in (1, 2, 3):
        registry.versions.register(make_bundle(seed), "reports", by="test", copy=False)
    return registry
