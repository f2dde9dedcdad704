"""The facts of architectures, against transformers' own configurations and modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from openautoglm.core.errors import SpecError
from openautoglm.models import hf
from openautoglm.models.presets import PRESETS
from openautoglm.models.spec import GlmSpec


@st.composite
def specs(draw: st.DrawFn) -> GlmSpec:
    kv = draw(st.integers(1, 3))
    vocab = draw(st.integers(4, 90))
    ids = st.integers(0, vocab - 1)
    return GlmSpec(
        family=draw(st.sampled_from(["glm", "glm4"])),
        vocab_size=vocab,
        hidden_size=draw(st.sampled_from([8, 24, 40])),
        layers=draw(st.integers(1, 3)),
        heads=kv * draw(st.integers(1, 3)),
        kv_heads=kv,
        head_dim=draw(st.sampled_from([4, 8, 16])),
        ffn_size=draw(st.integers(1, 50)),
        rotary_factor=draw(st.sampled_from([0.5, 1.0])),
        rope_theta=draw(st.sampled_from([10000.0, 5e6])),
        qkv_bias=draw(st.booleans()),
        rms_eps=draw(st.sampled_from([1e-5, 1.5625e-07])),
        tied=draw(st.booleans()),
        pad_id=draw(st.none() | ids),
        eos_ids=tuple(draw(st.lists(ids, max_size=3))),
    )


def module(spec: GlmSpec) -> Any:
    """Transformers' module of `spec`, without memory."""
    config, model = hf.CLASSES[spec.family]
    with torch.device("meta"):
        return getattr(transformers, model)(getattr(transformers, config)(**spec.config()))


@settings(max_examples=25, deadline=None)
@given(specs())
def test_transformers_agrees(spec: GlmSpec) -> None:
    model = module(spec)
    assert sum(parameter.numel() for parameter in model.parameters()) == spec.parameters
    body = [
        p.numel()
        for name, p in model.named_parameters()
        if "embed_tokens" not in name and "lm_head" not in name
    ]
    assert sum(body) == spec.body_parameters
    assert GlmSpec.from_config(model.config.to_dict()) == spec
    assert GlmSpec.from_config(spec.config()) == spec


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_have_the_parameters_of_the_real_modules(name: str) -> None:
    assert (
        sum(parameter.numel() for parameter in module(PRESETS[name]).parameters()) == PRESETS[name].parameters
    )


@pytest.mark.parametrize("family", ["glm", "glm4"])
def test_an_empty_configuration_has_transformers_defaults(family: str) -> None:
    config = getattr(transformers, hf.CLASSES[family][0])()
    spec = GlmSpec.from_config(config.to_dict())
    assert (spec.layers, spec.rotary_factor, spec.rope_theta) == (
        40,
        0.5,
        config.rope_parameters["rope_theta"],
    )
    assert spec.eos_ids == (151329, 151336, 151338)
    nothing_said = {
        key: value for key, value in config.to_dict().items() if key not in ("head_dim", "pad_token_id")
    }
    assert GlmSpec.from_config(nothing_said) == spec


