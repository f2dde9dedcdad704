"""``autoglm check BUNDLE``: every file is read, packed ones too, and damage has a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openautoglm.engine.open import pack
from openautoglm.models import hf
from openautoglm.models.bundle import Bundle, export
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.check_bundle import check_bundle
from openautoglm.runtime.native import native_module, why_not
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle with packed weights."""
    if native_module() is None:
        pytest.skip(why_not())
    tokenizer = Tokenizer.train(["The Punter is a cheap pub near Café Rouge."] * 4, 300)
    spec = GlmSpec(vocab_size=304, hidden_size=32, layers=1, heads=2, kv_heads=1, head_dim=16, ffn_size=64)
    return write_bundle(tmp_path / "b", model=hf.build(spec, seed=1), spec=spec, tokenizer=tokenizer,
                        template=Template(), card_facts={}, more=pack)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_whole_bundle_has_no_faults(bundle: Bundle, tmp_path: Path) -> None:
    for path in (bundle.path, export(bundle, tmp_path / "b.zip")):
        found = check_bundle(path)
        assert not found.faulty
        assert {line.what for line in found.lines} == set(bundle.card.files)
        assert {line.status for line in found.lines} == {"ok"}


def test_damage_is_named(bundle: Bundle) -> None:
    packed = bundle.path / "packed-fp32.safetensors"
    flip(packed, -1)
    fault, = (line for line in check_bundle(bundle.path).lines if line.status == "fault")
    assert fault.what == packed.name
    assert "is damaged: its checksum" in fault.value
    flip(packed, -1)
    start = 8 + int.from_bytes(packed.read_bytes()[:8], "little")
    flip(packed, start - 1)  # a space behind the header: JSON cares, or the card does
    assert check_bundle(bundle.path).faulty
    packed.unlink()
    found = check_bundle(bundle.path)
    assert not found.faulty
    assert [line.what for line in found.lines if line.status == "warning"] == [packed.name]
    flip(bundle.path / "model.safetensors", -1)
    found = check_bundle(bundle.path)
    assert [(line.what, line.status) for line in found.lines] == [("bundle", "fault")]
    assert "model.safetensors is damaged" in found.lines[0].value


def test_a_packed_file_that_only_the_card_does_not_know_is_told(bundle: Bundle) -> None:
    packed = bundle.path / "packed-fp32.safetensors"
    data = packed.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    header["__metadata__"]["note"] = "x"
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    packed.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length:])
    fault, = (line for line in check_bundle(bundle.path).lines if line.status == "fault")
    assert "not the one in the card" in fault.value


@pytest.mark.slow
def test_the_verb_tells_and_its_code_too(bundle: Bundle) -> None:
    from command_line import autoglm

    done = autoglm("check", bundle.path, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["faulty"] is False
    flip(bundle.path / "packed-fp32.safetensors", -1)
    done = autoglm("check", bundle.path)
    assert done.returncode == 2
    assert "packed-fp32" in done.stdout
