"""LoRA: only adapters train, the merged model is a plain one and answers as the wrapped one."""

from __future__ import annotations

import pytest
import torch
from train_models import random_store, tiny_model

from openautoglm.core.errors import TrainError
from openautoglm.train.loop import train
from openautoglm.train.lora import LoraSettings, add_lora, merge_lora
from openautoglm.train.settings import TrainSettings

peft = pytest.importorskip("peft")


def test_train_and_merge(tmp_path):
    plain, store = tiny_model(), random_store(12, 2)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    wrapped = add_lora(plain, LoraSettings(rank=4))
    settings = TrainSettings(passes=4, batch=8, lr=0.02, layout="shared", row_tokens=48, weight_decay=0.0,
                             tensorboard=False)
    events = list(train(wrapped, store, None, settings, tmp_path))
    assert events[-1].loss < 0.95 * events[0].loss
    ids = torch.arange(2, 20)[None]
    with torch.no_grad():
        expected = wrapped(input_ids=ids).logits
        merged = merge_lora(wrapped)
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert type(merged).__name__ == "GlmForCausalLM"
    after = merged.state_dict()
    assert after.keys() == before.keys()
    assert torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    name = "model.layers.0.mlp.down_proj.weight"
    assert not torch.equal(after[name], before[name])


def test_adapter_on_the_head_acts_in_the_loss():
    from openautoglm.data.pack import collate
    from openautoglm.train.forward import loss_sums, to_inputs

    model, store = add_lora(tiny_model(), LoraSettings(rank=2, targets=("lm_head",))), random_store(3, 2)
    (batch,) = collate(store, [(i,) for i in range(len(store))], "packed", row_tokens=48)
    loss_sums(model, to_inputs(batch))[0].backward()
    moved = [p.grad.abs().sum() for name, p in model.named_parameters() if "lora_B" in name]
    assert len(moved) == 1
    assert moved[0] > 0


def test_an_unknown_module_is_named():
    with pytest.raises(TrainError, match="no_such_layer"):
        add_lora(tiny_model(), LoraSettings(targets=("no_such_layer",)))
