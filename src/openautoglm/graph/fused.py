"""Operators that only rules make: several steps in one, and products of quantised matrices.

`codes` are int8 activations [rows, width]; `scales` fp32 [rows, width / group] turn them back: neighbouring columns of
a row share one, a group of 0 is the whole row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from openautoglm.graph.ir import Attribute, TensorType
from openautoglm.graph.operators import Infer, Operator, Types, expect, matrix, operator_of, register_operator, whole
from openautoglm.graph.pattern import Operation

_FORMATS = ("int8", "int4")


def _operator(name: str, least: int, most: int) -> Callable[[Infer], Infer]:
    def wrap(infer: Infer) -> Infer:
        def checked(types: Types, attributes: Mapping[str, Attribute]) -> Types:
            expect(least <= len(types) <= most, f"{name} takes {least} to {most} inputs, not {len(types)}")
            return infer(types, attributes)

        register_operator(Operator(name, checked))
        return checked

    return wrap


@_operator("silu_mul", 1, 2)
def _silu_mul(types: Types, _: Mapping[str, Attribute]) -> Types:
    """gate_up [rows, 2 * width], or gate and up [rows, width] each -> silu(gate) * up [rows, width]."""
    if len(types) == 2:
        expect(types[0] == types[1], f"gate {types[0]} and up {types[1]} differ")
        return [types[0]]
    rows, width = matrix(types[0], "gate_up")
    expect(isinstance(width, int) and width % 2 == 0, f"gate_up {types[0]} has no halves")
    return [TensorType(types[0].dtype, (rows, int(width) // 2))]


@_operator("add_rms_norm", 3, 3)
def _add_rms_norm(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """x and y [rows, width], weight [width] -> their sum, and the sum normed; attribute eps."""
    expect(types[0] == types[1], f"{types[0]} and {types[1]} differ")
    return [types[0], *operator_of("rms_norm").infer([types[0], types[2]], attributes)]


@_operator("unit_rms_norm", 1, 1)
def _unit_rms_norm(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """x [rows, width] -> each row divided by its root mean square; attribute eps."""
    matrix(types[0], "x")
    expect(isinstance(attributes.get("eps"), float), "unit_rms_norm needs the attribute eps")
    return [types[0]]


@_operator("norm_linear", 3, 4)
def _norm_linear(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """x [rows, in], the norm's weight [in], weight [out, in], bias [out] (optional) -> [rows, out]; attribute eps."""
    normed = operator_of("rms_norm").infer(types[:2], attributes)
    return operator_of("linear").infer([*normed, *types[2:]], {})


@_operator("quantised_linear", 2, 3)
def _quantised_linear(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """As linear, the weight quantised; attributes format (int8, int4), group of its columns, symmetric."""
    _check_format(attributes)
    return operator_of("linear").infer(types, {})


@_operator("quantise_rows", 1, 1)
def _quantise_rows(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """x [rows, width] -> codes, scales; attribute group. A scale is the largest of a group / 127."""
    return _codes(types[0], attributes)


@_operator("quantised_rows_linear", 3, 4)
def _quantised_rows_linear(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """codes, scales, a quantised weight [out, in], bias [out] (optional) -> [rows, out]; as quantised_linear."""
    _check_format(attributes)
    x = TensorType("fp32", types[0].shape)
    expect(types[0].dtype == "int8" and list(types[:2]) == _codes(x, attributes),
           f"codes {types[0]} and scales {types[1]} do not fit")
    return operator_of("linear").infer([x, *types[2:]], {})


@_operator("rms_norm_quantise", 2, 2)
def _rms_norm_quantise(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """rms_norm, then quantise_rows: x, weight -> codes, scales; attributes eps, group."""
    return _codes(operator_of("rms_norm").infer(types, attributes)[0], attributes)


@_operator("add_rms_norm_quantise", 3, 3)
def _add_rms_norm_quantise(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """add_rms_norm, then quantise_rows: x, y, weight -> sum, codes, scales; attributes eps, group."""
    total, normed = _add_rms_norm(types, attributes)
    return [total, *_codes(normed, attributes)]


@_operator("silu_mul_quantise", 1, 2)
def _silu_mul_quantise(types: Types, attributes: Mapping[str, Attribute]) -> Types:
    """silu_mul, then quantise_rows: gate_up, or gate and up -> codes, scales; attribute group."""
    return _codes(_silu_mul(types, attributes)[0], attributes)


def _codes(x: TensorType, attributes: Mapping[str, Attribute]) -> list[TensorType]:
    rows, width = matrix(x, "x")
    group = whole(attributes, "group")
    expect(isinstance(width, int) and group >= 0 and (group == 0 or width % group == 0),
           f"{x} does not consist of groups of {group}")
    return [TensorType("int8", x.shape), TensorType("fp32", (rows, int(width) // group if group else 1))]


def _check_format(attributes: Mapping[str, Attribute]) -> None:
    expect(attributes.get("format") in _FORMATS, f"the format must be one of {', '.join(_FORMATS)}")
    expect(isinstance(attributes.get("symmetric"), bool), "the attribute symmetric must be true or false")
    whole(attributes, "group")


SiluMul = Operation("silu_mul")
AddRmsNorm = Operation("add_rms_norm")
UnitRmsNorm = Operation("unit_rms_norm")
FusedNormLinear = Operation("norm_linear")
QuantisedLinear = Operation("quantised_linear")
QuantiseRows = Operation("quantise_rows")
QuantisedRowsLinear = Operation("quantised_rows_linear")
RmsNormQuantise = Operation("rms_norm_quantise")
AddRmsNormQuantise = Operation("add_rms_norm_quantise")
SiluMulQuantise = Operation("silu_mul_quantise")
