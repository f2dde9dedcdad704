"""Quantise the weights of linears, by a recipe: data for whoever loads, nothing is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from openautoglm.core.errors import GraphError
from openautoglm.core.log import get
from openautoglm.graph.fused import QuantisedLinear
from openautoglm.graph.ir import Graph, TensorType, Value
from openautoglm.graph.match import Match
from openautoglm.graph.pattern import Linear
from openautoglm.graph.rewrite import Application, ReplacePattern, rewrite
from openautoglm.graph.sources import Format, Quantised, tensors

KEEP = ("lm_head.weight", "model.embed_tokens.weight")
"""Tensors that stay as they are by default: the head, under its own name or tied to the embedding."""
_log = get(__name__)


def quantise_linear(format: Format = "int8", group: int = 32, symmetric: bool = True, keep: Sequence[str] = KEEP
                    ) -> ReplacePattern:
    """The rule that makes ``linear`` ``quantised_linear`` wherever its weight fits.

    Args:
        format: ``int8`` or ``int4``.
        group: neighbouring input columns that share a scale, 0 for whole rows; weights whose rows it does not divide
            stay as they are.
        keep: names of tensors of the checkpoint that stay as they are; ``*`` stands for anything. Best given to fused
            graphs too: a fused weight stays if one of its tensors is named.

    Raises:
        GraphError: an unknown format, or a negative group.
    """
    if format not in ("int8", "int4") or group < 0:
        raise GraphError(f"no linears of format {format!r} in groups of {group}",
                         remedy="use int8 or int4, and a group of 0 (whole rows), 32, 64 or 128")

    def wanted(match: Match) -> bool:
        return _is_wanted(match.roots[0].inputs[1], group, keep)

    def replacement(match: Match, graph: Graph) -> Value:
        x, weight, *bias = match.roots[0].inputs
        if weight.source is None:
            raise GraphError("has no source", where=weight.name)
        codes = graph.weight(f"{weight.name}.{format}", TensorType("int8", weight.type.shape),
                             Quantised(weight.source, format, group, symmetric))
        return graph.apply(QuantisedLinear.operators[0], x, codes, *bias, name=match.outputs[0].name, format=format,
                           group=group, symmetric=symmetric)

    return ReplacePattern(Linear(), replacement, "quantise_linear", where=wanted)


def quantise(graph: Graph, format: Format = "int8", group: int = 32, symmetric: bool = True,
             keep: Sequence[str] = KEEP) -> list[Application]:
    """Quantise the linears of a graph in place (arguments as of `quantise_linear`); return where.

    Raises:
        GraphError: an unknown format, or a negative group.
    """
    done = rewrite(graph, [quantise_linear(format, group, symmetric, keep)])
    for node in graph.nodes:
        weight = node.inputs[1] if node.operator == "linear" else None
        if weight is not None and weight.source is not None and not _kept(weight, keep):
            _log.warning("a weight is not quantised: the group does not divide its rows",
                         extra={"weight": weight.name, "shape": weight.type.shape, "group": group})
    return done


def _is_wanted(weight: Value, group: int, keep: Sequence[str]) -> bool:
    columns = weight.type.shape[1]
    divides = group == 0 or (isinstance(columns, int) and columns % group == 0)
    return weight.source is not None and divides and not _kept(weight, keep)


def _kept(weight: Value, keep: Sequence[str]) -> bool:
    names = () if weight.source is None else tensors(weight.source)
    return any(fnmatchcase(name, pattern) for name in names for pattern in keep)
