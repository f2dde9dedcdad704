"""Quantising by recipe: what is quantised, what stays, and how far the logits move."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from graph_models import SPECS, largest_error, logits, operators

from openautoglm.core.errors import GraphError
from openautoglm.graph import Graph, TensorType, build
from openautoglm.graph.ir import Node
from openautoglm.graph.rewrite import rewrite
from openautoglm.graph.rules.fold_sources import simplify
from openautoglm.graph.rules.quantise import quantise
from openautoglm.graph.rules.registry import INT8_ROWS, STANDARD
from openautoglm.graph.sources import Concat, Quantised, Rows, Scaled, Tensor

FAMILIES = [name for name in SPECS if name != "glm"]  # rows of 12 have no groups of 4 that are worth a test


def test_linears_are_quantised_and_the_head_stays() -> None:
    graph = build(SPECS["edge"])
    rewrite(graph, STANDARD)
    assert len(quantise(graph, "int8", 4)) == 8
    assert operators(graph).count("quantised_linear") == 8
    assert [node.inputs[1].name for node in graph.nodes if node.operator == "linear"] == ["model.embed_tokens.weight"]
    weight = graph.weights["model.layers.0.self_attn.o_proj.weight.int8"]
    assert weight.source == Quantised(Tensor("model.layers.0.self_attn.o_proj.weight"), "int8", 4)
    assert weight.type == TensorType("int8", (16, 16))
    assert "model.layers.0.self_attn.o_proj.weight" not in graph.weights


def test_quantising_a_tied_head_leaves_the_embedding() -> None:
    graph = build(SPECS["edge"])
    quantise(graph, "int4", 8, keep=())
    assert graph.nodes[0].inputs[1].source == Tensor("model.embed_tokens.weight")
    assert graph.weights["model.embed_tokens.weight.int4"].source == Quantised(
        Tensor("model.embed_tokens.weight"), "int4", 8)


def test_names_with_stars_stay() -> None:
    graph = build(SPECS["glm4"])
    rewrite(graph, STANDARD)
    quantise(graph, "int8", 4, keep=("*.k_proj.*", "lm_head.weight"))
    kept = {node.inputs[1].name for node in graph.nodes if node.operator == "linear"}
    assert kept == {"lm_head.weight", *(f"model.layers.{layer}.self_attn.qkv_proj.weight" for layer in range(2))}


def test_rows_that_groups_do_not_divide_stay_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    graph = build(SPECS["glm"])
    with caplog.at_level(logging.WARNING, "openautoglm"):
        quantise(graph, "int8", 16)
    assert {vars(record)["weight"] for record in caplog.records} == {
        f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(3)}


@pytest.mark.parametrize("arguments", [("fp32", 32), ("int3", 32), ("int8", -1)])
def test_what_cannot_be_quantised_to(arguments: tuple[str, int]) -> None:
    with pytest.raises(GraphError, match="no linears of format"):
        quantise(build(SPECS["glm"]), *arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("form", "most"), [("int8", 0.02), ("int4", 0.4)])
def test_quantised_weights_move_the_logits_little(family: str, form: str, most: float) -> None:
    def change(graph: Graph) -> None:
        rewrite(graph, STANDARD)
        quantise(graph, form, 4)  # type: ignore[arg-type]

    assert 0 < largest_error(SPECS[family], change) < most


@pytest.mark.parametrize("family", FAMILIES)
def test_fusing_and_quantising_commute(family: str) -> None:
    one, other = build(SPECS[family]), build(SPECS[family])
    rewrite(one, STANDARD)
    quantise(one, "int8", 4)
    quantise(other, "int8", 4)
    rewrite(other, STANDARD)
    assert operators(one) == operators(other)
    assert np.abs(logits(one, SPECS[family]) - logits(other, SPECS[family])).max() < 1e-12
    assert {value.source for value in one.weights.values()} == {value.source for value in other.weights.values()}


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_quantised_once_and_in_the_operator_before(family: str) -> None:
    spec = SPECS[family]
    graph = build(spec)
    rewrite(graph, STANDARD)
    quantise(graph, "int8", 4)
    before = logits(graph, spec)
    rewrite(graph, INT8_ROWS)
    found = operators(graph)
    assert found.count("quantised_rows_linear") == 4 * spec.layers
    assert found.count("quantise_rows") == spec.layers  # attention cannot do it by itself
    assert found.count("silu_mul_quantise") == spec.layers
    assert found.count("add_rms_norm_quantise") == 2 * spec.layers - 1
    assert found.count("rms_norm_quantise") == 1
    assert np.abs(logits(graph, spec) - before).max() / np.abs(before).max() < 0.02


def test_a_norm_with_other_readers_is_not_swallowed() -> None:
    graph = build(SPECS["glm4"])
    rewrite(graph, STANDARD)
    quantise(graph, "int8", 4)
    normed = [node.outputs[-1] for node in graph.nodes if node.operator in ("rms_norm", "add_rms_norm")]
    read = [value for value in normed if any(node.operator == "quantised_linear" for node in graph.users(value))]
    graph.outputs += read
    rewrite(graph, INT8_ROWS)
    assert operators(graph).count("quantise_rows") == 2 + len(read)


def test_without_quantised_linears_nothing_is_quantised() -> None:
    graph = build(SPECS["glm"])
    rewrite(graph, STANDARD)
    assert rewrite(graph, INT8_ROWS) == []


def test_readers_that_want_other_groups_keep_their_rows() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType("fp32", ("rows", 8)))
    for group in (4, 8):
        weight = graph.weight(f"w{group}", TensorType("int8", (8, 8)), Quantised(Tensor("w"), "int8", group))
        graph.outputs.append(graph.apply("quantised_linear", x, weight, format="int8", group=group, symmetric=True))
    nodes: list[Node] = list(graph.nodes)
    assert rewrite(graph, INT8_ROWS) == []
    assert graph.nodes == nodes


def test_sources_are_said_simply() -> None:
    t, u = Tensor("t"), Tensor("u")
    rows = {"t": 8, "u": 4}
    assert simplify(Rows(Rows(t, 2, 8), 1, 3), rows) == Rows(t, 3, 5)
    assert simplify(Rows(t, 0, 8), rows) == t
    assert simplify(Rows(t, 0, 8), {}) == Rows(t, 0, 8)
    assert simplify(Concat((Concat((t, u)), t)), rows) == Concat((t, u, t))
    assert simplify(Concat((Rows(t, 0, 4), Rows(t, 4, 8))), rows) == t
    assert simplify(Concat((Rows(t, 0, 4), Rows(t, 5, 8))), rows) == Concat((Rows(t, 0, 4), Rows(t, 5, 8)))
    assert simplify(Rows(Concat((t, u)), 8, 12), rows) == u
    assert simplify(Rows(Concat((t, u)), 7, 9), rows) == Rows(Concat((t, u)), 7, 9)
    assert simplify(Rows(Concat((t, u)), 0, 2), {}) == Rows(Concat((t, u)), 0, 2)
    assert simplify(Scaled(t, 1.0), rows) == t
    assert simplify(Scaled(Scaled(t, 2.0), 0.5), rows) == t
    assert simplify(Scaled(t, Rows(u, 0, 4)), rows) == Scaled(t, u)
    quantised = Concat((Quantised(Rows(t, 0, 4), "int4"), Quantised(Rows(t, 4, 8), "int4")))
    assert simplify(quantised, rows) == Quantised(t, "int4")
    mixed = Concat((Quantised(t, "int4"), Quantised(u, "int8")))
    assert simplify(mixed, rows) == mixed
