"""Sources of weights: said as simply as possible, and what they read."""

from __future__ import annotations

from openautoglm.graph.rules.fold_sources import simplify
from openautoglm.graph.sources import Concat, Quantised, Rows, Scaled, Tensor, tensors


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
