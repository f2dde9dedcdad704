"""One tiny checkpoint for the tests of a whole session; copy it before you change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from runtime_models import tiny_spec, write_checkpoint

from openautoglm.models.spec import GlmSpec


class Written(NamedTuple):
    """A checkpoint on disk, its spec, and its model in fp32."""

    folder: Path
    spec: GlmSpec
    model: Any


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A `glm4` with every kind of tensor."""
    folder, spec = tmp_path_factory.mktemp("checkpoint"), tiny_spec(family="glm4")
    return Written(folder, spec, write_checkpoint(folder, spec, seed=1))
