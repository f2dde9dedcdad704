"""Small random bundles; modules of this folder and of the one above become importable."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from export_models import FORMS, write_random  # noqa: E402  # found on the path above

from openautoglm.models.bundle import Bundle  # noqa: E402
from openautoglm.text.tokenizer import Tokenizer  # noqa: E402


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Trained on a few texts."""
    return Tokenizer.train(["The Punter is a cheap pub near Café Rouge, 12 of 345."] * 4, 330)


@pytest.fixture(scope="session", params=FORMS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Bundle:
    """One of each form; copy it before you change it."""
    kind = "glm4" if request.param == "glm4" else "pair"
    return write_random(tmp_path_factory.mktemp("bundles") / request.param, tokenizer, kind, **FORMS[request.param])


@pytest.fixture(scope="session")
def edge(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Bundle:
    """One alone; copy it before you change it."""
    return write_random(tmp_path_factory.mktemp("bundles") / "one", tokenizer, **FORMS["edge"])
