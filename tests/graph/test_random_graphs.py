"""Rules on graphs that no decoder has: whatever they find there, the outputs stay the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from evaluate_graph import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import RandomGraph

from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rewrite import Rule, rewrite
from openautoglm.graph.rules.registry import INT8_ROWS, OPTIONAL, STANDARD, rules_for

NUMBER = st.integers(0, 20)
GRAPHS = st.builds(RandomGraph, st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=1, max_size=12),
                   st.lists(NUMBER, max_size=3))
RULES = st.lists(st.sampled_from([*STANDARD, *OPTIONAL]), min_size=1, max_size=12, unique=True)


def change(made: RandomGraph, rules: Iterable[Rule]) -> tuple[list[Any], list[Any], int]:
    """Outputs before and after rules, and how often they were applied."""
    inputs = made.inputs()
    before = evaluate(made.graph, made.tensors, inputs)
    count = len(rewrite(made.graph, rules))
    return before, evaluate(made.graph, made.tensors, inputs), count


def apart(before: list[Any], after: list[Any]) -> float:
    """The largest difference next to the largest value of an output."""
    return max(float(np.abs(one - other).max() / (np.abs(one).max() + 1e-9))
               for one, other in zip(before, after, strict=True))


@settings(max_examples=40)
@given(GRAPHS, RULES)
def test_any_rules_in_any_order_keep_the_outputs(made: RandomGraph, rules: list[Rule]) -> None:
    before, after, _ = change(made, rules)
    assert apart(before, after) < 1e-9


@settings(max_examples=20)
@given(GRAPHS)
def test_the_standard_rules_come_to_an_end_where_nothing_is_left(made: RandomGraph) -> None:
    change(made, STANDARD)
    assert rewrite(made.graph, STANDARD) == []
    for node in made.graph.nodes:
        readers = [reader.operator for reader in made.graph.users(node.output)]
        assert node.operator != "silu" or readers != ["mul"] or node.output in made.graph.outputs


@settings(max_examples=25)
@given(GRAPHS, st.sampled_from([Quantisation(), Quantisation(format="int4", group=0, symmetric=False)]))
def test_fusing_keeps_what_quantising_gave(made: RandomGraph, recipe: Quantisation) -> None:
    """Fusing after quantising moves nothing; quantised rows move the outputs as much as eight bits do."""
    quantise = rules_for("torch", recipe)[-1]
    rewrite(made.graph, [quantise])
    before, after, _ = change(made, STANDARD)
    assert apart(before, after) < 1e-9
    before, after, count = change(made, INT8_ROWS)
    assert (apart(before, after) < 1e-12) == (count == 0)


def test_random_graphs_hold_work_for_every_rule() -> None:
    """So the tests above test something."""
    found: Counter[str] = Counter()
    random = np.random.default_rng(0)
    for rules in ([*STANDARD[:-1]], [STANDARD[-1]], *([rule] for rule in OPTIONAL)):
        for _ in range(60):
            choices = [tuple(some) for some in random.integers(0, 21, (8, 3)).tolist()]
            found.update(one.rule for one in rewrite(RandomGraph(choices, []).graph, rules))
    assert {rule.name for rule in (*STANDARD, *OPTIONAL)} == set(found)
