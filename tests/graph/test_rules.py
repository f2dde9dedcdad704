"""Each rule changes the graph as it says and nothing about what is computed (in fp64, so 1e-12 is rounding)."""

from __future__ import annotations

import numpy as np
import pytest
from evaluate_graph import weight
from graph_models import SPECS, largest_error, logits, operators

from openautoglm.core.errors import GraphError
from openautoglm.graph import Graph, TensorType, build
from openautoglm.graph.rewrite import Rule, rewrite
from openautoglm.graph.rules.fold_norm import fold_norm_weight
from openautoglm.graph.rules.fold_sources import fold_sources
from openautoglm.graph.rules.fuse_linears import joined
from openautoglm.graph.rules.registry import INT8_ROWS, OPTIONAL, STANDARD, standard_rules
from openautoglm.graph.rules.silu_mul import silu_mul_of_two
from openautoglm.graph.sources import Concat, Rows, Scaled, Tensor
from openautoglm.models.presets import PRESETS

ROUNDING = 1e-12


@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("rule", [*STANDARD, *OPTIONAL], ids=lambda rule: rule.name)
def test_a_rule_alone_keeps_the_logits(rule: Rule, family: str) -> None:
    assert largest_error(SPECS[family], lambda graph: rewrite(graph, [rule])) < ROUNDING


@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("seed", range(3))
def test_all_rules_in_any_order_keep_the_logits(family: str, seed: int) -> None:
    rules = [*STANDARD, *OPTIONAL]
    np.random.default_rng(seed).shuffle(rules)  # type: ignore[arg-type]
    assert largest_error(SPECS[family], lambda graph: rewrite(graph, rules), seed) < ROUNDING


@pytest.mark.parametrize("family", SPECS)
def test_the_standard_rules_leave_one_form(family: str) -> None:
    spec = SPECS[family]
    graph = build(spec)
    rewrite(graph, STANDARD)
    found = operators(graph)
    sandwich = 2 * spec.layers if spec.family == "glm4" else 0
    assert found.count("linear") == 4 * spec.layers + 1
    assert found.count("silu_mul") == found.count("split") == spec.layers
    assert found.count("add_rms_norm") == 2 * spec.layers
    assert found.count("rms_norm") == 1 + sandwich
    assert found.count("gather_rows") == 2
    assert not {"add", "mul", "silu"} & set(found)
    assert graph.outputs[0].name == "logits"
    assert rewrite(graph, STANDARD) == []


def test_nothing_of_the_last_feed_forward_works_on_rows_that_nobody_wants() -> None:
    graph = build(SPECS["glm"])
    rewrite(graph, standard_rules())
    last = max(place for place, name in enumerate(operators(graph)) if name == "paged_attention")
    assert all(value.type.shape[0] == "wanted" for node in graph.nodes[last + 1:] for value in node.outputs)


def test_names_of_values_outlive_rules() -> None:
    before, after = build(SPECS["glm"]), build(SPECS["glm"])
    rewrite(after, STANDARD)
    names = {value.name for value in before.values()}
    assert {"model.layers.1.self_attn.q_proj", "model.layers.1.after_mlp", "logits"} <= names
    assert {"model.layers.1.self_attn.q_proj", "model.layers.1.after_mlp", "logits"} <= {
        value.name for value in after.values()}


def test_qkv_stacks_weights_and_biases() -> None:
    graph = build(SPECS["glm"])
    rewrite(graph, STANDARD)
    fused = graph.weights["model.layers.0.self_attn.qkv_proj.weight"]
    parts = [Tensor(f"model.layers.0.self_attn.{name}_proj.weight") for name in "qkv"]
    assert fused.source == Concat(tuple(parts))
    assert fused.type == TensorType("fp32", (64, 16))
    assert graph.weights["model.layers.0.self_attn.qkv_proj.bias"].type.shape == (64,)


def test_gate_and_up_become_the_tensor_of_the_checkpoint_again() -> None:
    graph = build(SPECS["edge"])
    rewrite(graph, STANDARD)
    name = "model.layers.0.mlp.gate_up_proj.weight"
    assert graph.weights[name].source == Tensor(name)
    assert graph.weights[name].type.shape == (40, 16)


