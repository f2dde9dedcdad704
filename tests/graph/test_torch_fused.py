"""The torch kernels of fused operators against numpy, one operator at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from evaluate_graph import OPERATORS

from openautoglm.runtime import torch_fused
from openautoglm.runtime.kernels import kernel_of

ROWS, INTO, OUT = 5, 64, 12
NORM, GROUP = {"eps": 1e-5}, {"group": 16}
QUANTISED = {"format": "int8", "symmetric": True, **GROUP}
SHAPES: dict[str, tuple[tuple[tuple[int, ...], ...], dict[str, Any]]] = {
    "silu_mul": (((ROWS, INTO),), {}),
    "add_rms_norm": (((ROWS, INTO), (ROWS, INTO), (INTO,)), NORM),
    "unit_rms_norm": (((ROWS, INTO),), NORM),
    "norm_linear": (((ROWS, INTO), (INTO,), (OUT, INTO), (OUT,)), NORM),
    "quantised_linear": (((ROWS, INTO), (OUT, INTO), (OUT,)), QUANTISED),
    "quantise_rows": (((ROWS, INTO),), GROUP),
    "rms_norm_quantise": (((ROWS, INTO), (INTO,)), {**NORM, "group": 0}),
    "add_rms_norm_quantise": (((ROWS, INTO), (ROWS, INTO), (INTO,)), NORM | GROUP),
    "silu_mul_quantise": (((ROWS, INTO), (ROWS, INTO)), GROUP),
}
CONTEXT = SimpleNamespace(dtype=torch.float32)


def error(found: torch.Tensor, expected: Any) -> float:
    return float(np.abs(found.double().numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("operator", SHAPES)
def test_a_kernel_agrees_with_numpy(operator: str) -> None:
    shapes, attributes = SHAPES[operator]
    inputs = [np.random.default_rng(place).normal(size=shape) for place, shape in enumerate(shapes)]
    expected = OPERATORS[operator](inputs, attributes)
    found = kernel_of(operator, "torch")([torch.tensor(one, dtype=torch.float32) for one in inputs], attributes,
                                         CONTEXT)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        allowed = 1 / 127 if one.dtype == torch.int8 else 2e-6  # a value halfway between two codes may fall either way
        assert error(one, other) <= allowed


def test_a_product_of_quantised_rows() -> None:
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(ROWS, INTO)), random.normal(size=(OUT, INTO))
    codes, scales = torch_fused.quantise_rows([torch.tensor(x)], GROUP, CONTEXT)
    assert codes.dtype == torch.int8
    assert scales.shape == (ROWS, 4)
    inputs = [codes, scales, torch.tensor(weight, dtype=torch.float32)]
    found = torch_fused.quantised_rows_linear(inputs, QUANTISED, CONTEXT)[0]
    expected = OPERATORS["quantised_rows_linear"]([one.double().numpy() for one in inputs], QUANTISED)[0]
    assert error(found, expected) < 2e-6
    assert error(found, x @ weight.T) < 0.02


def test_a_row_of_zeros_has_codes_of_zero() -> None:
    codes, scales = torch_fused.quantise_rows([torch.zeros(2, 32)], GROUP, CONTEXT)
    assert not codes.any()
    assert not scales.any()
