"""Programs of quantised checkpoints: stored codes run as those that are rounded at load, however they are loaded."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantised_models import alike, write_dequantised, write_quantised
from runtime_models import Reader, apart, random_ids, tiny_spec, write_checkpoint
from safetensors.numpy import load_file, save_file

from openautoglm.core.errors import BundleError, GraphError
from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rules.registry import rules_for
from openautoglm.models.quantised_file import QUANTISED_NAME, forms_of, open_quantised
from openautoglm.runtime.load import load_hidden, load_program
from openautoglm.runtime.native_load import pack_checkpoint

FORMS = [(8, 32, True), (4, 32, True), (4, 16, False), (8, 0, False)]
TABLE = "model.embed_tokens.weight"


def mixed(name: str) -> Any:
    """Queries in int4, keys and values in int8, and linears of layers in one form or another."""
    if "q_proj" in name or "gate_up" in name:
        return 4, 16, True
    return (8, 32, True) if "_proj" in name or name == TABLE else None


@pytest.fixture(scope="session")
def made(extension: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Quantised checkpoints by (form, tied), made once; their plain parents; and their spec."""
    base, known = tmp_path_factory.mktemp("stored"), {}

    def make(form: Any, *, tied: bool = False) -> Any:
        name = f"{form if isinstance(form, tuple) else form.__name__}-{tied}"
        if name not in known:
            spec = tiny_spec(family="glm4", hidden_size=64, ffn_size=96, tied=tied)
            parent = base / f"parent-{tied}"
            if not parent.exists():
                write_checkpoint(parent, spec, seed=1)
            choose = alike(*form, tables=form) if isinstance(form, tuple) else form
            known[name] = write_quantised(base / name, parent, choose), parent, spec
        return known[name]

    return make


def load(folder: Path, target: str = "native", **options: Any) -> Any:
    return load_program(folder, target, **{"cache": "fp32", "pages": 8, "page_size": 16, "max_rows": 32,
                                           "max_wanted": 32, "threads": 2, **options})


def logits(program: Any, spec: Any) -> Any:
    return Reader(program, range(8)).step({"a": random_ids(spec, 25)})["a"]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_stored_codes_run_as_those_rounded_at_load(made: Any, tmp_path: Path, form: Any) -> None:
    folder, parent, spec = made(form)
    other = shutil.copytree(parent, tmp_path / "parent")
    tensors = load_file(other / "model.safetensors")  # the table, which is never rounded at load, has the stored values
    tensors[TABLE] = open_quantised(folder).read(TABLE).dequantise()
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    recipe = Quantisation(format=f"int{form[0]}", group=0 if form[1] == 16 else form[1], symmetric=form[2],  # type: ignore[arg-type]
                          head=f"int{form[0]}")  # type: ignore[arg-type]
    if form[1] == 16:  # not among the groups of recipes
        recipe = recipe.model_copy(update={"group": 16})
    assert np.array_equal(logits(load(folder), spec), logits(load(other, quantise=recipe), spec))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("form", [*FORMS, mixed], ids=["int8", "int4", "zeros", "rows", "mixed"])
def test_both_targets_agree_with_the_dequantised_model(made: Any, tmp_path: Path, form: Any, tied: bool) -> None:
    folder, _, spec = made(form, tied=tied)
    torch = load(folder, "torch:cpu")
    assert np.array_equal(logits(torch, spec),
                          logits(load(write_dequantised(tmp_path / "plain", folder), "torch:cpu"), spec))
    assert torch.held_bytes()[0] == torch.facts.weight_bytes
    rules = rules_for("native", stored=forms_of(folder))
    assert apart(logits(load(folder), spec), logits(load(folder, "torch:cpu", rules=rules), spec)) < 1e-5


def test_a_tied_head_and_its_table_are_one_packed_matrix(made: Any) -> None:
    folder, _, spec = made(FORMS[0], tied=True)
    program = load(folder)
    items = program.prepared.lowered.items
    assert [item.name for item in items if TABLE in item.name] == [f"{TABLE}.int8"]
    untied = load(made(FORMS[0])[0])
    assert untied.facts.weight_bytes - program.facts.weight_bytes == items[0].bytes
    hidden = load_hidden(folder, program)
    assert hidden.facts.weight_bytes == 0
    assert logits(hidden, spec).shape == (25, spec.hidden_size)


