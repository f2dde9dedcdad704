"""From a checkpoint to a file: every family and method, the walk through the layers, memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from quantise_models import divergence, quantised_model, sequences, small_checkpoint, small_spec

from openautoglm.compress.calibrate import Calibration, States, choose
from openautoglm.compress.methods import QuantisationMethod
from openautoglm.compress.plan import plan
from openautoglm.compress.quantise import quantise_checkpoint, tensors_of
from openautoglm.compress.settings import AwqSettings, CalibrationSettings, GptqSettings, MixedSettings, RtnSettings
from openautoglm.compress.source import Source
from openautoglm.compress.walk import Rotary, Walk, embed, forward, norms_of
from openautoglm.core.errors import DataError, ResourceError
from openautoglm.models import hf
from openautoglm.models.quantised import Bf16
from openautoglm.models.quantised_bundle import write_quantised_bundle
from openautoglm.models.quantised_file import open_quantised

KINDS = [("glm", True), ("glm", False), ("glm4", True), ("glm4", False)]
IDS = ["glm-tied", "glm-untied", "glm4-tied", "glm4-untied"]
PLAIN = {"head_bits": 32, "embedding_bits": 32}


@pytest.fixture(scope="module", params=KINDS, ids=IDS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder and its model."""
    family, tied = request.param
    folder = tmp_path_factory.mktemp("checkpoints") / "it"
    return folder, small_checkpoint(folder, small_spec(family, tied=tied))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder and its model, where the family does not matter."""
    folder = tmp_path_factory.mktemp("checkpoints") / "it"
    return folder, small_checkpoint(folder, small_spec(tied=True))


def walked(source: Source, calibration: Calibration, treat: Any = None) -> torch.Tensor:
    states = States(calibration.tokens, source.spec.hidden_size)
    embed(source, lambda start, stop: source.tensor("model.embed_tokens.weight", start, stop), states,
          torch.tensor([token for ids in calibration.sequences for token in ids]))
    walk = Walk(source.spec, states, States(calibration.tokens, source.spec.query_size), calibration.batches())
    for layer in range(source.spec.layers):
        walk.layer(norms_of(source, layer), treat or (lambda slot, seen, at=layer: source.matrix(at, slot)))
    return states.read(0, calibration.tokens)


@torch.no_grad()
def test_the_walk_computes_what_the_model_computes(checkpoint: tuple[Path, Any]) -> None:
    folder, model = checkpoint
    source, calibration = Source(folder), Calibration(tuple(map(tuple, sequences(6))))
    states, start = walked(source, calibration), 0
    rotary = Rotary(source.spec, calibration.longest)
    for ids in calibration.sequences:
        layers = model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        weights = {slot: source.matrix(0, slot) for slot in source.slots}
        first = forward(layers[0][0], (len(ids),), weights, norms_of(source, 0), source.spec, rotary)
        torch.testing.assert_close(first, layers[1][0], rtol=1e-4, atol=1e-4)
        final = model.model.norm(states[start:start + len(ids)])
        torch.testing.assert_close(final, layers[-1][0], rtol=1e-3, atol=1e-3)
        start += len(ids)


def test_every_method_gives_a_file_that_stands_for_the_model(checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    """gptq and awq come closer to the parent than rounding; names, shapes and facts fit."""
    folder, model = checkpoint
    methods, found = (RtnSettings(**PLAIN), GptqSettings(**PLAIN), AwqSettings(**PLAIN)), {}
    for name, method in zip(("rtn", "gptq", "awq"), methods, strict=True):
        facts = quantise_checkpoint(folder, tmp_path / "q.safetensors", method, sequences())
        found[name] = divergence(model, quantised_model(model, tmp_path / "q.safetensors"))
        assert {matrix.layer for matrix in facts.matrices} == {0, 1, None}
        assert set(facts.layer_errors) == {0, 1}
        assert facts.calibration_tokens == (0 if name == "rtn" else sum(map(len, sequences())))
    assert found["gptq"] < 0.8 * found["rtn"]
    assert found["awq"] < 0.95 * found["rtn"]


def test_scales_of_awq_are_folded_without_a_trace(checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    """With 8 bits nearly nothing is lost, so whatever is left would be a scale that was not undone."""
    folder, model = checkpoint
    method = AwqSettings(bits=8, search=False, alphas=6, **PLAIN)
    quantise_checkpoint(folder, tmp_path / "awq.safetensors", method, sequences())
    quantise_checkpoint(folder, tmp_path / "rtn.safetensors", RtnSettings(bits=8, **PLAIN), None)
    awq, rtn = open_quantised(tmp_path / "awq.safetensors"), open_quantised(tmp_path / "rtn.safetensors")
    changed = [name for name in rtn.names if "norm" in name and not np.array_equal(rtn.read(name), awq.read(name))]
    assert [name.rsplit(".", 2)[1] for name in changed] == ["input_layernorm", "post_attention_layernorm"] * 2
    left, plain = (divergence(model, quantised_model(model, file.path)) for file in (awq, rtn))
    assert left < 2 * plain
    rows = "model.layers.0.self_attn.v_proj.weight"
    assert not np.allclose(np.abs(awq.read(rows).scales).max(1), np.abs(rtn.read(rows).scales).max(1), rtol=0.05)


@torch.no_grad()
def test_a_folder_is_made_of_it_that_opens_as_a_model(checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    """The same logits from the written folder as from the parent's class with the file's weights."""
    folder, model = checkpoint
    quantise_checkpoint(folder, tmp_path / "it.safetensors", AwqSettings(alphas=4, head_bits=16), sequences())
    write_quantised_bundle(tmp_path / "small", folder, tensors_of(tmp_path / "it.safetensors"))
    assert (tmp_path / "small" / "quantised.safetensors").stat().st_size == (tmp_path / "it.safetensors").stat().st_size
    loaded, ids = hf.load(tmp_path / "small")[0], torch.tensor(sequences(1))
    torch.testing.assert_close(loaded(ids).logits, quantised_model(model, tmp_path / "it.safetensors")(ids).logits)


@pytest.mark.parametrize("method", [GptqSettings(), MixedSettings(average_bits=6.5, tokens=100)], ids=["gptq", "mixed"])
def test_states_on_disk_give_the_same_bytes(method: Any, one: tuple[Path, Any], tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = quantise_checkpoint(one[0], tmp_path / "a.safetensors", method, sequences())
    files: list[Path | None] = []
    create = States.__init__

    def noted(self: States, rows: int, width: int, file: Path | None = None) -> None:
        files.append(file)
        create(self, rows, width, file)

    monkeypatch.setattr(States, "__init__", noted)
    shown = choose(sequences(), CalibrationSettings(), small_spec())
    needed = plan(Source(one[0]).spec, GptqSettings(), shown, 1 << 40)
    monkeypatch.setattr("openautoglm.compress.plan.resident_bytes", lambda: needed.base_bytes)
    on_disk = quantise_checkpoint(one[0], tmp_path / "b.safetensors", method, sequences(),
                                  memory_limit=needed.total_bytes - needed.state_bytes // 2)
    assert files
    assert all(file is not None for file in files)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert [each.output_error for each in in_memory.matrices] == [each.output_error for each in on_disk.matrices]
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_shards_and_batches_change_nothing(one: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                           ) -> None:
    small_checkpoint(tmp_path / "shards", small_spec(tied=True), shard="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    for folder, name in ((one[0], "a"), (tmp_path / "shards", "b")):
        quantise_checkpoint(folder, tmp_path / name, GptqSettings(), sequences())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    monkeypatch.setattr("openautoglm.compress.grid.CHUNK_VALUES", 700)
    quantise_checkpoint(one[0], tmp_path / "c", RtnSettings(search=True), None)
    monkeypatch.undo()
    quantise_checkpoint(one[0], tmp_path / "d", RtnSettings(search=True), None)
    assert (tmp_path / "c").read_bytes() == (tmp_path / "d").read_bytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_sources(dtype: torch.dtype, tmp_path: Path) -> None:
    model = small_checkpoint(tmp_path / "half", small_spec(), dtype)
    method = GptqSettings(bits=8, head_bits=16, embedding_bits=32)
    facts = quantise_checkpoint(tmp_path / "half", tmp_path, method, sequences())
    written = open_quantised(tmp_path)
    np.testing.assert_array_equal(written.read("model.embed_tokens.weight"), model.model.embed_tokens.weight.detach())
    assert isinstance(written.entry("lm_head.weight").read(), Bf16)
    assert [(each.name, each.bits) for each in facts.matrices[-2:]] == [("model.embed_tokens", 32), ("lm_head", 16)]
    assert divergence(model, quantised_model(model, tmp_path)) < 0.05


def test_a_tied_table_takes_the_finer_form(one: tuple[Path, Any], tmp_path: Path) -> None:
    quantise_checkpoint(one[0], tmp_path, RtnSettings(head_bits=4, embedding_bits=8), None)
    forms = open_quantised(tmp_path).forms
    assert forms["model.embed_tokens.weight"].bits == 8
    assert "lm_head.weight" not in forms


def test_a_limit_that_is_too_small_names_the_least(one: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="the limit is 1000000") as caught:
        quantise_checkpoint(one[0], tmp_path / "q", GptqSettings(), sequences(), memory_limit=1_000_000)
    assert caught.value.remedy is not None
    least = int(caught.value.remedy.partition("raise memory_limit to ")[2].partition(",")[0])
    quantise_checkpoint(one[0], tmp_path / "q", GptqSettings(), sequences(), memory_limit=least + (64 << 20))


def test_the_plan_of_a_billion_weights_stays_under_three_gigabytes() -> None:
    """GLM-Edge's shape with the default calibration: the states go to disk, the rest fits."""
    spec = small_spec(hidden_size=2048, layers=28, heads=16, kv_heads=4, head_dim=128, ffn_size=6144, qkv_bias=False,
                      vocab_size=59264, max_positions=8192)
    shown = Calibration(tuple((1,) * 512 for _ in range(128)))
    for base in (GptqSettings(), AwqSettings(), AwqSettings(then="gptq")):
        needed = plan(spec, base, shown, 3_000_000_000, base_bytes=400_000_000)
        assert needed.total_bytes < 3_000_000_000
        assert needed.on_disk == (needed.work_bytes + needed.state_bytes + 400_000_000 > 3_000_000_000)
    with pytest.raises(ResourceError):
        plan(spec, GptqSettings(), shown, 1_000_000_000, base_bytes=400_000_000)


