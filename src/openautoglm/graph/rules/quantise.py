"""Quantise the weights of linears, by a recipe: data for whoever loads, nothing is computed here."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from openautoglm.core.errors import GraphError
from openautoglm.core.log import get
from openautoglm.graph.fused import QuantisedLinear
from openautoglm.graph.ir import DType, Graph, Node, TensorType, Value
from openautoglm.graph.match import Match
from openautoglm.graph.pattern import Linear
from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rewrite import Application, ReplacePattern
from openautoglm.graph.sources import Format, Quantised, tensors

HEAD = frozenset({"lm_head.weight", "model.embed_tokens.weight"})
"""Tensors that the head is made of: its own, or the table that it shares with the embedding."""
_log = get(__name__)


@dataclass(frozen=True)
class QuantiseLinears:
    """The rule that makes ``linear`` ``quantised_linear`` where the recipe says so.

    A weight whose rows the group does not divide stays as it is, which is logged once. A head in fp32 or bf16 stays a
    ``linear`` of a weight of that format; the table of a tied one changes with it. A tied head in int8 or int4 gets a
    weight of its own, made from the same tensor, and the embedding keeps its table.
    """

    recipe: Quantisation
    name: str = "quantise_linear"
    _told: set[str] = field(default_factory=set, repr=False, compare=False)

    def apply(self, graph: Graph) -> list[Application]:
        """Rewrite the graph in place.

        Raises:
            GraphError: a weight has no source.
        """
        done = ReplacePattern(Linear(), self._quantised, self.name, where=self._is_wanted).apply(graph)
        done += [Application(self.name, node.output.name) for node in graph.nodes if self._stays_plain(node, graph)]
        for node in graph.nodes:
            if node.operator == "linear" and (form := self._format(node.inputs[1])) in ("int8", "int4"):
                self._tell(node.inputs[1], form)
        return done

    def _quantised(self, match: Match, graph: Graph) -> Value:
        x, weight, *bias = match.roots[0].inputs
        form, group, symmetric = self._format(weight), self.recipe.group, self.recipe.symmetric
        if weight.source is None or form is None:
            raise GraphError("has no source", where=weight.name)
        codes = graph.weight(f"{weight.name}.{form}", TensorType("int8", weight.type.shape),
                             Quantised(weight.source, form, group, symmetric))
        return graph.apply(QuantisedLinear.operators[0], x, codes, *bias, name=match.outputs[0].name, format=form,
                           group=group, symmetric=symmetric)

    def _is_wanted(self, match: Match) -> bool:
        weight = match.roots[0].inputs[1]
        columns, group = weight.type.shape[1], self.recipe.group
        divides = group == 0 or (isinstance(columns, int) and columns % group == 0)
        return divides and self._format(weight) in ("int8", "int4")

    def _stays_plain(self, node: Node, graph: Graph) -> bool:
        """Write the format of a head that is not quantised into the source of its weight."""
        weight = node.inputs[1] if node.operator == "linear" else None
        form = self._format(weight) if weight is not None else None
        if weight is None or weight.source is None or isinstance(weight.source, Quantised):
            return False
        if form not in ("fp32", "bf16"):
            return False
        dtype: DType = form
        new = graph.weight(f"{weight.name}.{form}", TensorType(dtype, weight.type.shape),
                           Quantised(weight.source, form, 0))
        for reader in graph.users(weight):
            reader.inputs = [new if given is weight else given for given in reader.inputs]
        del graph.weights[weight.name]
        return True

    def _format(self, weight: Value) -> Format | None:
        """The format that a weight shall have; None to leave it."""
        if weight.source is None or isinstance(weight.source, Quantised):
            return None
        names = tensors(weight.source)
        if any(fnmatchcase(name, pattern) for name in names for pattern in self.recipe.keep):
            return None
        return self.recipe.head if HEAD.issuperset(names) else self.recipe.format

    def _tell(self, weight: Value, form: Format) -> None:
        if weight.name not in self._told:
            self._told.add(weight.name)
            _log.warning("a weight is not quantised: the group does not divide its rows", extra={
                "weight": weight.name, "shape": weight.type.shape, "format": form, "group": self.recipe.group})
