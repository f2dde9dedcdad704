"""What a model is told to take is what its engine really has; nothing is loaded for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openautoglm.core.errors import BundleError
from openautoglm.core.hardware import probe
from openautoglm.engine.demand import demand_of
from openautoglm.engine.open import ProgramSettings, open_engine, pack
from openautoglm.models import hf
from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.native import native_module, why_not

SPEC = GlmSpec(vocab_size=96, hidden_size=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn_size=96, max_positions=64,
               eos_ids=(3,))
SETTINGS: dict[str, Any] = {
    "torch": {"target": "torch:cpu", "cache_tokens": 100, "max_rows": 32},
    "native": {"target": "native", "cache_tokens": 128, "threads": 2},
    "native int4": {"target": "native", "quantise": {"format": "int4"}, "cache": "int8", "max_rows": 16, "threads": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without a card."""
    path = tmp_path_factory.mktemp("demand") / "model"
    hf.build(SPEC, seed=1).save_pretrained(path)
    return path


def needs_native() -> None:
    if native_module() is None:
        pytest.skip(why_not())


@pytest.mark.parametrize("name", list(SETTINGS))
def test_the_engine_has_what_was_told(folder: Path, name: str) -> None:
    if "native" in name:
        needs_native()
    settings = ProgramSettings.model_validate(SETTINGS[name])
    machine = replace(probe(), available_bytes=64 << 20)
    told = demand_of(folder, settings, machine=machine)
    if settings.cache_tokens is None:
        settings = settings.model_copy(update={"cache_tokens": told.cache_tokens})
    program = open_engine(folder, settings).program
    assert told.weight_bytes == program.facts.weight_bytes
    assert told.work_bytes == program.facts.activation_bytes
    assert told.cache_bytes == program.facts.cache_bytes
    assert told.cache_tokens == program.plan.cache.slots
    assert (told.longest, told.packed, told.cache_asked) == (64, False, "cache_tokens" in SETTINGS[name])


def test_a_packed_file_is_seen_and_the_command_makes_it(folder: Path, tmp_path: Path) -> None:
    needs_native()
    settings = ProgramSettings(target="native", quantise={"format": "int8"}, cache_tokens=64)
    first = demand_of(folder, settings)
    assert (first.packed, first.model) == (False, str(folder))
    assert demand_of(folder, settings, name="archive.zip").pack == ""
    assert "'format': 'int8'" in first.pack
    assert first.pack.startswith("python -c ")
    pack(folder, settings).rename(tmp_path / "away")
    assert not demand_of(folder, settings).packed
    exec(compile(first.pack.partition('"')[2].rpartition('"')[0], "command", "exec"), {})
    assert demand_of(folder, settings).packed


def test_smaller_weights_are_told_where_there_are_any(folder: Path) -> None:
    needs_native()
    told = demand_of(folder, ProgramSettings(target="native", cache_tokens=64))
    assert set(told.smaller) == {"--quantise int8", "--quantise int4"}
    assert told.smaller["--quantise int4"] < told.smaller["--quantise int8"] < told.process_bytes
    assert demand_of(folder, ProgramSettings(target="native", quantise={"format": "int8"})).smaller == {}


def test_free_memory_bounds_a_cache_of_no_given_size(folder: Path) -> None:
    settings = ProgramSettings(target="torch:cpu", max_wanted=1000)
    small, large = (demand_of(folder, settings, machine=replace(probe(), available_bytes=size))
                    for size in (1 << 20, 8 << 20))
    assert small.cache_bytes <= 1 << 18
    assert large.cache_tokens == 8 * small.cache_tokens


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"config\.json cannot be read"):
        demand_of(tmp_path, ProgramSettings())
