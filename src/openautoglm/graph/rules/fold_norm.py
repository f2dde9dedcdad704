"""Multiply a norm's weight into the columns of the linears that read it. Optional: it changes what is quantised."""

from __future__ import annotations

from openautoglm.graph.ir import Graph, Value
from openautoglm.graph.match import Match
from openautoglm.graph.pattern import Linear, RmsNorm, Siblings
from openautoglm.graph.rewrite import ReplacePattern
from openautoglm.graph.sources import Scaled


def _foldable(match: Match) -> bool:
    weights = [match["norm"].producer.inputs[1] if match["norm"].producer else None,
               *(root.inputs[1] for root in match.roots)]
    return all(weight is not None and weight.source is not None for weight in weights)


def _fold(match: Match, graph: Graph) -> list[Value]:
    norm = match.node("norm")
    by = norm.inputs[1].source
    unit = graph.apply("unit_rms_norm", norm.inputs[0], name=norm.output.name, before=None, **norm.attributes)
    values = []
    for root in match.roots:
        old = root.inputs[1]
        if old.source is None or by is None:
            continue
        weight = graph.weight(f"{old.name}.normed", old.type, Scaled(old.source, by))
        values.append(graph.apply("linear", unit, weight, *root.inputs[2:], name=root.output.name))
    return values


fold_norm_weight = ReplacePattern(
    pattern=Siblings(Linear(RmsNorm().as_("norm")), at_least=1), replacement=_fold, where=_foldable,
    name="fold_norm_weight")
