"""Streamed weights: the same logits in less memory, and a fault of the disk is told."""

from __future__ import annotations

import gc
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime_models import Reader, random_ids, tiny_spec, write_checkpoint

from openautoglm.core.errors import BundleError, GraphError, ResourceError
from openautoglm.runtime import streaming
from openautoglm.runtime.load import load_program
from openautoglm.runtime.native_load import pack_checkpoint
from openautoglm.runtime.tensors import read_header

MIB = 1 << 20


@pytest.fixture(scope="session")
def large(extension: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A checkpoint of 12 MB with a packed file, and its spec."""
    folder = tmp_path_factory.mktemp("large")
    spec = tiny_spec(hidden_size=256, layers=6, ffn_size=512, vocab_size=1000, head_dim=32)
    write_checkpoint(folder, spec)
    pack_checkpoint(folder, dtype="fp32", threads=1)
    return folder, spec


def load(large: Any, **options: Any) -> Any:
    return load_program(large[0], "native", **{"cache": "fp32", "pages": 4, "max_rows": 32, "max_wanted": 32,
                                               "threads": 2, **options})


@pytest.mark.parametrize("mebibytes", [2, 4, 7, 100])
def test_any_window_gives_the_same_logits_step_after_step(large: Any, mebibytes: int) -> None:
    plain = load(large, load="copy")
    limit = mebibytes * MIB + plain.facts.process_bytes - plain.facts.weight_bytes
    program = load(large, load="stream", memory_limit=limit)
    assert program.load == "stream"
    assert program.facts.process_bytes <= limit
    ids, ours, theirs = random_ids(large[1], 40), Reader(program, range(4)), Reader(plain, range(4))
    for chunk in (ids[:25], ids[25:26], ids[26:27], ids[27:]):
        assert np.array_equal(ours.step({"a": chunk})["a"], theirs.step({"a": chunk})["a"])


def test_a_refused_step_does_not_confuse_the_stages(large: Any) -> None:
    program, plain = (load(large, load=mode) for mode in ("stream", "copy"))
    ids = random_ids(large[1], 10)
    reader = Reader(program, range(4))
    with pytest.raises(GraphError, match="ids lie between"):
        reader.step({"x": [2000]})
    assert np.array_equal(reader.step({"a": ids})["a"], Reader(plain, range(4)).step({"a": ids})["a"])


def test_too_small_a_window_is_refused(large: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load(large, load="copy").facts
    monkeypatch.setattr("openautoglm.runtime.native_load.LEAST_STREAMED", 0)
    with pytest.raises(ResourceError, match=r"too few for streamed weights, at least \d+ are needed"):
        load(large, load="stream", memory_limit=plain.base_bytes + plain.activation_bytes + plain.cache_bytes + 40_000)


def test_a_file_that_shrinks_is_a_fault_of_the_step(large: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(large[0], tmp_path / "model")
    plain = load(large, load="copy").facts
    limit = plain.base_bytes + plain.activation_bytes + plain.cache_bytes + 2 * MIB
    program = load((folder, large[1]), load="stream", memory_limit=limit)
    path = next(folder.glob("packed-*.safetensors"))
    os.truncate(path, path.stat().st_size - 4 * MIB)  # the last layers' weights are gone, and the head
    with pytest.raises(BundleError, match="is shorter than it was"):
        take_stages(program, steps=4)


@pytest.mark.parametrize("mebibytes", [2, 7, 100])
def test_damaged_weights_are_found_when_they_are_read_first(large: Any, tmp_path: Path, mebibytes: int) -> None:
    folder = shutil.copytree(large[0], tmp_path / "model")
    path = next(folder.glob("packed-*.safetensors"))
    last = max((entry.offset, name) for name, entry in read_header(path).entries.items() if not name.endswith(".rows"))
    with path.open("r+b") as file:
        file.seek(last[0] + 64 + 1000)
        file.write(b"\xff" * 4)
    plain = load(large, load="copy").facts
    limit = mebibytes * MIB + plain.base_bytes + plain.activation_bytes + plain.cache_bytes
    with pytest.raises(BundleError, match=f"{re.escape(last[1])} is damaged"):
        Reader(load((folder, large[1]), load="stream", memory_limit=limit), range(4)).step({"a": [1, 2]})


def take_stages(program: Any, steps: int) -> None:
    """Take the stages of steps without running them: a mapped table of a cut file must not be touched."""
    streamer = program._run.__self__
    for stage in streamer.stages * steps:
        if stage.memory is None:
            streamer.reader.give_back(streamer.reader.take())


def test_the_thread_ends_with_its_program(large: Any) -> None:
    plain = load(large, load="copy").facts
    limit = plain.base_bytes + plain.activation_bytes + plain.cache_bytes + 2 * MIB
    before = threading.active_count()
    program = load(large, load="stream", memory_limit=limit)
    assert threading.active_count() == before + 1
    reader = next(thread for thread in threading.enumerate() if thread.name == "autoglm-reader")
    del program
    gc.collect()
    reader.join(timeout=20)
    assert not reader.is_alive()


def test_stages_follow_each_other_and_hold_what_their_calls_need(large: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "STAGE_BYTES", 300_000)
    program = load(large, load="stream")
    stages = program._run.__self__.stages
    assert [stage.first for stage in stages[1:]] == [stage.last for stage in stages[:-1]]
    assert len(stages) > 20
    assert max(stage.bytes for stage in stages) <= 300_000
    numbers = [number for stage in stages for number, *_ in stage.weights]
    assert numbers == sorted(set(numbers))


@pytest.mark.slow
@pytest.mark.parametrize("enforce", ["resident", "RLIMIT_DATA"])
def test_a_model_larger_than_its_limit_stays_below_it(extension: Any, tmp_path: Path, enforce: str) -> None:
    from test_load_native import in_a_process

    spec = tiny_spec(hidden_size=512, layers=8, heads=8, kv_heads=2, head_dim=64, ffn_size=2048, vocab_size=8000)
    write_checkpoint(tmp_path, spec)
    packed = pack_checkpoint(tmp_path, dtype="fp32", threads=1).stat().st_size
    limit = 96 * MIB
    assert packed > 1.2 * limit
    found = in_a_process("""
import json, re, resource, sys, numpy as np
from openautoglm.runtime.load import load_program
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.runtime import native_load, native_program
native_program.extension().Team(2)
status = lambda name: int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
limit = int(sys.argv[2])
if sys.argv[3] == "RLIMIT_DATA":
    most = status("VmData") + limit - status("VmRSS") + (24 << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
program = load_program(sys.argv[1], "native", dtype="fp32", pages=4, max_rows=64, max_wanted=4, memory_limit=limit,
                       threads=2)
layout = lay_out([Part(20, 0, [0, 1])], page_size=16, pages=4)
ids = np.arange(20, dtype=np.int32)
for _ in range(3):
    logits = program.step(ids, layout.positions, layout, layout.last_rows)
print(json.dumps({"load": program.load, "peak": status("VmHWM"), "told": program.facts.process_bytes,
                  "finite": bool(np.isfinite(logits).all())}))
""", tmp_path, limit, enforce)
    assert found["load"] == "stream"
    assert found["finite"]
    assert 0.9 * found["told"] < found["peak"] <= limit, found
