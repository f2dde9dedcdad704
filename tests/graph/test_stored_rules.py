"""What a checkpoint holds quantised keeps its form in the graph, matrix by matrix."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from openautoglm.core.errors import GraphError
from openautoglm.graph.build import build
from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rewrite import rewrite
from openautoglm.graph.rules.registry import STANDARD, rules_for
from openautoglm.graph.sources import Concat, Quantised, Tensor
from openautoglm.models.quantised_file import Form
from openautoglm.models.spec import GlmSpec
from openautoglm.models.weight_shapes import weight_shapes

INT8, INT4 = Form(8, 32, True), Form(4, 16, False)


def spec(**changes: Any) -> GlmSpec:
    return GlmSpec(**{"vocab_size": 96, "hidden_size": 32, "layers": 1, "heads": 4, "kv_heads": 2, "head_dim": 8,
                      "ffn_size": 64, "qkv_bias": False, **changes})


def rewritten(forms: dict[str, Form], **changes: Any) -> Any:
    graph = build(spec(**changes))
    rewrite(graph, rules_for("torch", stored=forms))
    graph.verify()
    return graph


def forms_of(choose: Any, **changes: Any) -> dict[str, Form]:
    return {name: form for name, shape in weight_shapes(spec(**changes)).items()
            if len(shape) == 2 and (form := choose(name))}


def test_one_form_is_fused_as_plain_linears_are() -> None:
    graph = rewritten(forms_of(lambda name: INT8))
    plain = build(spec())
    rewrite(plain, STANDARD)
    found = [node.operator for node in graph.nodes]
    assert found == [name.replace("linear", "quantised_linear") for name in (node.operator for node in plain.nodes)]
    front = "model.layers.0.self_attn"
    parts = tuple(Tensor(f"{front}.{name}_proj.weight") for name in "qkv")
    assert Quantised(Concat(parts), "int8", 32) in [value.source for value in graph.weights.values()]
    assert Quantised(Tensor("model.layers.0.mlp.gate_up_proj.weight"), "int8", 32) in [
        value.source for value in graph.weights.values()]


def test_a_tied_head_and_the_table_are_one_weight() -> None:
    graph = rewritten(forms_of(lambda name: INT4, tied=True), tied=True)
    head = next(node for node in graph.nodes if node.operator == "quantised_linear"
                and node.output.type.shape[1] == 96)
    assert graph.nodes[0].operator == "embedding"
    assert graph.nodes[0].inputs[1] is head.inputs[1]
    assert head.attributes == {"format": "int4", "group": 16, "symmetric": False}


def test_each_matrix_keeps_its_own_form(caplog: pytest.LogCaptureFixture) -> None:
    choose = {"q_proj": INT4, "k_proj": INT8, "v_proj": INT8, "down_proj": INT4}
    with caplog.at_level(logging.WARNING):
        graph = rewritten(forms_of(lambda name: choose.get(name.split(".")[-2])))
    assert len([one for one in caplog.records if "not fused" in one.message]) == 1
    found = {tuple(node.attributes[key] for key in ("format", "group", "symmetric"))
             for node in graph.nodes if node.operator == "quantised_linear"}
    assert found == {("int8", 32, True), ("int4", 16, False)}
    assert sum(node.operator == "quantised_linear" for node in graph.nodes) == 4
    assert sum(node.operator == "linear" for node in graph.nodes) == 3  # o_proj, gate_up_proj, the head


def test_what_is_stored_quantised_is_not_quantised_again() -> None:
    with pytest.raises(GraphError, match="holds quantised weights already"):
        rules_for("native", Quantisation(), stored={"w": INT8})
    assert rules_for("torch", stored={}) == STANDARD
    assert len(rules_for("native", stored={"w": INT8})) > len(rules_for("torch", stored={"w": INT8}))
