"""Loading: what fits is copied, what does not is made smaller, mapped or refused; torch is never imported."""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime_models import Reader, random_ids, reference, tiny_spec, write_checkpoint

from openautoglm.core.errors import BundleError, GraphError, ResourceError
from openautoglm.graph.recipe import Quantisation
from openautoglm.runtime import native, native_load
from openautoglm.runtime.load import load_program
from openautoglm.runtime.native_load import pack_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def packed_folder(extension: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A checkpoint whose layers are larger than the rest, with a packed file in fp32, its spec and its model."""
    folder = tmp_path_factory.mktemp("packed")
    spec = tiny_spec(hidden_size=256, layers=6, ffn_size=512, vocab_size=200, head_dim=32)
    model = write_checkpoint(folder, spec)
    pack_checkpoint(folder, dtype="fp32", threads=1)
    return folder, spec, model


def load(folder: Path, **options: Any) -> Any:
    return load_program(folder, "native", **{"cache": "fp32", "pages": 32, "max_rows": 32, "max_wanted": 32,
                                             "threads": 1, **options})


def test_a_limit_makes_the_program_smaller_step_by_step(packed_folder: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder, spec, model = packed_folder
    ids, whole = random_ids(spec, 30), load(folder).facts
    expected, seen = reference(model, ids), []
    for share in (1.0, 0.97, 0.9, 0.8, 0.6):
        limit = whole.base_bytes + int(share * whole.total_bytes)
        with caplog.at_level(logging.WARNING):
            program = load(folder, memory_limit=limit)
        assert whole.base_bytes == program.facts.base_bytes > 100 << 20
        assert program.facts.process_bytes <= limit
        seen.append((program.load, program.plan.cache.pages < 32))
        logits = Reader(program, range(program.plan.cache.pages)).step({"a": ids})["a"]
        assert np.allclose(logits, expected, rtol=1e-3, atol=1e-3)
    assert seen[0] == ("copy", False)
    assert seen[1] == ("copy", True)
    assert seen[-1] == ("stream", True)
    assert "the cache has" in caplog.text
    assert "are streamed from disk" in caplog.text


def test_a_limit_that_nothing_fits_into_is_refused_with_what_would(checkpoint: Any, packed_folder: Any) -> None:
    with pytest.raises(ResourceError, match="the limit is 300000") as caught:
        load(packed_folder[0], memory_limit=300_000)
    assert "raise memory_limit: the process alone holds" in str(caught.value.remedy)
    whole = load(packed_folder[0], max_wanted=4).facts
    with pytest.raises(ResourceError, match=f"the process holds {whole.base_bytes} without it"):
        load(packed_folder[0], memory_limit=whole.base_bytes + 300_000)
    with pytest.raises(ResourceError, match="then its weights can be streamed"):
        load(packed_folder[0], max_wanted=4, memory_limit=whole.base_bytes + whole.total_bytes * 2 // 3, dtype="fp32",
             quantise=Quantisation(format="int8", group=0, head="fp32", keep=("*",)))
    with pytest.raises(ResourceError, match="compress the model"):
        load(packed_folder[0], max_wanted=4, memory_limit=whole.base_bytes + whole.total_bytes // 2, load="copy")


def test_weights_are_mapped_where_memory_is_short(packed_folder: Any, checkpoint: Any, monkeypatch: pytest.MonkeyPatch,
                                                  caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(native_load, "free_bytes", lambda: 1 << 20)
    with caplog.at_level(logging.WARNING):
        program = load(packed_folder[0])
    assert program.load == "map"
    assert program.facts.mapped_bytes > program.facts.weight_bytes == 0
    assert "weights are mapped" in caplog.text
    monkeypatch.setattr(native_load, "free_bytes", lambda: 1 << 16)
    with pytest.raises(ResourceError, match="pack_checkpoint"):
        load(checkpoint[0])
    assert load(checkpoint[0], load="copy").load == "copy"


def test_tables_keep_the_type_of_the_checkpoint(checkpoint: Any, tmp_path: Path) -> None:
    import torch

    folder = shutil.copytree(checkpoint[0], tmp_path / "model")
    copy.deepcopy(checkpoint[2]).to(torch.bfloat16).save_pretrained(folder)
    half, full = load(folder).facts.weight_bytes, load(checkpoint[0]).facts.weight_bytes
    assert full - half == 2 * checkpoint[1].vocab_size * checkpoint[1].hidden_size


def test_weights_that_are_not_finite_are_refused_by_name(checkpoint: Any, tmp_path: Path) -> None:
    import torch

    folder, spec = tmp_path / "broken", checkpoint[1]
    model = write_checkpoint(folder, spec)
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight[3, 5] = float("inf")
    model.save_pretrained(folder)
    with pytest.raises(BundleError, match=r"model\.layers\.1\.self_attn\.o_proj\.weight: a value is not finite"):
        load(folder, quantise=Quantisation())


def test_unknown_targets_and_missing_extensions_are_refused(checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GraphError, match="no target 'abacus'"):
        load_program(checkpoint[0], "abacus")
    monkeypatch.setitem(sys.modules, native.NAME, None)
    native._found.cache_clear()
    try:
        with pytest.raises(ResourceError, match="was not built") as caught:
            load(checkpoint[0])
    finally:
        native._found.cache_clear()
    assert "torch:cpu" in str(caught.value)


def in_a_process(code: str, *arguments: Any) -> dict[str, Any]:
    """Run Python in a process of its own; it prints JSON."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
                          check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_no_torch_is_imported(packed_folder: Any) -> None:
    found = in_a_process("""
import json, sys, numpy as np
from openautoglm.runtime.load import load_program
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.graph.recipe import Quantisation
for quantise, load in ((Quantisation(), "copy"), (None, "map"), (None, "stream")):
    program = load_program(sys.argv[1], "native", pages=4, quantise=quantise, load=load)
    layout = lay_out([Part(3, 0, [0])], page_size=16, pages=4)
    logits = program.step(np.arange(3, dtype=np.int32), layout.positions, layout, layout.last_rows)
heavy = [name for name in ("torch", "transformers", "scipy", "pandas") if name in sys.modules]
print(json.dumps({"shape": logits.shape, "heavy": heavy}))
""", packed_folder[0])
    assert found == {"shape": [1, 200], "heavy": []}


@pytest.mark.slow
@pytest.mark.parametrize(("quantise", "packed"), [("None", False), ("Quantisation()", False), ("None", True)])
@pytest.mark.usefixtures("extension")
def test_the_memory_that_is_taken_is_what_was_told(tmp_path: Path, quantise: str, packed: bool) -> None:
    spec = tiny_spec(hidden_size=512, layers=8, heads=8, kv_heads=2, head_dim=64, ffn_size=1408, vocab_size=8000,
                     max_positions=2048)
    write_checkpoint(tmp_path, spec)
    if packed:
        pack_checkpoint(tmp_path, dtype="fp32", threads=1)
    found = in_a_process("""
import json, re, sys, numpy as np
from openautoglm.runtime.load import load_program
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.graph.recipe import Quantisation
from openautoglm.runtime import native_load, native_program
quantise = eval(sys.argv[2])
native_program.extension().Team(2)
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
before = peak()
program = load_program(sys.argv[1], "native", dtype="fp32", pages=96, quantise=quantise, max_rows=512, max_wanted=64)
loaded = peak() - before
for start in range(0, 96 * 16, 512):
    pages = list(range(start // 16, start // 16 + 32))
    layout = lay_out([Part(512, 0, pages)], page_size=16, pages=96)
    program.step(np.arange(512, dtype=np.int32), layout.positions, layout, np.arange(64, dtype=np.int32))
facts = program.facts
print(json.dumps({"taken": peak() - before, "loaded": loaded, "told": facts.total_bytes,
                  "peak": peak(), "process": facts.process_bytes, "weights": facts.weight_bytes}))
""", tmp_path, quantise)
    assert 0.9 * found["told"] < found["taken"] < 1.1 * found["told"] + (4 << 20), found
    assert 0.9 * found["process"] < found["peak"] <= found["process"], found
    largest = 8000 * 512 * 4  # the head, or the table, in fp32: what may be in memory beside the weights
    assert found["loaded"] < found["weights"] + 1.1 * largest + (4 << 20), found


def test_a_quota_bounds_the_threads_that_nobody_named(packed_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openautoglm.core.limits.cpu_limit", lambda root: 1.5)
    assert load(packed_folder[0], threads=None).threads == 1
    assert load(packed_folder[0], threads=2).threads == 2
