"""Logits of the native target are those of transformers, and its rounding is that of the torch target's kernels."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from runtime_models import Reader, apart, random_ids, reference, tiny_spec, write_checkpoint

from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rules.registry import OPTIONAL, rules_for
from openautoglm.runtime.load import load_program
from openautoglm.runtime.program import Program

KINDS = list(product(("glm", "glm4"), (0.5, 1.0), (True, False), (True, False)))
RECIPES = [Quantisation(), Quantisation(group=0, head="bf16"), Quantisation(symmetric=False, head="fp32"),
           Quantisation(format="int4", head="int4"), Quantisation(format="int4", group=64, symmetric=False)]


def load(folder: Path, **options: Any) -> Program:
    return load_program(folder, "native", **{"cache": "fp32", "pages": 20, "threads": 2, **options})


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize(("family", "rotary", "bias", "tied"), KINDS)
def test_logits_are_those_of_transformers(tmp_path: Path, family: Any, rotary: float, bias: bool, tied: bool) -> None:
    spec = tiny_spec(family=family, rotary_factor=rotary, qkv_bias=bias, tied=tied)
    model = write_checkpoint(tmp_path, spec)
    ids = random_ids(spec, 23)
    expected = reference(model, ids)
    for rules in (True, False):
        exact = Reader(load(tmp_path, rules=rules), range(20)).step({"a": ids})["a"]
        assert apart(exact, expected) < 1e-5
        assert abs(exact - expected).max() < 1e-4 * abs(expected).max()
    rounded = reference(model.to(torch.bfloat16).float(), ids)
    half = load(tmp_path, dtype="bf16", cache="bf16")
    assert apart(Reader(half, range(20)).step({"a": ids})["a"], rounded) < 2e-2


@pytest.mark.parametrize("recipe", RECIPES, ids=repr)
def test_quantised_logits_are_those_of_the_same_rounding_in_torch(checkpoint: Any, recipe: Quantisation) -> None:
    folder, spec, model = checkpoint
    ids = random_ids(spec, 30)
    ours = Reader(load(folder, quantise=recipe), range(20)).step({"a": ids})["a"]
    torch_rules = rules_for("native", recipe)
    same = Reader(load_program(folder, "torch:cpu", cache="fp32", rules=torch_rules)).step({"a": ids})["a"]
    rows = [apart(one, other) for one, other in zip(ours, same, strict=True)]
    assert np.median(rows) < 1e-5
    assert max(rows) < 5e-2  # a value on the edge may round the other way
    assert 1e-4 < apart(ours, reference(model, ids)) < (0.06 if recipe.format == "int8" else 0.5)


def test_every_path_and_any_team_gives_the_same(checkpoint: Any, extension: ModuleType,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    folder, spec, model = checkpoint
    ids = random_ids(spec, 30)
    expected, rounded = reference(model, ids), None
    for isa, threads in product(extension.supported_isas(), (1, 2, 3)):
        monkeypatch.setenv("OPENAUTOGLM_ISA", isa)
        program: Any = load(folder, threads=threads)
        assert (program.isa, program.threads) == (isa, threads)
        assert apart(Reader(program, range(20)).step({"a": ids})["a"], expected) < 1e-5
        codes = Reader(load(folder, threads=threads, quantise=Quantisation()), range(20)).step({"a": ids})["a"]
        rounded = codes if rounded is None else rounded
        assert apart(codes, rounded) < 1e-2  # a value on the edge may round the other way


def test_unfused_and_optional_rules_give_the_same(checkpoint: Any) -> None:
    folder, spec, model = checkpoint
    ids = random_ids(spec, 20)
    expected = reference(model, ids)
    extra = [rule.name for rule in OPTIONAL]
    for rules in (rules_for("native", extra=extra), rules_for("torch"), list(OPTIONAL)):
        assert apart(Reader(load(folder, rules=rules), range(20)).step({"a": ids})["a"], expected) < 1e-5
    plain = Quantisation(head="bf16")
    unfused = Reader(load(folder, rules=rules_for("torch", plain)), range(20)).step({"a": ids})["a"]
    fused = Reader(load(folder, quantise=plain), range(20)).step({"a": ids})["a"]
    assert apart(unfused, fused) < 1e-5


@pytest.mark.parametrize(("cache", "limit"), [("bf16", 0.01), ("int8", 0.03)])
def test_rounded_caches_stay_close(checkpoint: Any, cache: Any, limit: float) -> None:
    folder, spec, model = checkpoint
    ids, reader = random_ids(spec, 30), Reader(load(folder, cache=cache), range(20))
    logits = np.concatenate([reader.step({"a": ids[:17]})["a"], *(reader.step({"a": [one]})["a"] for one in ids[17:])])
    assert 1e-5 < apart(logits, reference(model, ids)) < limit
