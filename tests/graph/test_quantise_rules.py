"""Quantising by recipe: what is quantised, what stays, and how far the logits move."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from evaluate_graph import evaluate, rounded
from graph_models import SPECS, WIDE, checkpoint, logits, operators, step
from pydantic import ValidationError

from openautoglm.graph import Graph, TensorType, build
from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rewrite import rewrite
from openautoglm.graph.rules.quantise import QuantiseLinears
from openautoglm.graph.rules.registry import INT8_ROWS, STANDARD, rules_for
from openautoglm.graph.sources import Quantised, Tensor
from openautoglm.models.spec import GlmSpec

EMBEDDING = "model.embed_tokens.weight"


def quantise(graph: Graph, **recipe: Any) -> int:
    """Apply the rule; return how often it was."""
    return len(rewrite(graph, [QuantiseLinears(Quantisation(**recipe))]))


def test_linears_are_quantised_and_vectors_are_not() -> None:
    graph = build(WIDE["edge"])
    rewrite(graph, STANDARD)
    assert quantise(graph, format="int4", head="int8") == 9
    assert operators(graph).count("quantised_linear") == 9
    weight = graph.weights["model.layers.0.self_attn.o_proj.weight.int4"]
    assert weight.source == Quantised(Tensor("model.layers.0.self_attn.o_proj.weight"), "int4", 32)
    assert weight.type == TensorType("int8", (64, 64))
    assert "model.layers.0.self_attn.o_proj.weight" not in graph.weights
    assert graph.weights["model.norm.weight"].source == Tensor("model.norm.weight")


def test_quantising_a_tied_head_leaves_the_embedding() -> None:
    graph = build(WIDE["edge"])
    quantise(graph, head="int4", symmetric=False)
    assert graph.nodes[0].inputs[1].source == Tensor(EMBEDDING)
    assert graph.weights[f"{EMBEDDING}.int4"].source == Quantised(Tensor(EMBEDDING), "int4", 32, False)


@pytest.mark.parametrize("head", ["fp32", "bf16"])
def test_a_plain_head_shares_its_table_in_that_format(head: Any) -> None:
    graph = build(WIDE["edge"])
    assert quantise(graph, head=head) == 7 * WIDE["edge"].layers + 1
    (linear,) = (node for node in graph.nodes if node.operator == "linear")
    assert linear.inputs[1] is graph.nodes[0].inputs[1]
    assert linear.inputs[1].source == Quantised(Tensor(EMBEDDING), head, 0)
    assert linear.inputs[1].type.dtype == head
    assert EMBEDDING not in graph.weights
    untied = build(WIDE["glm4"])
    quantise(untied, head=head)
    assert untied.weights[EMBEDDING].source == Tensor(EMBEDDING)
    assert untied.weights[f"lm_head.weight.{head}"].type.dtype == head


def test_names_with_stars_stay() -> None:
    graph = build(WIDE["glm4"])
    rewrite(graph, STANDARD)
    quantise(graph, keep=("*.k_proj.*", "lm_head.weight"))
    kept = {node.inputs[1].name for node in graph.nodes if node.operator == "linear"}
    assert kept == {"lm_head.weight", *(f"model.layers.{layer}.self_attn.qkv_proj.weight" for layer in range(2))}


def test_rows_that_groups_do_not_divide_stay_and_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    graph = build(WIDE["edge"])
    with caplog.at_level(logging.WARNING, "openautoglm"):
        quantise(graph, group=64)
    told = [vars(record)["weight"] for record in caplog.records]
    assert sorted(told) == [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(2)]


@pytest.mark.parametrize("wrong", [{"format": "bf16"}, {"format": "int3"}, {"group": 16}, {"head": "int2"},
                                   {"bits": 8}])
def test_what_is_no_recipe(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Quantisation(**wrong)


def rounded_by_hand(spec: GlmSpec, recipe: Quantisation) -> dict[str, Any]:
    """The tensors of a checkpoint as the recipe leaves them, the head under its own name."""
    tensors, matrix = checkpoint(spec), Quantised(Tensor(""), recipe.format, recipe.group, recipe.symmetric)
    head = replace(matrix, format=recipe.head)
    if spec.tied:
        tensors["lm_head.weight"] = tensors[EMBEDDING]
        if recipe.head in ("fp32", "bf16"):
            tensors[EMBEDDING] = rounded(tensors[EMBEDDING], head)
    tensors["lm_head.weight"] = rounded(tensors["lm_head.weight"], head)
    return tensors | {name: rounded(tensor, matrix) for name, tensor in tensors.items()
                      if "_proj.weight" in name and not any(kept in name for kept in ("down_proj",) if recipe.keep)}


@pytest.mark.parametrize("family", WIDE)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("form", "group", "head", "keep"), [
    ("int8", 32, "fp32", ()), ("int8", 0, "int8", ("*.down_proj.weight",)), ("int4", 32, "bf16", ()),
    ("int4", 0, "int4", ())])
def test_quantised_weights_are_those_of_a_checkpoint_rounded_by_hand(family: str, symmetric: bool, form: Any,
                                                                     group: Any, head: Any, keep: Any) -> None:
    spec = WIDE[family]
    recipe = Quantisation(format=form, group=group, symmetric=symmetric, head=head, keep=keep)
    graph = build(spec)
    exact = logits(graph, spec)
    rewrite(graph, rules_for("torch", recipe))
    found = logits(graph, spec)
    expected = evaluate(build(spec.model_copy(update={"tied": False})), rounded_by_hand(spec, recipe), step(spec))[0]
    assert np.abs(found - expected).max() < 1e-12
    assert np.abs(found - exact).max() > 1e-3


@pytest.mark.parametrize("family", WIDE)
@pytest.mark.parametrize("head", ["fp32", "int4"])
def test_fusing_and_quantising_commute(family: str, head: Any) -> None:
    one, other = build(WIDE[family]), build(WIDE[family])
    rewrite(one, STANDARD)
    quantise(one, head=head)
    quantise(other, head=head)
    rewrite(other, STANDARD)
    assert operators(one) == operators(other)
    assert np.abs(logits(one, WIDE[family]) - logits(other, WIDE[family])).max() < 1e-12
    assert {value.source for value in one.weights.values()} == {value.source for value in other.weights.values()}


@pytest.mark.parametrize("family", WIDE)
def test_rows_are_quantised_once_and_in_the_operator_before(family: str) -> None:
    spec, recipe = WIDE[family], Quantisation()
    graph = build(spec)
    rewrite(graph, rules_for("torch", recipe))
    before = logits(graph, spec)
    rewrite(graph, INT8_ROWS)
    found = operators(graph)
    assert found.count("quantised_rows_linear") == 4 * spec.layers + 1
    assert found.count("quantise_rows") == spec.layers  # attention cannot do it by itself
    assert found.count("silu_mul_quantise") == spec.layers
    assert found.count("add_rms_norm_quantise") == 2 * spec.layers
    assert found.count("rms_norm_quantise") == 1
    assert found.count("rms_norm") == (2 * spec.layers if spec.family == "glm4" else 0)
    assert np.abs(logits(graph, spec) - before).max() / np.abs(before).max() < 0.03
    native = build(spec)
    rewrite(native, rules_for("native", recipe))
    assert operators(native) == found


def test_a_plain_head_reads_plain_rows() -> None:
    graph = build(WIDE["glm4"])
    rewrite(graph, rules_for("native", Quantisation(head="bf16")))
    assert operators(graph)[-2:] == ["add_rms_norm", "linear"]
    assert operators(graph).count("add_rms_norm_quantise") == 2 * WIDE["glm4"].layers - 1


def test_a_norm_with_other_readers_is_not_swallowed() -> None:
    graph = build(WIDE["glm4"])
    rewrite(graph, rules_for("torch", Quantisation()))
    normed = [node.outputs[-1] for node in graph.nodes if node.operator in ("rms_norm", "add_rms_norm")]
    read = [value for value in normed if any(node.operator == "quantised_linear" for node in graph.users(value))]
    graph.outputs += read
    rewrite(graph, INT8_ROWS)
    assert len(read) == 5
    assert operators(graph).count("quantise_rows") == 2 + len(read)


def test_without_quantised_linears_nothing_is_quantised() -> None:
    graph = build(SPECS["glm"])
    rewrite(graph, STANDARD)
    assert rewrite(graph, INT8_ROWS) == []
    assert rules_for("native") == rules_for("torch") == STANDARD


def test_readers_that_want_other_groups_have_codes_of_their_own() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType("fp32", ("rows", 8)))
    for group in (4, 8):
        weight = graph.weight(f"w{group}", TensorType("int8", (8, 8)), Quantised(Tensor("w"), "int8", group))
        graph.outputs.append(graph.apply("quantised_linear", x, weight, format="int8", group=group, symmetric=True))
    assert [one.rule for one in rewrite(graph, INT8_ROWS)] == ["quantise_rows"]
    graph.verify()
    made = {node.output: node.attributes["group"] for node in graph.nodes if node.operator == "quantise_rows"}
    assert sorted(made.values()) == [4, 8]
    assert [made[value.producer.inputs[0]] for value in graph.outputs if value.producer] == [4, 8]
