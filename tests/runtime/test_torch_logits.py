"""Logits of the torch target are those of transformers, for every kind of architecture."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runtime_models import Reader, apart, random_ids, reference, tiny_spec, write_checkpoint

from openautoglm.runtime.load import load_program

KINDS = list(product(("glm", "glm4"), (0.5, 1.0), (True, False), (True, False)))


@pytest.mark.parametrize(("family", "rotary", "bias", "tied"), KINDS)
def test_logits_are_those_of_transformers(tmp_path: Path, family: Any, rotary: float, bias: bool, tied: bool) -> None:
    spec = tiny_spec(family=family, rotary_factor=rotary, qkv_bias=bias, tied=tied)
    model = write_checkpoint(tmp_path, spec)
    ids = random_ids(spec, 23)
    expected = reference(model, ids)
    for rules in (False, True):
        reader = Reader(load_program(tmp_path, cache="fp32", page_size=4, pages=40, rules=rules))
        exact = np.concatenate([reader.step({"a": some})["a"] for some in (ids[:14], ids[14:21], ids[21:22], ids[22:])])
        assert apart(exact, expected) < 1e-5
        assert abs(exact - expected).max() < 1e-4 * abs(expected).max()
    rounded = reference(model.to(torch.bfloat16).float(), ids)
    half = load_program(tmp_path, dtype="bf16", cache="bf16", page_size=4, pages=40)
    assert apart(Reader(half).step({"a": ids})["a"], rounded) < 2e-2
