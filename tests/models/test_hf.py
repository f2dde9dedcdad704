"""Weights in transformers' classes."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from openautoglm.core.errors import BundleError, SpecError
from openautoglm.models import hf
from openautoglm.models.bundle import Bundle
from openautoglm.models.spec import GlmSpec

IDS = torch.arange(24).view(2, 12)


def test_a_seed_gives_the_same_weights_and_leaves_the_worlds_alone(spec: GlmSpec) -> None:
    before = torch.get_rng_state()
    one, same, other = hf.build(spec, seed=1), hf.build(spec, seed=1), hf.build(spec, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [model.state_dict()["model.layers.0.mlp.down_proj.weight"] for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_weights_begin_as_said() -> None:
    spec = GlmSpec(
        vocab_size=500, hidden_size=128, layers=8, heads=4, kv_heads=4, head_dim=32, ffn_size=256, pad_id=3
    )
    model = hf.build(spec, seed=1, init_std=0.03)
    state = model.state_dict()
    for name, tensor in state.items():
        if name.endswith("norm.weight"):
            assert torch.all(tensor == 1)
        elif name.endswith("bias"):
            assert torch.all(tensor == 0)
        else:
            scale = (2 * 8) ** 0.5 if "o_proj" in name or "down_proj" in name else 1.0
            assert float(tensor.std()) * scale == pytest.approx(0.03, rel=0.03), name
    assert torch.all(state["model.embed_tokens.weight"][3] == 0)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", ["glm", "glm4"])
def test_dropout_acts_in_training_only_and_comes_off(spec: GlmSpec, family: str) -> None:
    spec = spec.model_copy(update={"family": family})
    plain, model = hf.build(spec, seed=1), hf.build(spec, seed=1)
    dropouts = hf.Dropouts(model, 0.5)
    assert model.state_dict().keys() == plain.state_dict().keys()
    expected = plain(IDS).logits
    model.eval()
    assert torch.equal(model(IDS).logits, expected)
    assert torch.equal(copy.deepcopy(model)(IDS).logits, expected)
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model(IDS).logits, expected)
    dropouts.remove()
    assert torch.equal(model(IDS).logits, expected)


def test_every_residual_branch_drops(spec: GlmSpec) -> None:
    model = hf.build(spec, seed=1, dropout=0.5)
    seen: dict[str, float] = {}
    for name, part in model.named_modules():
        if name.endswith(("o_proj", "down_proj", "embed_tokens")):
            part.register_forward_hook(
                lambda _m, _i, output, name=name: seen.__setitem__(name, float((output == 0).float().mean()))
            )
    model(IDS + 1)
    assert len(seen) == 1 + 2 * spec.layers
    assert all(0.3 < share < 0.7 for share in seen.values()), seen


def test_a_folder_is_loaded(written: Bundle, model: Any, spec: GlmSpec) -> None:
    loaded, found = hf.load(written.path)
    assert found == spec
    assert not loaded.training
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert hf.load(written.path, dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_what_cannot_be_loaded_is_said(written: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"config\.json cannot be read"):
        hf.load(tmp_path)
    with pytest.raises(BundleError, match="no such folder"):
        hf.load(tmp_path / "nowhere")
    folder = tmp_path / "copy"
    shutil.copytree(written.path, folder)
    (folder / "model.safetensors").write_bytes(b"garbage" * 9)
    with pytest.raises(BundleError, match="weights cannot be read"):
        hf.load(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BundleError, match="weights cannot be read"):
        hf.load(folder)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "chatglm", "auto_map": {}}), encoding="utf-8"
    )
    with pytest.raises(SpecError, match="remote code"):
        hf.load(folder)


def test_the_hub_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise FileNotFoundError("no connection")

    monkeypatch.setattr(hf, "snapshot_download", unreachable)
    with pytest.raises(BundleError, match="cannot be fetched") as caught:
        hf.load("zai-org/no-such-model")
    assert "connection" in str(caught.value.remedy)
