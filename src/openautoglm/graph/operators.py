"""The operators: what each takes and gives. Kernels live in the runtime; here are only types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from openautoglm.core.errors import GraphError
from openautoglm.core.plugins import load_plugins
from openautoglm.graph.ir import Attribute, Dim, TensorType

GROUP = "openautoglm.operators"
"""Entry points of plug-in operators; each names an `Operator`."""
Types = Sequence[TensorType]
Infer = Callable[[Types, Mapping[str, Attribute]], Types]


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        name: one word, unique.
        infer: types of the outputs from types of the inputs and attributes; raises GraphError where they do not fit.
        effect: it changes something beside its outputs (the KV cache), so it stays even if nobody reads these.
    """

    name: str
    infer: Infer
    effect: bool = False


_OPERATORS: dict[str, Operator] = {}
_plugins_loaded = False


def register_operator(operator: Operator) -> Operator:
    """Make an operator known; from a plug-in, better name it in the entry points `GROUP`.

    Raises:
        GraphError: another operator has the name.
    """
    if _OPERATORS.setdefault(operator.name, operator) is not operator:
        raise GraphError(f"there is an operator {operator.name!r} already", remedy="give it another name")
    return operator


def operator_of(name: str) -> Operator:
    """Return a registered operator, plug-ins included.

    Raises:
        GraphError: there is none.
        PluginError: an installed plug-in does not load.
    """
    global _plugins_loaded
    if name not in _OPERATORS and not _plugins_loaded:
        _plugins_loaded = True
        for operator in load_plugins(GROUP).values():
            register_operator(operator)
    if name not in _OPERATORS:
        raise GraphError(f"there is no operator {name!r}", remedy=f"known are {', '.join(sorted(_OPERATORS))}")
    return _OPERATORS[name]


def infer(name: str, types: Types, attributes: Mapping[str, Attribute]) -> tuple[TensorType, ...]:
    """The types of an operator's outputs; layers repeat each other, so answers are remembered.

    Raises:
        GraphError: no such operator, or the inputs do not fit it.
    """
    try:
        return _known(name, tuple(types), tuple((key, type(value), value) for key, value in attributes.items()))
    except TypeError:  # an attribute that cannot be hashed, which the operator refuses better than we can
        return tuple(operator_of(name).infer(types, attributes))


@lru_cache(maxsize=4096)
def _known(name: str, types: tuple[TensorType, ...], attributes: tuple[tuple[str, type, Attribute], ...]
           ) -> tuple[TensorType, ...]:
    return tuple(operator_of(name).infer(types, {key: value for key, _, value in attributes}))


def expect(condition: bool, message: str) -> None:
    """Raise GraphError with `message` unless the condition holds; for `infer` functions."""
    if not condition:
        raise GraphError(message)


def matrix(type: TensorType, what: str) -> tuple[Dim, Dim]:
    """The two dimensions of a matrix; GraphError for anything else."""
    expect(len(type.shape) == 2, f"{what} must be a matrix, is {type}")
    return type.shape[0], type.shape[1]


def whole(attributes: Mapping[str, Attribute], name: str) -> int:
    """A whole number among the attributes; GraphError where it is missing."""
    value = attributes.get(name)
    if not isinstance(value, int):
        raise GraphError(f"the attribute {name!r} must be a whole number, is {value!r}")
    return value


def _operator(name: str, *, inputs: int | tuple[int, int], effect: bool = False) -> Callable[[Infer], Infer]:
    low, high = (inputs, inputs) if isinstance(inputs, int) else inputs

    def wrap(infer: Infer) -> Infer:
        def checked(types: Types, attributes: Mapping[str, Attribute]) -> Types:
            expect(low <= len(types) <= high, f"{name} takes {low}{f' to {high}' if high > low else ''} inputs, "
                   f"not {len(types)}")
            return infer(types, attributes)

        register_operator(Operator(name, checked, effect))
        return checked

    return wrap


