"""Linears and tables whose weights a checkpoint holds quantised: they keep the form in which they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from openautoglm.core.errors import GraphError
from openautoglm.core.log import get
from openautoglm.graph.fused import QuantisedLinear
from openautoglm.graph.ir import Graph, TensorType, Value
from openautoglm.graph.match import Match
from openautoglm.graph.pattern import Linear
from openautoglm.graph.rewrite import Application, ReplacePattern
from openautoglm.graph.sources import Concat, Format, Quantised, Rows, Source, Tensor
from openautoglm.models.quantised_layout import Form

_log = get(__name__)


@dataclass(frozen=True)
class StoredForms:
    """The rule that makes a ``linear`` of a stored quantised matrix ``quantised_linear``, and its embedding read codes.

    It comes before the rules that fuse: linears of one form are fused as any others, those of different forms stay
    apart, which is logged once. A tied head and the embedding read one and the same weight.

    Attributes:
        forms: of each quantised matrix of the checkpoint, how it is stored.
    """

    forms: Mapping[str, Form]
    name: str = "stored_form"
    _told: set[str] = field(default_factory=set, repr=False, compare=False)

    def apply(self, graph: Graph) -> list[Application]:
        """Rewrite the graph in place.

        Raises:
            GraphError: a weight has no source.
        """
        done = ReplacePattern(Linear(), self._quantised, self.name, where=self._is_stored).apply(graph)
        for node in graph.nodes:
            if node.operator == "embedding" and (form := self._form(node.inputs[1].source)) is not None:
                node.inputs = [node.inputs[0], _codes(graph, node.inputs[1], form)]
                done.append(Application(self.name, node.output.name))
        if done:
            graph.remove_dead()
            self._tell(graph)
        return done

    def _is_stored(self, match: Match) -> bool:
        return self._form(match.roots[0].inputs[1].source) is not None

    def _quantised(self, match: Match, graph: Graph) -> Value:
        x, weight, *bias = match.roots[0].inputs
        form = self._form(weight.source)
        if form is None:
            raise GraphError("is not stored quantised", where=weight.name)
        return graph.apply(QuantisedLinear.operators[0], x, _codes(graph, weight, form), *bias,
                           name=match.outputs[0].name, format=_format(form), group=form.group, symmetric=form.symmetric)

    def _form(self, source: Source | None) -> Form | None:
        """The one form of all that a source consists of; None where there is none."""
        if isinstance(source, Tensor):
            return self.forms.get(source.name)
        if isinstance(source, Rows):
            return self._form(source.of)
        if isinstance(source, Concat):
            forms = {self._form(part) for part in source.parts}
            return forms.pop() if len(forms) == 1 else None
        return None

    def _tell(self, graph: Graph) -> None:
        readers: dict[Value, set[tuple[object, ...]]] = {}
        for node in graph.nodes:
            if node.operator == "quantised_linear":
                form = tuple(node.attributes[key] for key in ("format", "group", "symmetric"))
                readers.setdefault(node.inputs[0], set()).add(form)
        apart = [value.name for value, forms in readers.items() if len(forms) > 1 and value.name not in self._told]
        self._told.update(apart)
        if apart:
            _log.warning("linears that read one value are stored in different forms: they are not fused, which is "
                         "slower", extra={"values": apart})


def _format(form: Form) -> Format:
    return "int8" if form.bits == 8 else "int4"


def _codes(graph: Graph, weight: Value, form: Form) -> Value:
    """The weight as it is stored; the same one for all who ask."""
    if weight.source is None:
        raise GraphError("has no source", where=weight.name)
    format = _format(form)
    return graph.weight(f"{weight.name}.{format}", TensorType("int8", weight.type.shape),
                        Quantised(weight.source, format, form.group, form.symmetric))
