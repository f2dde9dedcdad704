"""Quantise activations where quantised linears read them, once for all readers, and in the operator before if it can.

Optional: for kernels that multiply int8 by int8. The sum of an add stays fp32, it is the residual stream.
"""

from __future__ import annotations

from openautoglm.graph.fused import (
    AddRmsNorm,
    QuantisedLinear,
    QuantiseRows,
    RmsNormQuantise,
    SiluMul,
    SiluMulQuantise,
)
from openautoglm.graph.ir import Graph, Value
from openautoglm.graph.match import Match
from openautoglm.graph.pattern import RmsNorm, Siblings
from openautoglm.graph.rewrite import ReplacePattern


def _quantise(match: Match, graph: Graph) -> list[Value]:
    """Quantise once for all readers that want the same groups."""
    x, made = match.roots[0].inputs[0], {}
    for group in dict.fromkeys(root.attributes["group"] for root in match.roots):
        codes, scales = graph.node("quantise_rows", x, name=f"{x.name}.codes", group=group).outputs
        graph.rename(scales, f"{x.name}.scales")
        made[group] = (codes, scales)
    return [graph.apply("quantised_rows_linear", *made[root.attributes["group"]], *root.inputs[1:],
                        name=root.output.name, before=None, **root.attributes) for root in match.roots]


quantise_rows = ReplacePattern(Siblings(QuantisedLinear(), at_least=1), _quantise, "quantise_rows")


def _add_norm(match: Match, graph: Graph) -> dict[Value, Value]:
    norm, (old_codes, old_scales) = match.node("norm"), match.outputs
    total, codes, scales = graph.node("add_rms_norm_quantise", *norm.inputs, name=norm.output.name,
                                      before=None, **match.attributes).outputs
    return {norm.output: total, old_codes: codes, old_scales: scales}


norm_quantise = ReplacePattern(RmsNorm() + QuantiseRows(), RmsNormQuantise(), "norm_quantise")
add_norm_quantise = ReplacePattern(
    QuantiseRows(AddRmsNorm().as_("norm").shared(0)[1]), _add_norm, "add_norm_quantise")
silu_mul_quantise = ReplacePattern(SiluMul() + QuantiseRows(), SiluMulQuantise(), "silu_mul_quantise")