def test_calibration_is_drawn_cut_and_checked() -> None:
    spec, long = small_spec(), [list(range(70)), [5], [1, 2], *([[7, 8, 9]] * 20)]
    few = choose(long, CalibrationSettings(samples=4, tokens=512, seed=1), spec)
    assert few == choose(long, CalibrationSettings(samples=4, tokens=512, seed=1), spec)
    assert len(few.sequences) == 4
    every = choose(long, CalibrationSettings(tokens=32), spec)
    assert [len(ids) for ids in every.sequences[:4]] == [32, 32, 6, 2]
    assert every.tokens == 70 + 2 + 60
    assert max(len(ids) for ids in choose(long, CalibrationSettings(), spec).sequences) == spec.max_positions
    with pytest.raises(DataError, match="outside the vocabulary of 96") as caught:
        choose([[1, 2], [3, 96]], CalibrationSettings(), spec)
    assert caught.value.where == "calibration sequence 1"
    for nothing in (None, [], [[4]]):
        with pytest.raises(DataError, match="no sequence"):
            choose(nothing, CalibrationSettings(), spec)


def test_methods_are_told_apart_by_their_name() -> None:
    adapter = TypeAdapter[Any](QuantisationMethod)
    for method in (RtnSettings(bits=8), GptqSettings(group=128), AwqSettings(then="gptq"),
                   MixedSettings(base=AwqSettings(), average_bits=6)):
        assert adapter.validate_python(method.model_dump(mode="json")) == method
    with pytest.raises(ValueError, match="cannot be reached"):
        MixedSettings(average_bits=4.4)