def test_a_bias_on_one_only_keeps_linears_apart() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType("fp32", ("rows", 4)))
    weights = [graph.weight(name, TensorType("fp32", (4, 4)), Tensor(name)) for name in "abc"]
    bias = graph.weight("bias", TensorType("fp32", (4,)), Tensor("bias"))
    graph.outputs = [graph.apply("linear", x, weights[0], bias), *(graph.apply("linear", x, w) for w in weights[1:])]
    assert rewrite(graph, STANDARD) == []


def test_silu_mul_takes_two_values_too() -> None:
    graph = build(SPECS["glm"])
    rewrite(graph, [silu_mul_of_two])
    assert [len(node.inputs) for node in graph.nodes if node.operator == "silu_mul"] == [2, 2, 2]


def test_a_split_into_other_than_halves_is_no_gate() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType("fp32", ("rows", 9)))
    gate, _, up = graph.node("split", x, sizes=(3, 3, 3)).outputs
    graph.outputs = [graph.apply("mul", graph.apply("silu", gate), up)]
    rewrite(graph, STANDARD)
    assert operators(graph) == ["split", "silu_mul"]
    assert len(graph.nodes[1].inputs) == 2


def test_the_sum_of_an_add_stays_for_its_other_readers() -> None:
    graph = build(SPECS["glm"])
    rewrite(graph, STANDARD)
    fused = [node for node in graph.nodes if node.operator == "add_rms_norm"]
    assert [len(graph.users(node.outputs[0])) for node in fused] == [1, 1, 1, 1, 1, 0]  # the last is only normed


def test_a_norm_folds_into_all_its_linears_or_none() -> None:
    graph = build(SPECS["glm"])
    rewrite(graph, [fold_norm_weight])
    assert operators(graph).count("unit_rms_norm") == 7
    norm = Tensor("model.layers.0.input_layernorm.weight")
    q = graph.weights["model.layers.0.self_attn.q_proj.weight.normed"]
    assert q.source == Scaled(Tensor("model.layers.0.self_attn.q_proj.weight"), norm)
    graph = build(SPECS["glm"])
    graph.outputs.append(next(node for node in graph.nodes if node.operator == "rms_norm").output)
    rewrite(graph, [fold_norm_weight])
    assert operators(graph).count("rms_norm") == 1


def test_rules_by_name() -> None:
    assert standard_rules() == STANDARD
    assert [rule.name for rule in standard_rules("fuse_norm_linear")][:4] == [
        "gather_early", "merge_twins", "fuse_norm_linear", "fuse_qkv"]
    with pytest.raises(GraphError, match="no rule 'fuse_all'"):
        standard_rules("fuse_all")
    names = [rule.name for rule in (*STANDARD, *INT8_ROWS, *OPTIONAL)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["glm-4-9b", "glm-4-0414", "glm-edge-1.5b"])
def test_released_architectures_rewrite_whole(name: str) -> None:
    graph = build(PRESETS[name])
    done = rewrite(graph, STANDARD)
    layers = PRESETS[name].layers
    assert sum(one.rule == "fuse_add_norm" for one in done) == 2 * layers
    assert len(graph.nodes) <= 13 * layers + 6


def test_names_of_fused_things() -> None:
    assert joined(["a.q_proj.weight", "a.k_proj.weight", "a.v_proj.weight"]) == "a.qkv_proj.weight"
    assert joined(["a.gate", "a.up"]) == "a.gate_up"
    assert joined(["x", "x"]) == "x_"


def test_pieces_of_a_tensor_are_the_tensor_only_when_they_leave_no_gap() -> None:
    spec = SPECS["glm"]
    graph = build(spec)
    whole = Concat((Rows(Tensor("t"), 0, 3), Rows(Tensor("t"), 3, 5)))
    gap = Concat((Rows(Tensor("u"), 0, 3), Rows(Tensor("u"), 4, 5)))
    assert weight(whole, {"t": np.ones((5, 2))}).shape == (5, 2)
    x = graph.nodes[0].output
    for name, source, rows in (("whole", whole, 5), ("gap", gap, 4), ("one", Rows(Tensor("w"), 0, 4), 4)):
        made = graph.weight(name, TensorType("fp32", (rows, spec.hidden_size)), source)
        graph.outputs.append(graph.apply("linear", x, made))
    rewrite(graph, [fold_sources])
    assert graph.weights["t"].source == Tensor("t")
    assert graph.weights["gap"].source == gap
    assert graph.weights["one"].source == Rows(Tensor("w"), 0, 4)


def test_logits_are_of_the_wanted_rows() -> None:
    assert logits(build(SPECS["glm"]), SPECS["glm"]).shape == (3, 24)