@_operator("embedding", inputs=2)
def _embedding(types: Types, _: Mapping[str, Attribute]) -> Types:
    """ids [rows], table [vocabulary, width] -> [rows, width]."""
    ids, table = types
    expect(ids.dtype == "int32" and len(ids.shape) == 1, f"ids must be int32[rows], are {ids}")
    return [TensorType("fp32", (ids.shape[0], matrix(table, "an embedding")[1]))]


@_operator("rms_norm", inputs=2)
def _rms_norm(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """x [rows, width], weight [width] -> [rows, width]; attribute eps."""
    x, weight = types
    expect(weight.shape == (matrix(x, "x")[1],), f"the norm's weight {weight} does not fit {x}")
    expect(isinstance(attributes.get("eps"), float), "rms_norm needs the attribute eps")
    return [x]


@_operator("linear", inputs=(2, 3))
def _linear(types: Types, _: Mapping[str, Attribute]) -> Types:
    """x [rows, in], weight [out, in], bias [out] (optional) -> [rows, out]."""
    (rows, width), (out, into) = matrix(types[0], "x"), matrix(types[1], "a linear's weight")
    expect(width == into, f"a linear of {into} inputs cannot take {types[0]}")
    expect(len(types) == 2 or types[2].shape == (out,), "the bias does not fit the weight")
    return [TensorType("fp32", (rows, out))]


@_operator("split", inputs=1)
def _split(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """x [rows, sum of sizes] -> one [rows, size] each; attribute sizes."""
    rows, width = matrix(types[0], "x")
    sizes = attributes.get("sizes")
    if not isinstance(sizes, tuple) or sum(sizes) != width:
        raise GraphError(f"the sizes {sizes} do not add up to {width}")
    return [TensorType(types[0].dtype, (rows, size)) for size in sizes]


@_operator("rotary", inputs=2)
def _rotary(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """x [rows, heads * head_dim], positions [rows] -> as x.

    Neighbouring pairs (interleaved) of the first `rotary_dims` of each head turn; attributes head_dim, rotary_dims,
    theta.
    """
    x, positions = types
    width, head = matrix(x, "x")[1], whole(attributes, "head_dim")
    expect(isinstance(width, int) and width % head == 0, f"{x} does not consist of heads of {head}")
    expect(positions.dtype == "int32" and positions.shape == x.shape[:1], f"positions {positions} do not fit {x}")
    turned = whole(attributes, "rotary_dims")
    expect(turned % 2 == 0 and turned <= head, f"{turned} of {head} dimensions cannot turn")
    return [x]


@_operator("paged_attention", inputs=4, effect=True)
def _paged_attention(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """q [rows, heads * head_dim], k and v [rows, kv_heads * head_dim], layout -> as q.

    Writes k and v into the pages of each row's sequence, then attends to that sequence up to the row itself; attributes
    layer (of the cache), heads, kv_heads, head_dim. Scores are divided by the root of head_dim.
    """
    q, k, v, layout = types
    head = whole(attributes, "head_dim")
    expect(layout.dtype == "layout", "attention needs the layout of the step")
    expect(matrix(q, "q")[1] == whole(attributes, "heads") * head, f"q {q} does not fit its heads")
    expect(k == v and matrix(k, "k")[1] == whole(attributes, "kv_heads") * head, f"k {k} or v {v} do not fit")
    whole(attributes, "layer")
    return [q]


@_operator("silu", inputs=1)
def _silu(types: Types, _: Mapping[str, Attribute]) -> Types:
    """x -> x * sigmoid(x)."""
    return [types[0]]


def _alike(types: Types, _: Mapping[str, Attribute]) -> Types:
    """Two of one type -> the same."""
    expect(types[0] == types[1], f"{types[0]} and {types[1]} differ")
    return [types[0]]


_operator("add", inputs=2)(_alike)
_operator("mul", inputs=2)(_alike)


@_operator("gather_rows", inputs=2)
def _gather_rows(types: Types, _: Mapping[str, Attribute]) -> Types:
    """x [rows, width], numbers [wanted] -> [wanted, width]."""
    x, numbers = types
    expect(numbers.dtype == "int32" and len(numbers.shape) == 1, f"row numbers must be int32, are {numbers}")
    return [TensorType(x.dtype, (numbers.shape[0], matrix(x, "x")[1]))]
