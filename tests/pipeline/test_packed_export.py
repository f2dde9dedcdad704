"""Packed weights in a bundle: written at export, found by the engine, derived and so never in anyone's way."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from openautoglm.compress.quantise import quantise_checkpoint, tensors_of
from openautoglm.compress.settings import RtnSettings
from openautoglm.core.errors import BundleError, ResourceError, TaskError
from openautoglm.engine import open as engine_open
from openautoglm.engine.open import ProgramSettings, open_engine
from openautoglm.engine.sampling import Sampling
from openautoglm.graph.recipe import Quantisation
from openautoglm.models import hf
from openautoglm.models.bundle import Bundle, export, open_bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.quantised_bundle import write_quantised_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.sections import PackedTask
from openautoglm.pipeline.stages.export import pack_compressed, pack_weights
from openautoglm.pipeline.task import make_task
from openautoglm.runtime import native
from openautoglm.runtime.native_load import pack_checkpoint
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer


@pytest.fixture
def extension() -> None:
    """Skip where the native runtime was not built."""
    if native.native_module() is None:
        pytest.skip(native.why_not())


def written(path: Path, packed: tuple[PackedTask, ...], dtype: Any = "float32", **shape: Any) -> Bundle:
    """A bundle of random weights with packed files."""
    tokenizer = Tokenizer.train(["The Punter is a cheap pub near Café Rouge."] * 4, 300)
    facts = {"hidden_size": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn_size": 64, "tied": True,
             "max_positions": 64, **shape}
    spec = GlmSpec(vocab_size=8, **facts).with_vocabulary(
        tokenizer.vocab_size, pad_id=tokenizer.pad_id, eos_ids=(tokenizer.special["<|endoftext|>"],))
    return write_bundle(path, model=hf.build(spec, seed=1, init_std=0.3), spec=spec, tokenizer=tokenizer,
                        template=Template(), card_facts={}, dtype=dtype,
                        more=lambda folder: pack_weights(folder, packed))


def answers(folder: Path, **settings: Any) -> Any:
    engine = open_engine(folder, ProgramSettings(target="native", threads=1, **settings))
    return engine.generate([[5, 6, 7], [8, 9]], Sampling(max_new_tokens=6))


@pytest.mark.parametrize(("given", "names"), [
    ({}, ["stored"]), ({"packed": "none"}, []), ({"packed": []}, []), ({"packed": "int4"}, ["int4"]),
    ({"packed": ["stored", {"format": "int8", "group": 64}, "stored"]}, ["stored", "int8"])],
    ids=["left-out", "none", "empty", "word", "list"])
def test_the_setting_has_short_forms(given: dict[str, Any], names: list[str]) -> None:
    task = make_task({"data": {"train": "a.csv", "source": "s", "target": "t"}, "export": given})
    assert [each.format for each in task.export.packed] == names


@pytest.mark.parametrize(("value", "fault"), [
    ("auto", "use none, stored, int8, int4"), (["none"], "use none"), (None, "use none"), ({"group": 64}, "only with"),
    ({"format": "int4", "grup": 64}, "unknown key"), ({"format": "int4", "group": 48}, "must be")],
    ids=["word", "none-in-a-list", "null", "group-alone", "key", "group"])
def test_faults_of_the_setting_are_told(value: Any, fault: str) -> None:
    with pytest.raises(TaskError, match=fault) as caught:
        make_task({"data": {"train": "a.csv", "source": "s", "target": "t"}, "export": {"packed": value}})
    assert "export.packed" in str(caught.value)


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize(("packed", "dtype", "name", "settings"), [
    (PackedTask(), "float32", "packed-fp32", {}), (PackedTask(), "bfloat16", "packed-bf16", {}),
    (PackedTask(format="int8"), "float32", "packed-int8-g32-fp32", {"quantise": Quantisation()}),
    (PackedTask(format="int4", group=0, head="bf16"), "bfloat16", "packed-int4-rows-head-bf16",
     {"quantise": Quantisation(format="int4", group=0, head="bf16")})], ids=["fp32", "bf16", "int8", "int4"])
def test_the_engine_finds_the_file_and_converts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        packed: PackedTask, dtype: Any, name: str, settings: Any
                                                        ) -> None:
    bundle, plain = written(tmp_path / "b", (packed,), dtype), written(tmp_path / "plain", (), dtype)
    assert {file for file in bundle.card.files if "packed" in file} == {f"{name}.safetensors"}
    assert set(plain.card.files) == set(bundle.card.files) - {f"{name}.safetensors"}
    expected = answers(plain.path, **settings)

    def refuse(*_: Any) -> None:
        raise AssertionError("weights were converted")

    monkeypatch.setattr("openautoglm.runtime.native_load.fill", refuse)
    for load in ("auto", "copy", "map"):
        assert answers(bundle.path, load=load, **settings) == expected
    with pytest.raises(AssertionError, match="were converted"):
        answers(plain.path, **settings)


@pytest.mark.usefixtures("extension")
def test_what_a_compression_wrote_is_packed_afterwards_in_bits_of_its_own(tmp_path: Path) -> None:
    plain, asked = written(tmp_path / "plain", ()), (PackedTask(), PackedTask(format="int8"))
    quantise_checkpoint(plain.path, tmp_path / "weights", RtnSettings(bits=4), None)
    path = tmp_path / "int4"
    write_quantised_bundle(path, plain, tensors_of(tmp_path / "weights"))
    unpacked = answers(path)
    for folder, names in ((plain.path, {"packed-fp32", "packed-int8-g32-fp32"}), (path, {"packed-fp32"})):
        pack_compressed(folder, ())
        assert not list(folder.glob("packed-*"))
        pack_compressed(folder, asked)
        files = {name for name in open_bundle(folder, packed=True).card.files if "packed" in name}
        assert files == {file.name for file in folder.glob("packed-*")} == {f"{name}.safetensors" for name in names}
    assert answers(path, load="map") == unpacked
    pack_compressed(plain.path, asked[1:])
    assert [file.name for file in plain.path.glob("packed-*")] == ["packed-int8-g32-fp32.safetensors"]
    pack_compressed(plain.path, ())
    assert not [name for name in open_bundle(plain.path, packed=True).card.files if "packed" in name]


@pytest.mark.usefixtures("extension")
def test_a_bundle_with_packed_weights_is_a_bundle_as_any(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    bundle, ids = written(tmp_path / "b", (PackedTask(), PackedTask(format="int8"))), torch.arange(12).view(1, 12)
    packed = [name for name in bundle.card.files if "packed" in name]
    assert len(packed) == 2
    logits = AutoModelForCausalLM.from_pretrained(bundle.path)(ids).logits
    assert torch.equal(bundle.model()(ids).logits, logits)
    for suffix in ("", ".zip", ".pkl"):
        copy = open_bundle(export(bundle, tmp_path / f"copy{suffix}"), packed=True)
        assert copy.card == bundle.card
        assert all((copy.path / name).is_file() for name in packed)


@pytest.mark.usefixtures("extension")
def test_packed_files_may_go_and_come_and_damage_is_found_on_demand(tmp_path: Path) -> None:
    bundle = written(tmp_path / "b", (PackedTask(),))
    path = bundle.path / "packed-fp32.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert open_bundle(bundle.path).card == bundle.card
    with pytest.raises(BundleError, match=r"packed-fp32\.safetensors is damaged"):
        open_bundle(bundle.path, packed=True)
    path.unlink()
    copy = open_bundle(export(open_bundle(bundle.path, packed=True), tmp_path / "copy.zip"), packed=True)
    assert not list(copy.path.glob("packed-*"))
    again = pack_checkpoint(bundle.path, Quantisation(), "bf16", threads=1)
    card = open_bundle(bundle.path, packed=True).card
    assert set(card.files) - set(bundle.card.files) == {again.name}


def test_without_a_compiler_a_notice_stands_in_place_of_the_file(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, native.NAME, None)
    native._found.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            bundle = written(tmp_path / "b", (PackedTask(),))
    finally:
        native._found.cache_clear()
    assert "weights are not packed: the native extension was not built" in caplog.text
    assert open_bundle(bundle.path).card.files.keys() == bundle.card.files.keys()
    assert not list(bundle.path.glob("packed-*"))


@pytest.mark.usefixtures("extension")
def test_what_does_not_fit_the_model_is_told_and_left_out(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def pack(folder: Path, program: ProgramSettings) -> Path:
        if program.quantise is not None and program.quantise.format == "int4":
            raise ResourceError("a cache of 8 bytes cannot be had")
        return open_pack(folder, program)

    open_pack = engine_open.pack
    monkeypatch.setattr(engine_open, "pack", pack)
    with caplog.at_level(logging.WARNING):
        narrow = written(tmp_path / "narrow", (PackedTask(),), head_dim=8)
        bundle = written(tmp_path / "b", (PackedTask(format="int4"), PackedTask(format="int8")))
    assert "heads of a multiple of 16" in caplog.text
    assert not list(narrow.path.glob("packed-*"))
    assert "weights are not packed as int4: a cache of 8 bytes cannot be had" in caplog.text
    assert [path.name for path in bundle.path.glob("packed-*")] == ["packed-int8-g32-fp32.safetensors"]
