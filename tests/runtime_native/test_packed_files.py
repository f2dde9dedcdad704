"""Packed files: written whole, valid safetensors, and refused when they are damaged or of other weights."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime_models import Reader, random_ids, write_checkpoint
from safetensors.numpy import load_file

from openautoglm.core.errors import BundleError
from openautoglm.graph.recipe import Quantisation
from openautoglm.runtime import packed_files
from openautoglm.runtime.load import load_program
from openautoglm.runtime.native_load import pack_checkpoint

RECIPE = Quantisation(head="bf16")


@pytest.fixture
def folder(checkpoint: Any, tmp_path: Path) -> Path:
    """A copy of the checkpoint with a packed file."""
    copy = shutil.copytree(checkpoint[0], tmp_path / "model")
    pack_checkpoint(copy, RECIPE, threads=1)
    return copy


@pytest.fixture
def packed(folder: Path) -> Path:
    """The packed file."""
    return next(folder.glob("packed-*.safetensors"))


def load(folder: Path, **options: Any) -> Any:
    return load_program(folder, "native", **{"dtype": "bf16", "quantise": RECIPE, "cache": "fp32", "pages": 8,
                                             "max_rows": 32, "max_wanted": 32, "threads": 1, **options})


def logits(folder: Path, spec: Any, **options: Any) -> Any:
    return Reader(load(folder, **options), range(8)).step({"a": random_ids(spec, 20)})["a"]


@pytest.mark.parametrize(("recipe", "dtype", "name"), [
    (None, "fp32", "packed-fp32"), (None, "bf16", "packed-bf16"), (Quantisation(), "bf16", "packed-int8-g32"),
    (Quantisation(format="int4", group=0, head="int4"), "bf16", "packed-int4-rows"),
    (Quantisation(symmetric=False, head="bf16"), "fp32", "packed-int8-g32-zeros-head-bf16-fp32"),
    (Quantisation(keep=("model.layers.0.*",)), "bf16", "packed-int8-g32-keep-")])
def test_the_name_holds_the_recipe(checkpoint: Any, tmp_path: Path, recipe: Any, dtype: Any, name: str) -> None:
    copy = shutil.copytree(checkpoint[0], tmp_path / "model")
    path = pack_checkpoint(copy, recipe, dtype, threads=1)
    assert path.name.startswith(name)
    if "keep" not in name:
        assert path.name == f"{name}.safetensors"
    ours = {"quantise": recipe, "dtype": dtype}
    mapped = load(copy, **ours, load="map")
    assert mapped.load == "map"
    assert np.array_equal(logits(copy, checkpoint[1], **ours, load="map"), logits(checkpoint[0], checkpoint[1], **ours))


def test_the_file_is_valid_safetensors_at_lines(packed: Path) -> None:
    tensors = load_file(packed)
    header = packed_files.read_header(packed)
    assert set(tensors) == set(header.entries)
    matrices = [entry for name, entry in header.entries.items() if not name.endswith(".rows")]
    assert len(matrices) == 2 * 4 + 1
    assert all(entry.offset % 64 == 0 for entry in matrices)
    assert all(bytes(tensors[name][:4]) == b"OAGP" for name in tensors if not name.endswith(".rows"))
    assert [path.name for path in packed.parent.glob(".*")] == []


@pytest.mark.parametrize("mode", ["copy", "map", "stream"])
def test_packed_weights_give_the_same_logits(checkpoint: Any, folder: Path, mode: Any) -> None:
    plain = logits(checkpoint[0], checkpoint[1])
    assert np.array_equal(logits(folder, checkpoint[1], load=mode), plain)


def test_copying_reads_the_packed_file(checkpoint: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("weights were packed again")

    monkeypatch.setattr("openautoglm.runtime.native_load.fill", refuse)
    assert logits(folder, checkpoint[1]).shape == (20, checkpoint[1].vocab_size)


def test_a_file_of_other_weights_is_not_used(checkpoint: Any, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = logits(folder, checkpoint[1])
    write_checkpoint(folder, checkpoint[1], seed=2)
    with caplog.at_level(logging.WARNING):
        after = logits(folder, checkpoint[1])
    assert "was made of other weights" in caplog.text
    assert not np.allclose(before, after, atol=0.1)
    for mode in ("map", "stream"):
        with pytest.raises(BundleError, match="was made of other weights"):
            load(folder, load=mode)


def test_a_file_of_another_architecture_or_version_is_not_used(folder: Path, packed: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}), encoding="utf-8")
    with pytest.raises(BundleError, match="of another architecture"):
        load(folder, load="map")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert load(folder, load="map").load == "map"
    monkeypatch.setitem(packed_files._FORMAT, "version", "1")
    with pytest.raises(BundleError, match="another version of the format"):
        load(folder, load="map")


def test_without_a_packed_file_nothing_is_mapped(checkpoint: Any) -> None:
    from openautoglm.core.errors import ResourceError

    for mode in ("map", "stream"):
        with pytest.raises(ResourceError, match=r"no fitting packed-int8-g32-head-bf16\.safetensors"):
            load(checkpoint[0], load=mode)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_are_refused_or_read_in_bounds(checkpoint: Any, folder: Path, packed: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(packed.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    if seed % 4 == 0:
        data = data[:int(rng.integers(0, len(data)))]
    elif seed % 4 == 1:  # a matrix's own header
        entry = rng.choice([entry.offset for name, entry in packed_files.read_header(packed).entries.items()
                            if not name.endswith(".rows")])
        data[int(entry) + int(rng.integers(0, 64))] ^= int(rng.integers(1, 256))
    else:
        for place in rng.integers(0, 8 if seed % 4 == 2 else header, 1 + seed // 4):
            data[int(place)] = int(rng.integers(0, 256))
    packed.write_bytes(data)
    found, fault = None, str(packed)
    try:
        found = logits(folder, checkpoint[1], load="map")
    except BundleError as error:
        fault = str(error)
    assert str(packed) in fault
    assert found is None or found.shape == (20, checkpoint[1].vocab_size)


@pytest.mark.parametrize("seed", range(8))
def test_damage_behind_the_headers_is_found_wherever_weights_are_read(checkpoint: Any, folder: Path, packed: Path,
                                                                     seed: int, caplog: Any) -> None:
    rng, entries = np.random.default_rng(seed), packed_files.read_header(packed).entries
    name = sorted(entries)[int(rng.integers(len(entries)))]
    place = entries[name].offset + int(rng.integers(64, entries[name].shape[0]))
    data = bytearray(packed.read_bytes())
    data[place] ^= 1 << int(rng.integers(8))
    packed.write_bytes(data)
    with pytest.raises(BundleError, match=f"{re.escape(name)} is damaged: its checksum"):
        packed_files.verify(packed)
    for mode in ("copy", "auto"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = logits(folder, checkpoint[1], load=mode)
        assert f"{name} is damaged" in caplog.text
        assert np.array_equal(found, logits(checkpoint[0], checkpoint[1]))
    if name != "model.embed_tokens.weight.rows":  # mapped, so it is not read as a whole
        with pytest.raises(BundleError, match="is damaged"):
            logits(folder, checkpoint[1], load="stream")


def test_verifying_needs_no_extension_and_knows_other_weights(checkpoint: Any, folder: Path, packed: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openautoglm.runtime.native.native_module", lambda: None)
    packed_files.verify(packed)
    write_checkpoint(folder, checkpoint[1], seed=2)
    with pytest.raises(BundleError, match="was made of other weights"):
        packed_files.verify(packed)


@pytest.mark.parametrize(("key", "value"), [("checksums", "[]"), ("checksums", '{"a": "00000000"}'),
                                            ("checksums", "{"), ("version", "1")],
                         ids=["list", "others", "no-json", "version-1"])
def test_a_header_without_checksums_is_refused(folder: Path, packed: Path, key: str, value: str) -> None:
    data = packed.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    header["__metadata__"][key] = value
    text = json.dumps(header, separators=(",", ":")).encode()
    packed.write_bytes(data[:8] + text.ljust(length) + data[8 + length:])
    for read in (lambda: load(folder, load="map"), lambda: packed_files.verify(packed)):
        with pytest.raises(BundleError, match=r"cannot be read|another version") as caught:
            read()
        assert "write it again" in str(caught.value.remedy)


def test_a_fault_while_writing_leaves_no_file(checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(checkpoint[0], tmp_path / "model")

    def fail(*_: Any) -> None:
        raise BundleError("a value is not finite")

    monkeypatch.setattr(packed_files, "fill", fail)
    with pytest.raises(BundleError, match="not finite"):
        pack_checkpoint(copy, threads=1)
    assert sorted(path.name for path in copy.iterdir()) == sorted(path.name for path in Path(checkpoint[0]).iterdir())
