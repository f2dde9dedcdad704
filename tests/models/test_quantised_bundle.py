"""Quantised bundles are bundles: opened, checked, archived, and given back in transformers' classes."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openautoglm.core.errors import BundleError
from openautoglm.core.files import read_json
from openautoglm.models import hf
from openautoglm.models.bundle import WEIGHTS_NAME, Bundle, export, open_bundle
from openautoglm.models.bundle_writer import shapes, write_bundle
from openautoglm.models.quantised_bundle import write_quantised_bundle
from openautoglm.models.quantised_file import QUANTISED_NAME, forms_of, open_quantised
from openautoglm.models.spec import GlmSpec
from openautoglm.models.weight_shapes import weight_shapes
from openautoglm.runtime.quantised import QuantisedMatrix, quantise
from openautoglm.runtime.tensors import Checkpoint


def tensors(folder: Path, spec: GlmSpec, *, leave: str = "", add: Any = ()) -> Iterator[tuple[str, Any]]:
    checkpoint = Checkpoint(folder)
    for name, shape in weight_shapes(spec).items():
        value = checkpoint.read(name)
        if name != leave:
            yield name, quantise(value, 8, 16) if len(shape) == 2 and isinstance(value, np.ndarray) else value
    yield from add


@pytest.fixture(scope="session")
def quantised(written: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("quantised") / "bundle"
    made = write_quantised_bundle(folder, written, tensors(written.path, written.spec), scores={"BLEU": 1.0},
                                  recipe={"compress": [{"rtn": {"bits": 8}}]})
    return open_bundle(made)


@pytest.mark.parametrize("family", ["glm", "glm4"])
@pytest.mark.parametrize("tied", [False, True])
def test_shapes_are_those_of_transformers(spec: GlmSpec, family: Any, tied: bool) -> None:
    for bias in (False, True):
        one = spec.model_copy(update={"family": family, "tied": tied, "qkv_bias": bias})
        expected = {name: tuple(shape) for name, shape in shapes(one).items() if not tied or name != "lm_head.weight"}
        assert weight_shapes(one) == expected
        assert sum(math.prod(shape) for shape in weight_shapes(one).values()) == one.parameters


def test_a_child_has_all_of_its_parent_but_the_weights(quantised: Bundle, written: Bundle) -> None:
    assert set(quantised.card.files) - set(written.card.files) == {QUANTISED_NAME}
    assert set(written.card.files) - set(quantised.card.files) == {WEIGHTS_NAME}
    assert quantised.card.template == written.card.template
    assert quantised.card.tokenizer == written.card.tokenizer
    assert quantised.card.data == written.card.data
    assert quantised.card.scores == {"BLEU": 1.0}
    assert quantised.card.recipe == {**written.card.recipe, "compress": [{"rtn": {"bits": 8}}]}
    assert set(forms_of(quantised.path).values()) == {(8, 16, True)}
    theirs, ours = ((bundle.path / "tokenizer.json") for bundle in (written, quantised))
    assert read_json(ours) == read_json(theirs)
    assert ours.stat().st_size < theirs.stat().st_size
    assert quantised.tokenizer.fingerprint == quantised.card.tokenizer


def test_the_model_is_the_dequantised_one(quantised: Bundle) -> None:
    model, file = quantised.model(), open_quantised(quantised.path)
    for name in file.names:
        value = file.read(name)
        exact = value.dequantise() if isinstance(value, QuantisedMatrix) else value
        assert np.array_equal(model.state_dict()[name].numpy(), exact)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.generation_config.eos_token_id == list(quantised.spec.eos_ids)
    assert not model.training
    model.train()(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    assert model.model.norm.weight.grad is not None
    half = quantised.model(torch.bfloat16)
    assert half.model.norm.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["copy", "copy.zip", "copy.pkl"])
def test_copies_hold_the_quantised_weights(quantised: Bundle, tmp_path: Path, name: str) -> None:
    opened = open_bundle(export(quantised, tmp_path / name))
    assert opened.card == quantised.card
    assert (opened.path / QUANTISED_NAME).read_bytes() == (quantised.path / QUANTISED_NAME).read_bytes()


def test_a_child_may_be_written_plain_again(quantised: Bundle, tmp_path: Path) -> None:
    plain = write_bundle(tmp_path / "plain", model=quantised.model(), spec=quantised.spec,
                         tokenizer=quantised.tokenizer, template=quantised.template, card_facts={})
    again = open_quantised(write_quantised_bundle(tmp_path / "again", plain.path, tensors(plain.path, plain.spec)))
    assert np.array_equal(again.read("model.norm.weight"), plain.model().model.norm.weight.numpy(force=True))


def test_plain_checkpoints_give_plain_checkpoints(written: Bundle, tmp_path: Path) -> None:
    parent = shutil.copytree(written.path, tmp_path / "plain", ignore=shutil.ignore_patterns("autoglm.json"))
    made = write_quantised_bundle(tmp_path / "child", parent, tensors(parent, written.spec))
    assert {file.name for file in made.iterdir()} == {file.name for file in parent.iterdir()} - {WEIGHTS_NAME} | {
        QUANTISED_NAME}
    model, spec = hf.load(made)
    assert spec == written.spec
    assert model.num_parameters() == written.spec.parameters


def test_another_spec_is_written_down(written: Bundle, tmp_path: Path) -> None:
    small = written.spec.model_copy(update={"layers": 1})
    made = open_bundle(write_quantised_bundle(tmp_path / "small", written, tensors(written.path, small), spec=small))
    assert made.spec == small
    assert made.model().config.num_hidden_layers == 1


WRONG = {"is missing": {"leave": "model.norm.weight"}, "comes twice": {"add": [("x.weight", np.zeros(3, np.float32))]},
         "has shape": {"leave": "model.norm.weight", "add": [("model.norm.weight", np.zeros(3, np.float32))]}}


@pytest.mark.parametrize("fault", WRONG)
def test_other_weights_are_refused_and_nothing_is_left(written: Bundle, tmp_path: Path, fault: str) -> None:
    with pytest.raises(BundleError, match=fault):
        write_quantised_bundle(tmp_path / "child", written, tensors(written.path, written.spec, **WRONG[fault]))
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_doubled_weights_are_refused(quantised: Bundle, written: Bundle, tmp_path: Path) -> None:
    copy = shutil.copytree(quantised.path, tmp_path / "copy")
    shutil.copyfile(written.path / WEIGHTS_NAME, copy / WEIGHTS_NAME)
    with pytest.raises(BundleError, match=r"lacks model\.safetensors|holds model\.safetensors and"):
        open_bundle(copy)
    (copy / WEIGHTS_NAME).unlink()
    raw = bytearray((copy / QUANTISED_NAME).read_bytes())
    raw[-1] ^= 1
    (copy / QUANTISED_NAME).write_bytes(raw)
    with pytest.raises(BundleError, match=f"{QUANTISED_NAME} is damaged"):
        open_bundle(copy)
    (copy / QUANTISED_NAME).unlink()
    with pytest.raises(BundleError, match=f"lacks {QUANTISED_NAME}"):
        open_bundle(copy)


def test_a_model_that_does_not_fit_its_configuration_is_refused(quantised: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(quantised.path, tmp_path / "copy")
    text = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(text.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(BundleError, match=r"model\.layers\.2.* is missing"):
        hf.load(folder)
