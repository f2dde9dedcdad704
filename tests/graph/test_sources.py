"""Sources of weights: said as simply as possible, and what they read."""

from __future__ import annotations

import numpy as np
from evaluate_graph import weight
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.graph.rules.fold_sources import simplify
from openautoglm.graph.sources import Concat, Quantised, Rows, Scaled, Source, Tensor, tensors


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


def test_tensors_are_named_once_and_in_order() -> None:
    source = Quantised(Concat((Scaled(Tensor("a"), Tensor("n")), Rows(Tensor("b"), 0, 2), Tensor("a"))), "int8")
    assert tensors(source) == ("a", "n", "b")


HEIGHTS = {"t": 8, "u": 4}
VALUES = {**{name: np.random.default_rng(rows).normal(size=(rows, 8)) for name, rows in HEIGHTS.items()},
          "n": np.random.default_rng(0).normal(size=8)}


@st.composite
def sources(draw: st.DrawFn, depth: int = 4) -> Source:
    """Any source of some rows and 8 columns."""
    kind = draw(st.integers(0, 4)) if depth else 0
    if kind == 0:
        return Tensor(draw(st.sampled_from(sorted(HEIGHTS))))
    if kind == 1:
        return Concat(tuple(draw(st.lists(sources(depth - 1), min_size=1, max_size=3))))
    of = draw(sources(depth - 1))
    if kind == 2:
        height = len(weight(of, VALUES))
        start = draw(st.integers(0, height - 1))
        return Rows(of, start, draw(st.integers(start + 1, height)))
    if kind == 3:
        return Scaled(of, draw(st.sampled_from([1.0, 0.5, -2.0, Tensor("n")])))
    return Quantised(of, draw(st.sampled_from(["int8", "int4"])), draw(st.sampled_from([0, 4])))


@given(sources(), st.sets(st.sampled_from(sorted(HEIGHTS))))
def test_what_is_said_simply_is_the_same(source: Source, known: set[str]) -> None:
    simple = simplify(source, {name: HEIGHTS[name] for name in known})
    assert np.allclose(weight(simple, VALUES), weight(source, VALUES), rtol=1e-12, atol=1e-12)
    assert simplify(simple, {name: HEIGHTS[name] for name in known}) == simple
    assert len(repr(simple)) <= len(repr(source))