def test_parts_of_different_forms_stay_apart_and_say_so(made: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder, _, _ = made(mixed)
    with caplog.at_level(logging.WARNING):
        program = load(folder)
    assert "stored in different forms: they are not fused" in caplog.text
    forms = {item.name.removeprefix("model.layers.0."): (item.format, item.group)
             for item in program.prepared.lowered.items if "layers.0" in item.name and item.kind == "packed"}
    assert forms["self_attn.q_proj.weight.int4+bias"] == ("int4", 16)
    assert forms["self_attn.k_proj.weight.int8+bias"] == ("int8", 32)
    assert [form for name, form in forms.items() if "gate_up" in name] == [("int4", 16)]
    head = next(item for item in program.prepared.lowered.items if item.name.startswith("lm_head"))
    assert head.format == "fp32"


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_packed_files_map_and_stream_as_copies_do(made: Any, tmp_path: Path, tied: bool) -> None:
    folder, _, spec = made(FORMS[1], tied=tied)
    folder = shutil.copytree(folder, tmp_path / "model")
    expected = load(folder)
    path = pack_checkpoint(folder, dtype="fp32", threads=1)
    assert path.stat().st_size < 1.1 * expected.facts.weight_bytes + 8192
    programs = {mode: load(folder, load=mode) for mode in ("copy", "map", "stream")}
    for program in programs.values():
        assert np.array_equal(logits(program, spec), logits(expected, spec))
    assert programs["map"].facts.mapped_bytes == expected.facts.weight_bytes
    assert programs["stream"].facts.mapped_bytes > 0  # rows of the table are read out of the file
    assert logits(load_hidden(folder, programs["map"]), spec).shape == (25, spec.hidden_size)


def test_a_packed_file_of_other_codes_is_not_used(made: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, parent, spec = made(FORMS[0])
    folder = shutil.copytree(folder, tmp_path / "model")
    pack_checkpoint(folder, dtype="fp32", threads=1)
    expected = logits(load(made(FORMS[1])[0]), spec)
    write_quantised(tmp_path / "other", parent, alike(*FORMS[1], tables=FORMS[1]))
    shutil.copyfile(tmp_path / "other" / QUANTISED_NAME, folder / QUANTISED_NAME)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(logits(load(folder), spec), expected)
    assert "was made of other weights" in caplog.text


def test_quantised_checkpoints_are_not_quantised_again(made: Any) -> None:
    folder, _, _ = made(FORMS[0])
    for target in ("native", "torch:cpu"):
        with pytest.raises(GraphError, match="holds quantised weights already"):
            load(folder, target, quantise=Quantisation())
    with pytest.raises(GraphError, match="holds quantised weights already"):
        pack_checkpoint(folder, Quantisation())


def test_rules_of_ones_own_dequantise(made: Any) -> None:
    folder, _, spec = made(FORMS[0])
    assert apart(logits(load(folder, rules=False), spec), logits(load(folder, "torch:cpu"), spec)) < 1e-4


def test_faulty_checkpoints_are_refused_by_name(made: Any, tmp_path: Path) -> None:
    folder, parent, spec = made(FORMS[0])
    both = shutil.copytree(folder, tmp_path / "both")
    shutil.copyfile(parent / "model.safetensors", both / "model.safetensors")
    with pytest.raises(BundleError, match=r"holds model\.safetensors and quantised\.safetensors"):
        load(both)
    wider = shutil.copytree(folder, tmp_path / "wider")
    other = replace_spec(spec, tmp_path)
    shutil.copyfile(other / QUANTISED_NAME, wider / QUANTISED_NAME)
    with pytest.raises(BundleError, match=r"down_proj\.weight gives shape \(64, 128\)"):
        load(wider)
    cut = shutil.copytree(folder, tmp_path / "cut")
    raw = (cut / QUANTISED_NAME).read_bytes()
    (cut / QUANTISED_NAME).write_bytes(raw[:-100])
    with pytest.raises(BundleError, match="cut short"):
        load(cut)


def replace_spec(spec: Any, base: Path) -> Path:
    """A quantised checkpoint whose feed-forward is wider."""
    write_checkpoint(base / "plain", spec.model_copy(update={"ffn_size": 128}))
    return write_quantised(base / "quantised", base / "plain", alike())


def test_a_limit_counts_packed_tables(made: Any) -> None:
    folder, _, spec = made(FORMS[0], tied=True)
    whole = load(folder, max_rows=8, max_wanted=4).facts
    assert whole.weight_bytes < 64 * 1.3 * spec.parameters / 64
    smaller = load(folder, max_rows=8, max_wanted=4, memory_limit=whole.process_bytes - whole.cache_bytes // 2)
    assert smaller.plan.cache.pages < 8
    assert replace(smaller.facts, cache_bytes=0) == replace(whole, cache_bytes=0)
