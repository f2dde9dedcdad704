"""Mixed precision: divergences are those of the model, and bits go where they save most."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from quantise_models import divergence, quantised_model, sequences, small_checkpoint, small_spec

from openautoglm.compress.calibrate import Calibration, States
from openautoglm.compress.grid import Form
from openautoglm.compress.mixed import Place, allot, sensitivities
from openautoglm.compress.quantise import quantise_checkpoint
from openautoglm.compress.rtn import round_to_nearest
from openautoglm.compress.settings import Bits, GptqSettings, MixedSettings, RtnSettings
from openautoglm.compress.source import Source
from openautoglm.core.errors import TaskError

Measured = dict[Place, dict[Bits, float]]


@torch.no_grad()
@pytest.mark.parametrize("family", ["glm", "glm4"])
def test_divergences_are_those_of_the_model_with_one_matrix_changed(family: str, tmp_path: Path) -> None:
    model = small_checkpoint(tmp_path / "it", small_spec(family))
    source, few = Source(tmp_path / "it"), Calibration(tuple(map(tuple, sequences(5))))
    found: Measured = {}
    for layer in sensitivities(source, few, RtnSettings(), lambda: States(few.tokens, 64)):
        found |= layer
    assert len(found) == 2 * 4
    for (layer, slot), module in (((0, "down"), "mlp.down_proj"), ((1, "gate_up"), "mlp.gate_up_proj")):
        weight = model.get_submodule(f"model.layers.{layer}.{module}").weight
        kept, before = weight.clone(), [model(torch.tensor([ids])).logits[0].log_softmax(-1) for ids in few.sequences]
        weight.copy_(round_to_nearest(weight, Form(4, 32)).effective())
        after = [model(torch.tensor([ids])).logits[0].log_softmax(-1) for ids in few.sequences]
        weight.copy_(kept)
        expected = sum(float((a.exp() * (a - b)).sum()) for a, b in zip(before, after, strict=True)) / few.tokens
        assert found[layer, slot][4] == pytest.approx(expected, rel=0.02)
        assert found[layer, slot][8] < 0.05 * expected


def exhaustive(measured: Measured, weights: dict[Place, int], average: float) -> float:
    """The least divergence of all ways to give bits; 4 and 8 stored bits a weight."""
    best = np.inf
    for bits in itertools.product((4, 8), repeat=len(weights)):
        stored = sum(each * size for each, size in zip(bits, weights.values(), strict=True))
        if stored <= average * sum(weights.values()):
            best = min(best, sum(measured[place][each] for place, each in zip(weights, bits, strict=True)))
    return best


@pytest.mark.parametrize("average", [4.0, 4.7, 5.5, 7.9, 8.0])
def test_bits_are_given_as_well_as_can_be(average: float) -> None:
    rng = np.random.default_rng(4)
    weights: dict[Place, int] = {(0, str(number)): int(rng.integers(1, 9)) * 6 for number in range(10)}
    measured: Measured = {place: {4: float(rng.random()), 8: float(rng.random()) * 0.01} for place in weights}
    bits = allot(measured, weights, dict.fromkeys(weights, 4.0), average)
    assert sum(bits[place] * weights[place] for place in weights) <= average * sum(weights.values())
    assert sum(measured[place][bits[place]] for place in weights) == pytest.approx(
        exhaustive(measured, weights, average))


def test_an_average_below_four_bits_and_scales_is_refused() -> None:
    with pytest.raises(TaskError, match=r"4 bits everywhere take 4\.5"):
        allot({(0, "o"): {4: 1.0, 8: 0.0}}, {(0, "o"): 100}, {(0, "o"): 4.5}, 4.4)


def test_a_mixed_model_lies_between_four_and_eight_bits(tmp_path: Path) -> None:
    model = small_checkpoint(tmp_path / "it", small_spec())
    found = {}
    for name, method in {"4": GptqSettings(), "8": GptqSettings(bits=8),
                         "mixed": MixedSettings(average_bits=6.9, tokens=200)}.items():
        facts = quantise_checkpoint(tmp_path / "it", tmp_path / "q", method, sequences())
        found[name] = divergence(model, quantised_model(model, tmp_path / "q"))
    assert found["8"] < found["mixed"] < found["4"]
    assert facts.layer_bits <= 6.9
    assert {each.bits for each in facts.matrices if each.layer is not None} == {4, 8}
    assert len(facts.sensitivity) == 8
