"""Random graphs: operators in any order and with any readers, among them the shapes that rules look for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from openautoglm.graph import Graph, TensorType, Value
from openautoglm.graph.sources import Rows, Tensor

WIDTHS = (32, 64)
ROWS = 5


class RandomGraph:
    """A graph made of steps, each chosen by three numbers; and weights and inputs to run it with."""

    def __init__(self, choices: Sequence[tuple[int, int, int]], asked: Sequence[int]) -> None:
        self.graph, self.tensors = Graph(), dict[str, Any]()
        self.random = np.random.default_rng(len(choices))
        self.values = [self.graph.add_input(f"x{width}", TensorType("fp32", ("rows", width))) for width in WIDTHS]
        self.numbers = self.graph.add_input("wanted", TensorType("int32", ("wanted",)))
        kinds: list[Callable[[Value, int], list[Value]]] = [
            self._norm, self._linear, self._siblings, self._gate, self._sum_and_norm, self._silu, self._two,
            self._gather, self._twin]
        for kind, place, other in choices:
            x = self.values[place % len(self.values)]
            self.values += kinds[kind % len(kinds)](x, other)
        self.graph.outputs = list(dict.fromkeys(
            value for value in (self.values[place % len(self.values)] for place in (-1, *asked))))
        self.graph.verify()

    def inputs(self) -> dict[str, Any]:
        """Values of the inputs."""
        return {"wanted": np.array([3, 0, 3]), **{f"x{width}": self.random.normal(size=(ROWS, width))
                                                  for width in WIDTHS}}

    def weight(self, *shape: int) -> Value:
        """A weight of its own, of a tensor of its own."""
        name = f"w{len(self.tensors)}"
        self.tensors[name] = self.random.normal(float(len(shape) == 1), 0.3, shape) / shape[-1] ** (len(shape) / 2 - .5)
        return self.graph.weight(name, TensorType("fp32", shape), Tensor(name))

    def _width(self, x: Value) -> int:
        return int(x.type.shape[1])

    def _norm(self, x: Value, _: int) -> list[Value]:
        return [self.graph.apply("rms_norm", x, self.weight(self._width(x)), eps=1e-5)]

    def _linear(self, x: Value, other: int) -> list[Value]:
        out = WIDTHS[other % 2]
        bias = [self.weight(out)] if other % 3 else []
        return [self.graph.apply("linear", x, self.weight(out, self._width(x)), *bias)]

    def _siblings(self, x: Value, other: int) -> list[Value]:
        (normed,) = self._norm(x, 0)
        return [normed, *(self._linear(normed, other)[0] for _ in range(3))]

    def _gate(self, x: Value, other: int) -> list[Value]:
        """Gate and up from one tensor, from two, or of two values."""
        width = WIDTHS[other % 2]
        if other % 3:
            whole = self.weight(2 * width, self._width(x))
            del self.graph.weights[whole.name]
            parts = [self.graph.weight(f"{whole.name}.{place}", TensorType("fp32", (width, self._width(x))), Rows(
                Tensor(whole.name), place * width, (place + 1) * width)) for place in range(2)]
        else:
            parts = [self.weight(width, self._width(x)) for _ in range(2)]
        gate, up = (self.graph.apply("linear", x, part) for part in parts)
        return [self.graph.apply("mul", *((up, self._silu(gate, 0)[0])[:: 1 - 2 * (other % 2)]))]

    def _sum_and_norm(self, x: Value, other: int) -> list[Value]:
        total = self._two(x, other)
        return [*total, *(value for one in total for value in self._norm(one, 0))]

    def _silu(self, x: Value, _: int) -> list[Value]:
        return [self.graph.apply("silu", x)]

    def _two(self, x: Value, other: int) -> list[Value]:
        alike = [value for value in self.values if value.type == x.type]
        return [self.graph.apply(("add", "mul")[other % 2], x, alike[other % len(alike)])]

    def _gather(self, x: Value, _: int) -> list[Value]:
        return [self.graph.apply("gather_rows", x, self.numbers)] if x.type.shape[0] == "rows" else []

    def _twin(self, x: Value, _: int) -> list[Value]:
        """What made a value, once more."""
        maker = x.producer
        if maker is None or len(maker.outputs) > 1:
            return []
        return [self.graph.apply(maker.operator, *maker.inputs, **maker.attributes)]
