"""On torch, rules change nothing but rounding, and a recipe gives the logits of a model rounded by hand."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from runtime_models import Reader, apart, random_ids, reference, tiny_spec, write_checkpoint

from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rewrite import Rule
from openautoglm.graph.rules.registry import INT8_ROWS, OPTIONAL, STANDARD, rules_for, standard_rules
from openautoglm.graph.sources import Format
from openautoglm.runtime.load import load_program
from openautoglm.runtime.quantised import quantise

EDGE = tiny_spec(rotary_factor=1.0, qkv_bias=False, tied=True)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A checkpoint with a tied head, and its model."""
    folder = tmp_path_factory.mktemp("edge")
    return folder, write_checkpoint(folder, EDGE, seed=2)


def logits(folder: Path, rules: Any, dtype: Any = "fp32") -> Any:
    """Logits of a prompt fed in two pieces and a single row."""
    reader = Reader(load_program(folder, dtype=dtype, cache="fp32", page_size=4, pages=40, rules=rules))
    ids = random_ids(EDGE, 20)
    return torch.cat([torch.from_numpy(reader.step({"a": some})["a"]) for some in (ids[:12], ids[12:19], ids[19:])]
                     ).numpy()


@pytest.mark.parametrize("rule", [*STANDARD, *OPTIONAL], ids=lambda rule: rule.name)
def test_a_rule_alone_keeps_the_logits(edge: Any, written: Any, rule: Rule) -> None:
    for folder in (edge[0], written.folder):
        assert apart(logits(folder, [rule]), logits(folder, False)) < 1e-5


@pytest.mark.parametrize("rule", OPTIONAL, ids=lambda rule: rule.name)
def test_an_optional_rule_keeps_the_logits_beside_the_others(edge: Any, written: Any, rule: Rule) -> None:
    for folder in (edge[0], written.folder):
        assert apart(logits(folder, standard_rules(rule.name)), logits(folder, False)) < 1e-5


def rounded_by_hand(model: Any, recipe: Quantisation) -> Any:
    """The model with its matrices quantised and back, the table of a tied head untied."""
    model = deepcopy(model)

    def round_(weight: torch.Tensor, form: Format) -> torch.Tensor:
        if form in ("fp32", "bf16"):
            return weight.to(torch.bfloat16).float() if form == "bf16" else weight
        matrix = quantise(weight.numpy(), 8 if form == "int8" else 4, recipe.group, symmetric=recipe.symmetric)
        return torch.from_numpy(matrix.dequantise())

    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith("_proj"):
                module.weight.copy_(round_(module.weight, recipe.format))
        head, table = model.lm_head, model.model.embed_tokens
        new = torch.nn.Parameter(round_(head.weight, recipe.head), requires_grad=False)
        if head.weight is table.weight and recipe.head in ("fp32", "bf16"):
            table.weight = new
        head.weight = new
    return model


@pytest.mark.parametrize("recipe", [
    Quantisation(), Quantisation(format="int4", head="int4", symmetric=False), Quantisation(group=0, head="bf16"),
    Quantisation(format="int4", head="fp32")], ids=lambda recipe: f"{recipe.format} {recipe.group} {recipe.head}")
def test_a_recipe_gives_the_logits_of_a_model_rounded_by_hand(edge: Any, written: Any, recipe: Quantisation) -> None:
    for folder, model in (edge, (written.folder, written.model)):
        expected = reference(rounded_by_hand(model, recipe), random_ids(EDGE, 20))
        assert apart(logits(folder, rules_for("torch", recipe)), expected) < 1e-5
        assert apart(logits(folder, True), expected) > 1e-3


def test_quantised_rows_are_the_same_in_whatever_operator(edge: Any, written: Any) -> None:
    """Where activations are quantised makes no difference, beyond values that lie halfway between two codes."""
    recipe = Quantisation()
    for folder in (edge[0], written.folder):
        apart_ = logits(folder, (*rules_for("torch", recipe), INT8_ROWS[0]))
        together = logits(folder, rules_for("native", recipe))
        assert apart(together, apart_) < 5e-3
        assert apart(together, logits(folder, rules_for("torch", recipe))) > 5e-3
