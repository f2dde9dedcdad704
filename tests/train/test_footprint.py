"""What training takes: counted as autograd keeps it, and moved by settings as it must be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from openautoglm.data.pack import collate
from openautoglm.data.tokens import store_from_ids
from openautoglm.models import hf
from openautoglm.models.presets import preset
from openautoglm.models.spec import GlmSpec
from openautoglm.train.footprint import Step, Training, footprint, kept_values, lora_parameters
from openautoglm.train.forward import loss_sums, to_inputs
from openautoglm.train.lora import LoraSettings, add_lora
from openautoglm.train.settings import TrainSettings

STEP = Step(3776, 1920)


def peak(**train: Any) -> int:
    return max(sum(parts.values()) for parts in footprint(training(**train)).values())


def training(*, adapters: int = 0, step: Step = STEP, **train: Any) -> Training:
    return Training(preset("base"), TrainSettings(**train), step, adapters=adapters)


@pytest.mark.parametrize(("shape", "dropout", "bf16"), [
    pytest.param({}, 0.0, False, id="grouped heads"),
    pytest.param({"kv_heads": 4}, 0.0, False, id="as many key heads"),
    pytest.param({"kv_heads": 1}, 0.0, False, id="one key head"),
    pytest.param({}, 0.1, False, id="dropout"),
    pytest.param({"family": "glm4"}, 0.0, False, id="sandwich norms"),
    pytest.param({}, 0.0, True, id="bf16"),
])
def test_what_a_layer_keeps_is_what_autograd_saves(shape: dict[str, Any], dropout: float, bf16: bool) -> None:
    spec = GlmSpec(**{"vocab_size": 64, "hidden_size": 96, "layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 32,
                      "ffn_size": 200, "rotary_factor": 1.0, "qkv_bias": False, "tied": True, **shape})
    rows = [(list(range(40)), 20)] * 24
    batch = collate(store_from_ids(rows), [(number,) for number in range(len(rows))], "bucket", row_tokens=1)[0]

    def kept(layers: int) -> int:
        model = hf.build(GlmSpec(**{**spec.model_dump(), "layers": layers}), seed=0, dropout=dropout).train()
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        found: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), \
                torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss_sums(model, to_inputs(batch))
        return sum(storage.nbytes() for storage in found.values())

    tokens = batch.computed_tokens
    width = 2 if bf16 else 4
    copies = width * spec.hidden_size * (spec.query_size + 2 * spec.kv_size)  # q, k and v under each other
    if bf16:  # of all matrices
        copies += 2 * (spec.body_parameters - spec.hidden_size) // spec.layers
    one = (kept(4) - kept(2)) / 2
    estimate = kept_values(Training(spec, TrainSettings(), Step(tokens, len(np.unique(batch.rows))), bf16=bf16,
                                    dropout=dropout))[0] * tokens
    assert estimate + copies == pytest.approx(one, rel=0.08)


def test_weights_gradients_and_states_are_sixteen_bytes_a_parameter() -> None:
    parts = footprint(training())["step"]
    parameters = preset("base").parameters
    assert parts["weights"] + parts["gradients"] + parts["optimiser state"] == 16 * parameters
    assert "averaged weights" not in parts
    assert footprint(training(ema_decay=0.9))["step"]["averaged weights"] == 4 * parameters


def test_settings_that_save_memory_do() -> None:
    full = peak()
    assert peak(gradient_checkpointing=True) < 0.7 * full
    assert full - peak(optimiser_state="8bit") > 5.8 * preset("base").parameters
    assert peak(freeze={"layers": 4}) < full < peak(ema_decay=0.99)
    assert peak(step=Step(2 * STEP.tokens, 2 * STEP.needed)) > 1.5 * full
    assert peak(adapters=1000) < full - 11 * preset("base").parameters
    mapped = footprint(training(offload=True))["step"]
    assert mapped["optimiser state, in mapped files"] == 8 * preset("base").parameters


def test_a_checkpoint_beside_training_takes_copies_and_one_at_the_end_none() -> None:
    beside = footprint(training(ema_decay=0.9))["checkpoint"]
    assert beside["copies for a checkpoint"] == 16 * preset("base").parameters
    at_end = footprint(Training(preset("base"), TrainSettings(), STEP, background=False))
    assert "checkpoint" not in at_end


def test_adapters_are_counted_as_peft_makes_them() -> None:
    spec = GlmSpec(vocab_size=64, hidden_size=32, layers=2, heads=2, kv_heads=1, head_dim=16, ffn_size=48)
    for targets in ("all", "attention", ("down_proj",)):
        model = add_lora(hf.build(spec, seed=0), LoraSettings(rank=3, targets=targets))
        learnt = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        assert lora_parameters(spec, 3, targets) == learnt
