"""Graphs as text and as pictures: everything is there, and layers that repeat each other once."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from graph_models import SPECS, WIDE

from openautoglm.graph import Graph, TensorType, build
from openautoglm.graph.picture import html, svg
from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rewrite import Application, rewrite
from openautoglm.graph.rules.registry import rules_for
from openautoglm.graph.sections import sections
from openautoglm.graph.show import counts, summary, text
from openautoglm.graph.sources import Rows, Scaled, Tensor
from openautoglm.models.presets import PRESETS
from openautoglm.models.spec import GlmSpec

SVG = "{http://www.w3.org/2000/svg}"


def released(name: str = "glm-edge-1.5b") -> GlmSpec:
    """A released architecture, with eight layers only."""
    return PRESETS[name].model_copy(update={"layers": 8})


def rewritten(name: str = "glm-edge-1.5b") -> Graph:
    graph = build(released(name))
    rewrite(graph, rules_for("native", Quantisation(format="int4", group=128)))
    return graph


def rows(shown: str, value: str) -> list[list[str]]:
    """The lines of a value, cut into cells."""
    return [re.split(r"\s{2,}", line) for line in shown.splitlines() if line.strip().split("  ")[0] == value]


def test_a_node_has_its_operator_types_attributes_and_weights() -> None:
    shown = text(rewritten())
    assert rows(shown, "attention")[0] == [
        "attention", "fp32[rows, 2048]", "paged_attention", "q_turned, k_turned, self_attn.v_proj, layout",
        "layer=0 heads=16 kv_heads=4 head_dim=128"]
    assert rows(shown, "self_attn.qkv_proj.weight.int4")[0][1:] == [
        "self_attn.qkv_proj.weight.int4", "[3072, 2048]", "weight",
        "concat(self_attn.q_proj.weight, self_attn.k_proj.weight, self_attn.v_proj.weight)",
        "int4, groups of 128, symmetric"]
    assert "inputs   ids int32[rows], positions int32[rows], layout layout, wanted int32[wanted]" in shown
    assert "outputs  logits fp32[wanted, 59264]" in shown


def test_columns_are_aligned() -> None:
    lines = text(rewritten()).splitlines()
    head = next(line for line in lines if line.startswith("value "))
    place = head.index("operator")
    nodes = [line for line in lines if re.search(r" (rotary|split|paged_attention) ", line)]
    assert len(nodes) == 3 * 4
    assert all(line[place - 2:place] == "  " and line[place] != " " for line in nodes)


@pytest.mark.parametrize("rules", [False, True])
def test_layers_that_repeat_each_other_are_shown_once(rules: bool) -> None:
    graph = rewritten() if rules else build(released())
    titles = [one.title for one in sections(graph)]
    inner = "layers 1 to 6, 6 times the same"
    assert titles == (["", "layer 0", inner, "layer 7", ""] if rules else
                      ["", "layer 0", "layers 1 to 7, 7 times the same", ""])
    every = text(graph, fold=False)
    assert re.findall(r"^layer (\d+)$", every, re.MULTILINE) == [str(number) for number in range(8)]
    assert len(every) > 1.5 * len(text(graph))


def test_sections_hold_every_node_once() -> None:
    for graph in (rewritten(), build(SPECS["glm4"])):
        held = [node for section in sections(graph) for nodes in section.repeats for node in nodes]
        assert held == graph.nodes


def test_other_layers_are_named_from_where_one_looks() -> None:
    shown = text(build(released()))
    assert rows(shown, "input_layernorm")[1][3:] == ["[N-1].after_mlp", "eps=1e-05"]
    assert "layer=N" in shown
    assert rows(text(rewritten()), "[1].input_layernorm.codes")[0][1] == "int8[rows, 2048]"


def test_layers_that_differ_in_a_weight_stay_apart() -> None:
    graph = build(released())
    rewrite(graph, rules_for("torch", Quantisation(keep=("model.layers.3.*",))))
    titles = [one.title for one in sections(graph)]
    assert titles == ["", "layer 0", "layers 1 to 2, 2 times the same", "layer 3", "layers 4 to 6, 3 times the same",
                      "layer 7", ""]


def test_sources_are_written_out() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType("fp32", ("rows", 4)))
    made = graph.weight("w", TensorType("fp32", (2, 4)), Scaled(Rows(Tensor("t"), 1, 3), Tensor("n")))
    half = graph.weight("h", TensorType("fp32", (2, 4)), Scaled(Tensor("u"), 0.5))
    graph.outputs = [graph.apply("linear", x, made), graph.apply("linear", x, half)]
    shown = text(graph)
    assert "t[1:3] * n" in shown
    assert "u * 0.5" in shown


def test_what_a_graph_holds_and_how_often_rules_were_applied() -> None:
    spec = WIDE["edge"]
    assert summary(build(spec)).startswith(f"{16 * spec.layers + 4} nodes, ")
    assert summary(build(spec)).endswith("values: 64,832 as loaded")
    quantised = summary(rewritten())
    assert {form: count for count, form in re.findall(r"([\d,]+) (int4|int8)", quantised)} == {
        "int4": "385,875,968", "int8": "121,372,672"}
    done = [Application("b", "x"), Application("a", "x"), Application("b", "y")]
    assert counts(done).split() == ["b", "2", "a", "1"]


def test_the_picture_is_well_formed_and_holds_each_drawn_node() -> None:
    graph = rewritten("glm-4-0414")
    root = ElementTree.fromstring(svg(graph, title="a < b & c"))
    operators = Counter(node.operator for section in sections(graph) for node in section.nodes)
    drawn = Counter(label.text for group in root.iter(f"{SVG}g") for label in group.findall(f"{SVG}text")[:1])
    assert drawn == operators
    assert root.findtext(f"{SVG}title") == "a < b & c"
    frames = [one for one in root.iter(f"{SVG}rect") if one.get("class") == "frame"]
    assert len(frames) == 3
    tips = [group.findtext(f"{SVG}title") or "" for group in root.iter(f"{SVG}g")]
    assert any("self_attn.o_proj.weight.int4 [4096, 4096] int4, groups of 128, symmetric" in tip for tip in tips)


def test_every_flow_of_the_picture_goes_down_and_boxes_lie_apart() -> None:
    root = ElementTree.fromstring(svg(rewritten("glm-4-0414")))
    flows = [one.get("d") or "" for one in root.iter(f"{SVG}path") if one.get("class") == "flow"]
    assert len(flows) > 50
    for flow in flows:
        numbers = [float(one) for one in re.findall(r"-?[\d.]+", flow)]
        assert numbers[1] < numbers[-1]
    boxes = [[float(one.get(key) or 0) for key in ("x", "y", "width", "height")]
             for one in root.iter(f"{SVG}rect") if one.get("class") == "box"]
    width = float((root.get("viewBox") or "").split()[2])
    for place, (x, y, wide, high) in enumerate(boxes):
        assert 0 <= x <= x + wide <= width
        assert all(x + wide <= left or left + wide <= x or y + high <= top or top + high <= y
                   for left, top, _, _ in boxes[place + 1:])


def test_the_page_holds_picture_text_and_notes_and_loads_nothing() -> None:
    page = html(rewritten(), title="t", notes="a <rule>")
    assert "a &lt;rule&gt;" in page
    assert re.search(r"paged_attention +q_turned", page)
    assert not re.search(r"<script|<link|<img|@import|url\(|src=", page)
    HTMLParser().feed(page)
    assert page.count("<svg") == page.count("</svg>") == 1
