"""Patterns and matching, on graphs of a few nodes; what a rule may do, and what is told when it does not."""

from __future__ import annotations

import logging

import pytest
from graph_models import operators

from openautoglm.core.errors import GraphError
from openautoglm.graph import Graph, TensorType, Value
from openautoglm.graph.ir import Node
from openautoglm.graph.match import Match, Readers, matches
from openautoglm.graph.order import in_running_order
from openautoglm.graph.pattern import Add, Capture, Linear, Mul, Operation, Pattern, RmsNorm, Siblings, Silu, Split
from openautoglm.graph.rewrite import Application, ReplacePattern, RewriteGraph, rewrite
from openautoglm.graph.sources import Tensor

ROWS = TensorType("fp32", ("rows", 4))


class Small:
    """A graph with an input, to which tests append."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.x = self.graph.add_input("x", ROWS)
        self.y = self.graph.add_input("y", ROWS)

    def weight(self, name: str, *shape: int) -> Value:
        return self.graph.weight(name, TensorType("fp32", shape), Tensor(name))

    def norm(self, x: Value, eps: float = 1e-5) -> Value:
        return self.graph.apply("rms_norm", x, self.weight("norm", 4), eps=eps)

    def linear(self, x: Value, name: str = "w") -> Value:
        return self.graph.apply("linear", x, self.weight(name, 4, 4))

    def found(self, pattern: Pattern) -> list[Match]:
        readers = Readers(self.graph)
        return [match for node in self.graph.nodes for match in matches(pattern, node, readers)]


@pytest.fixture
def small() -> Small:
    return Small()


def test_a_chain_gives_its_leaves_in_order(small: Small) -> None:
    small.graph.outputs = [small.linear(small.norm(small.x))]
    (match,) = small.found(RmsNorm() + Linear().as_("linear"))
    assert [value.name for value in match.leaves] == ["x", "norm", "w"]
    assert match["linear"] is small.graph.outputs[0]
    assert match.attributes == {"eps": 1e-5}
    assert small.found(Linear() + RmsNorm()) == []


def test_longer_chains_are_read_from_left_to_right_and_in_brackets(small: Small) -> None:
    small.graph.outputs = [small.linear(small.norm(small.linear(small.x, "first")))]
    for pattern in (Linear() + RmsNorm() + Linear(), Linear() + (RmsNorm() + Linear())):
        (match,) = small.found(pattern)
        assert [node.operator for node in match.nodes] == ["linear", "rms_norm", "linear"]
        assert [value.name for value in match.leaves] == ["x", "first", "norm", "w"]
    with pytest.raises(GraphError, match="given twice"):
        RmsNorm() + Linear(Capture("x"))


def test_add_and_mul_match_in_either_order(small: Small) -> None:
    normed = small.norm(small.x)
    small.graph.outputs = [small.graph.apply("add", normed, small.y)]
    (match,) = small.found(Add(Capture("y"), RmsNorm().as_("norm")))
    assert match["y"] is small.y
    assert match["norm"] is normed
    assert match.has("norm")
    assert not match.has("sum")


def test_one_name_stands_for_one_thing(small: Small) -> None:
    pattern = Add(Silu(Capture("x")), Capture("x"))
    silu = small.graph.apply("silu", small.x)
    other = small.graph.apply("add", silu, small.y)
    small.graph.outputs = [small.graph.apply("add", other, other)]
    assert small.found(pattern) == []
    same = small.graph.apply("add", small.graph.apply("silu", small.x), small.x)
    small.graph.outputs.append(same)
    assert [match.outputs for match in small.found(pattern)] == [(same,)]


def test_outputs_of_one_node(small: Small) -> None:
    first, second = small.graph.node("split", small.x, sizes=(2, 2)).outputs
    gated = small.graph.apply("mul", small.graph.apply("silu", first), second)
    swapped = small.graph.apply("mul", small.graph.apply("silu", second), first)
    small.graph.outputs = [gated, swapped]
    halves = Split().as_("halves").shared()
    assert [match.outputs for match in small.found(Mul(Silu(halves[0]), halves[1]))] == [(gated,)]


def test_conditions_on_attributes_and_nodes(small: Small) -> None:
    small.graph.outputs = [small.norm(small.x, 1e-5), small.norm(small.x, 1e-6)]
    assert len(small.found(RmsNorm())) == 2
    assert len(small.found(RmsNorm(eps=1e-6))) == 1
    assert len(small.found(RmsNorm(eps=lambda eps: isinstance(eps, float) and eps > 2e-6))) == 1
    assert len(small.found(RmsNorm(theta=lambda _: True))) == 0
    assert len(small.found(RmsNorm(where=lambda node: node.inputs[0] is small.y))) == 0
    assert len(small.found(RmsNorm(Capture("x", where=lambda value: value.producer is None)))) == 2


def test_an_inner_value_that_others_read_is_not_swallowed(small: Small) -> None:
    normed = small.norm(small.x)
    small.graph.outputs = [small.linear(normed), small.graph.apply("silu", normed)]
    assert small.found(RmsNorm() + Linear()) == []
    assert len(small.found(RmsNorm().shared() + Linear())) == 1
    assert len(small.found(RmsNorm().shared(0) + Linear())) == 1
    assert small.found(RmsNorm().shared(1) + Linear()) == []
    small.graph.outputs = [small.graph.outputs[0], normed]
    small.graph.remove_dead()
    assert small.found(RmsNorm() + Linear()) == []


def test_siblings_read_one_value(small: Small) -> None:
    q, k = (small.linear(small.x, name) for name in "qk")
    alone = small.linear(small.y, "o")
    small.graph.outputs = [q, k, alone]
    (match,) = small.found(Siblings(Linear().as_("q"), Linear().as_("k")))
    assert (match["q"], match["k"]) == (q, k)
    assert match.outputs == (q, k)
    assert small.found(Siblings(Linear(), Linear(), Linear())) == []
    assert [match.outputs for match in small.found(Siblings(Linear(), at_least=1))] == [(q, k), (alone,)]
    assert [match.outputs for match in small.found(Siblings(Linear(), at_least=2))] == [(q, k)]
    with pytest.raises(GraphError, match="siblings take patterns"):
        Siblings(Linear(), Linear(), at_least=2)


def test_patterns_that_make_no_sense_are_told(small: Small) -> None:
    small.graph.outputs = [small.linear(small.x)]
    with pytest.raises(GraphError, match="not a lone capture"):
        small.found(Capture("x"))
    with pytest.raises(GraphError, match="at the top"):
        small.found(Linear(Siblings(Linear())))
    (match,) = small.found(Linear(Capture("x")))
    with pytest.raises(GraphError, match="captures nothing as 'z'"):
        match["z"]
    with pytest.raises(GraphError, match="a value of the pattern"):
        match.node("x")


def test_an_operator_takes_the_leaves_that_it_names(small: Small) -> None:
    small.graph.outputs = [small.graph.apply("add", small.x, small.graph.apply("silu", small.y))]
    rule = ReplacePattern(Add(Capture("a"), Silu(Capture("b"))), Mul(Capture("b"), Capture("a")), "to_mul")
    assert rewrite(small.graph, [rule]) == [Application("to_mul", "add")]
    (node,) = small.graph.nodes
    assert (node.operator, node.inputs, node.output.name) == ("mul", [small.y, small.x], "add")


def test_an_attribute_of_the_replacement_wins_over_a_matched_one(small: Small) -> None:
    small.graph.outputs = [small.linear(small.norm(small.x))]
    rewrite(small.graph, [ReplacePattern(RmsNorm() + Linear(), Operation("norm_linear")(eps=0.5), "fuse")])
    assert small.graph.nodes[0].attributes == {"eps": 0.5}


def test_operators_that_disagree_are_told(small: Small) -> None:
    small.graph.outputs = [small.norm(small.norm(small.x, 1e-5), 1e-6)]
    rule = ReplacePattern(RmsNorm() + RmsNorm(), RmsNorm(), "one_norm")
    with pytest.raises(GraphError, match="the rule one_norm: the matched operators disagree on eps"):
        rewrite(small.graph, [rule])


def test_a_function_may_wrap_decline_and_look_at_the_whole_match(small: Small) -> None:
    def wrap(match: Match, graph: Graph) -> Value | None:
        value = match.outputs[0]
        wrapped = any(node.operator == "silu" for node in graph.users(value))
        return None if wrapped else graph.apply("silu", value)

    small.graph.outputs = [small.linear(small.linear(small.x), "second")]
    done = rewrite(small.graph, [ReplacePattern(Linear(), wrap, "wrap", where=lambda match: len(match.leaves) == 2)])
    assert len(done) == 2
    assert operators(small.graph) == ["linear", "silu", "linear", "silu"]
    assert rewrite(small.graph, [ReplacePattern(Linear(), wrap, "never", where=lambda match: False)]) == []


def test_nodes_move_before_their_readers(small: Small) -> None:
    total = small.graph.apply("add", small.x, small.y)
    early = small.graph.apply("silu", total)
    normed = small.norm(total)
    small.graph.outputs = [small.graph.apply("mul", early, normed)]

    def fuse(match: Match, graph: Graph) -> dict[Value, Value]:
        made = graph.node("add_rms_norm", match["x"], match["y"], match["w"], eps=1e-5)
        return {match["sum"]: made.outputs[0], match["norm"]: made.outputs[1]}

    pattern = RmsNorm(Add(Capture("x"), Capture("y")).as_("sum").shared(), Capture("w")).as_("norm")
    rewrite(small.graph, [ReplacePattern(pattern, fuse, "fuse")])
    assert operators(small.graph) == ["add_rms_norm", "silu", "mul"]
    assert [value.name for value in small.graph.nodes[0].outputs] == ["add", "rms_norm"]


def test_nodes_that_wait_for_each_other_are_told(small: Small) -> None:
    one = Node("silu", [small.x])
    two = Node("silu", [Value(ROWS, "one", one)])
    one.inputs = [Value(ROWS, "two", two)]
    one.outputs, two.outputs = two.inputs, one.inputs
    with pytest.raises(GraphError, match="wait for its own output"):
        in_running_order([one, two])


def test_a_long_chain_is_put_in_order_without_recursion(small: Small) -> None:
    value = small.x
    for _ in range(3000):
        value = small.graph.apply("silu", value)
    assert in_running_order(small.graph.nodes[::-1]) == small.graph.nodes


def test_rules_that_never_end_are_told(small: Small) -> None:
    small.graph.outputs = [small.graph.apply("silu", small.x)]
    endless = ReplacePattern(Silu(), lambda match, graph: graph.apply("silu", graph.apply("silu", match.leaves[0])),
                             "endless")
    with pytest.raises(GraphError, match="the rule endless: never ends"):
        rewrite(small.graph, [endless])


def test_rules_that_undo_each_other_are_told(small: Small) -> None:
    small.graph.outputs = [small.graph.apply("add", small.x, small.y)]
    there, back = ReplacePattern(Add(), Mul(), "there"), ReplacePattern(Mul(), Add(), "back")
    with pytest.raises(GraphError, match="there, back: the rules never end"):
        rewrite(small.graph, [there, back])


@pytest.mark.parametrize(("replacement", "message"), [
    (lambda match, graph: [match.leaves[0], match.leaves[1]], "gives 2 values for 1"),
    (lambda match, graph: match.outputs[0], "replaces a value by itself"),
    (lambda match, graph: match.leaves[1], "cannot take the place"),
])
def test_a_replacement_that_does_not_fit_is_told(small: Small, replacement: object, message: str) -> None:
    small.graph.outputs = [small.linear(small.x)]
    with pytest.raises(GraphError, match=f"the rule wrong: .*{message}"):
        rewrite(small.graph, [ReplacePattern(Linear(), replacement, "wrong")])  # type: ignore[arg-type]


def test_a_rule_that_breaks_the_graph_is_named(small: Small) -> None:
    small.graph.outputs = [small.graph.apply("silu", small.graph.apply("silu", small.x))]

    def turn(graph: Graph) -> list[str]:
        graph.nodes.reverse()
        return ["all"]

    with pytest.raises(GraphError, match=r"the rule turn: .* is read before it is made"):
        rewrite(small.graph, [RewriteGraph(turn, "turn")])


def test_applications_are_logged(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    small.graph.outputs = [small.graph.apply("add", small.x, small.y)]
    with caplog.at_level(logging.DEBUG, "openautoglm.graph"):
        rewrite(small.graph, [ReplacePattern(Add(), Mul(), "to_mul")])
    assert [(vars(one)["rule"], vars(one)["at"]) for one in caplog.records] == [("to_mul", "add")]


def test_dead_nodes_go_and_effects_stay(small: Small) -> None:
    layout = small.graph.add_input("layout", TensorType("layout"))
    small.graph.apply("paged_attention", small.x, small.x, small.x, layout, layer=0, heads=2, kv_heads=2, head_dim=2)
    small.linear(small.norm(small.x))
    small.graph.outputs = [small.graph.apply("add", small.x, small.y)]
    rewrite(small.graph, [ReplacePattern(Add(), Mul(), "to_mul")])
    assert operators(small.graph) == ["paged_attention", "mul"]
    assert small.graph.weights == {}
