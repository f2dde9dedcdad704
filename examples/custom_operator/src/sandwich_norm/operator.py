"""What the operator takes and gives."""

from __future__ import annotations

from collections.abc import Mapping

from openautoglm.graph.ir import Attribute
from openautoglm.graph.operators import Operator, Types, expect, infer


def _types(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """x and y [rows, width], inner and outer [width] -> x + rms_norm(y) * inner, and rms_norm of it * outer.

    Attribute eps, that of both norms.
    """
    expect(len(types) == 4, f"sandwich_norm takes 4 inputs, not {len(types)}")
    x, y, inner, outer = types
    expect(x == y, f"{x} and {y} differ")
    return [*infer("rms_norm", [y, inner], attributes), *infer("rms_norm", [x, outer], attributes)]


sandwich_norm = Operator("sandwich_norm", _types)