def test_the_old_layout_of_rotary_facts_is_read() -> None:
    config = PRESETS["glm-edge-1.5b"].config()
    del config["rope_parameters"]
    old = {**config, "rope_theta": 1e6, "partial_rotary_factor": 0.25, "eos_token_id": 7}
    spec = GlmSpec.from_config(old)
    assert (spec.rope_theta, spec.rotary_factor, spec.eos_ids) == (1e6, 0.25, (7,))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "chatglm", "auto_map": {"AutoModel": "modeling_chatglm.X"}}, "remote code"),
        ({"model_type": "glm4_moe"}, "mixture-of-experts"),
        ({"model_type": "llama"}, "'llama'"),
        ({"model_type": None}, "None"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "yarn"),
        ({"num_attention_heads": 5}, "evenly"),
        ({"hidden_size": "wide"}, "do not fit"),
        ({"vocab_size": None}, "vocab_size"),
    ],
)
def test_what_we_cannot_build_is_refused_with_a_remedy(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        GlmSpec.from_config({**PRESETS["glm-4-9b"].config(), **change}, where="here/config.json")
    assert caught.value.remedy
    assert caught.value.where == "here/config.json"


@pytest.mark.parametrize(
    "change",
    [
        {"kv_heads": 3},
        {"rotary_factor": 0.3},
        {"eos_ids": (99,)},
        {"pad_id": -1},
        {"depth": 3},
        {"layers": 0},
    ],
)
def test_facts_that_do_not_fit_together_are_refused(change: dict[str, Any]) -> None:
    shape = {
        "vocab_size": 99,
        "hidden_size": 8,
        "layers": 1,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "ffn_size": 8,
    }
    with pytest.raises(ValidationError):
        GlmSpec(**{**shape, **change})


def test_a_vocabulary_is_filled_to_eight(spec: GlmSpec) -> None:
    other = spec.with_vocabulary(1001, pad_id=1000, eos_ids=(7,))
    assert (other.vocab_size, other.pad_id, other.eos_ids) == (1008, 1000, (7,))
    assert other.hidden_size == spec.hidden_size


@pytest.mark.parametrize("family", ["glm", "glm4"])
@pytest.mark.parametrize("bf16", [False, True])
def test_the_activation_estimate_is_near_what_autograd_keeps(family: str, bf16: bool) -> None:
    spec = GlmSpec(
        family=family,
        vocab_size=64,
        hidden_size=128,
        layers=4,
        heads=4,
        kv_heads=2,
        head_dim=32,
        ffn_size=384,
    )
    model = hf.build(spec, seed=0)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(0, 64, (4, 64), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(input_ids=ids).logits
        torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten())
    estimate = spec.training_memory_bytes(ids.numel(), bf16=bf16) - spec.training_memory_bytes(0, bf16=bf16)
    if bf16:
        estimate += 2 * spec.parameters  # the copies that autocast makes are among what is kept
    assert 0.9 < estimate / sum(kept.values()) < 1.1


def test_memory_and_work_grow_as_they_must() -> None:
    spec = PRESETS["tiny"]
    full = spec.training_memory_bytes(4096)
    assert spec.training_memory_bytes(4096, checkpointing=True) < full
    assert (
        spec.training_memory_bytes(4096, trainable=1000) < full < spec.training_memory_bytes(4096, ema=True)
    )
    assert spec.training_memory_bytes(0, bf16=False) == 16 * spec.parameters
    assert spec.kv_bytes_per_token() == 2 * 4 * 2 * 64 * 2
    assert spec.inference_memory_bytes(tokens=10) == 2 * spec.parameters + 10 * spec.kv_bytes_per_token()
    assert 0.99 < spec.flops_per_token / (2 * spec.parameters) < 1.01, "two operations a weight"
    assert spec.training_flops_per_token(100) > spec.training_flops_per_token() == 3 * spec.flops_per_token


def test_frozen_parts_and_small_states_take_less_memory() -> None:
    from openautoglm.train.settings import TrainSettings

    spec = PRESETS["base"]
    full = spec.training_memory_bytes(4096)

    def of(**train: Any) -> int:
        return spec.training_memory_bytes(4096, **TrainSettings(**train).memory(spec))

    assert of() == full
    assert full - of(optimiser_state="8bit") == pytest.approx(5.95 * spec.parameters, rel=1e-3)
    assert full - of(offload=True) == 8 * spec.parameters
    half = {"layers": spec.layers // 2}
    assert of(freeze=half) < 0.65 * full
    assert of(freeze=half) < of(freeze={**half, "embeddings": False}) < full
    assert of(freeze={**half, "unfreeze": {}}) == full  # at its end everything learns
    whole = spec.frozen_parameters(spec.layers, embeddings=True)
    assert whole == spec.parameters - spec.hidden_size - spec.vocab_size * spec.hidden_size
