"""Levels and codes: the same as the engine's own rounding, never worse with a search, exact in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from openautoglm.compress.gptq import Gptq
from openautoglm.compress.grid import Form, choose_grid
from openautoglm.compress.rtn import round_to_nearest
from openautoglm.compress.settings import GptqSettings
from openautoglm.models.quantised_file import QuantisedWriter, open_quantised
from openautoglm.runtime.quantised import quantise

FORMS = [Form(bits, group, symmetric) for bits in (4, 8) for group in (0, 32) for symmetric in (True, False)]


def name(form: Form) -> str:
    return f"int{form.bits}-g{form.group}-{'symmetric' if form.symmetric else 'asymmetric'}"


def a_matrix(rows: int = 24, columns: int = 96) -> torch.Tensor:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(5)) ** 3
    weight[3] = 0
    weight[4, :32] = 0
    weight[5] *= 1e-30
    weight[6] = weight[6].abs()
    return weight


@pytest.mark.parametrize("form", FORMS, ids=name)
def test_without_a_search_it_is_the_rounding_of_the_engine(form: Form) -> None:
    weight = a_matrix()
    ours = round_to_nearest(weight, form).matrix()
    theirs = quantise(weight.numpy(), form.bits, form.group, symmetric=form.symmetric)
    np.testing.assert_array_equal(ours.values, theirs.values)
    np.testing.assert_array_equal(ours.scales, theirs.scales)
    if theirs.zeros is not None:
        np.testing.assert_array_equal(ours.zeros, theirs.zeros)


@pytest.mark.parametrize("form", FORMS, ids=name)
def test_a_search_never_makes_the_error_of_a_row_much_greater(form: Form) -> None:
    """Scales are searched before they are rounded to fp16 shares, hence the little that is allowed."""
    weight, importance = a_matrix(), torch.rand(96, generator=torch.Generator().manual_seed(1))
    plain, searched = (
        ((round_to_nearest(weight, form, search=search, importance=importance).effective() - weight).square()
         * importance).sum(1) for search in (False, True))
    assert (searched <= plain * 1.02 + 1e-30).all()
    if form.bits == 4:
        assert float(searched.sum()) < 0.98 * float(plain.sum())


@pytest.mark.parametrize("form", FORMS, ids=name)
def test_what_the_file_holds_is_what_was_computed_with(form: Form, tmp_path: Path) -> None:
    weight = a_matrix()
    inputs = torch.randn(200, 96, generator=torch.Generator().manual_seed(2)) @ torch.diag(torch.linspace(0, 3, 96))
    coded = Gptq(inputs.t() @ inputs, GptqSettings(), "it").quantise(weight, form)
    divided = coded.divided(torch.linspace(0.3, 7, 24))
    with QuantisedWriter(tmp_path / "q.safetensors") as writer:
        writer.add("plain", coded.matrix())
        writer.add("divided", divided.matrix())
    read = open_quantised(tmp_path / "q.safetensors")
    for key, value in (("plain", coded), ("divided", divided)):
        np.testing.assert_array_equal(read.read(key).dequantise(), value.effective().numpy())
    np.testing.assert_allclose(divided.effective() * torch.linspace(0.3, 7, 24)[:, None], coded.effective(), rtol=1e-6)


def test_zeros_stay_exact_zeros() -> None:
    for form in FORMS:
        weight = a_matrix()
        effective = round_to_nearest(weight, form, search=True).effective()
        assert (effective[3] == 0).all()
        if form.group:
            assert (effective[4, :32] == 0).all()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, form = a_matrix(), Form(4, 32)
    whole = choose_grid(weight, form, search=True)
    monkeypatch.setattr("openautoglm.compress.grid._SEARCHED_VALUES", 200)
    parts = choose_grid(weight, form, search=True)
    assert torch.equal(whole.scales, parts.scales)


@pytest.mark.parametrize(("form", "expected"), [
    pytest.param(Form(4, 32), 4 + 16 / 32 + 32 / 128, id="int4-g32"),
    pytest.param(Form(4, 0), 4 + 16 / 128 + 32 / 128, id="int4-rows"),
    pytest.param(Form(8, 64, False), 8 + 24 / 64 + 32 / 128, id="int8-g64-asymmetric"),
])
def test_stored_bits_are_those_of_the_file(form: Form, expected: float, tmp_path: Path) -> None:
    assert form.stored_bits(128) == expected
    with QuantisedWriter(tmp_path / "q.safetensors") as writer:
        writer.add("w", round_to_nearest(torch.randn(512, 128), form).matrix())
    header = int.from_bytes((tmp_path / "q.safetensors").read_bytes()[:8], "little") + 8
    assert (tmp_path / "q.safetensors").stat().st_size - header == 512 * 128 * expected / 8
