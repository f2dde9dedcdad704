"""Pruned bundles: what is written, and that a stopped call ends as a whole one does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from openautoglm import Pruner
from openautoglm.compress.prune.masks import read_masks
from openautoglm.compress.prune.settings import PruneSettings, RecoverSettings
from openautoglm.core.errors import BundleError, CheckpointError, CompressError
from openautoglm.core.files import read_json
from openautoglm.data.tokens import TokenStore, store_from_ids
from openautoglm.engine.open import open_engine
from openautoglm.engine.request import Decoding
from openautoglm.models import hf
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.pruning import prune_bundle
from openautoglm.pipeline.recovery import Recovery, recovery_settings
from openautoglm.pipeline.training import drive
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer
from openautoglm.train.settings import TrainSettings

TRAIN = {"lr": 0.01, "tensorboard": False, "compile": "off", "layout": "shared", "minutes": 3, "patience": 2}
TEXTS = [f"The {name} serves {food} food." for name in ("Punter", "Mill", "Vaults", "Wrestlers")
         for food in ("Thai", "French", "Indian", "Greek")]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 300)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Bundle:
    shape = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn_size": 96}
    spec = GlmSpec(vocab_size=8, tied=True, max_positions=128, **shape).with_vocabulary(
        tokenizer.vocab_size, pad_id=tokenizer.pad_id, eos_ids=(tokenizer.special["<|endoftext|>"],))
    return write_bundle(tmp_path_factory.mktemp("parent") / "bundle", model=hf.build(spec, seed=1), spec=spec,
                        tokenizer=tokenizer, template=Template(kind="pair"),
                        card_facts={"data": "abc", "scores": {"BLEU": 1.5}, "recipe": {"train": TRAIN, "seed": 1}})


@pytest.fixture(scope="module")
def data(tokenizer: Tokenizer) -> Recovery:
    def store(texts: list[str]) -> TokenStore:
        return store_from_ids((tokenizer.encode(text), 2) for text in texts)

    return Recovery(store(TEXTS), store(TEXTS[:4]))


def settings(**changes: Any) -> PruneSettings:
    recover = RecoverSettings(passes=2, step_passes=1, batch=8, ema_decay=0.9, checkpoint_every_minutes=1e-6)
    return PruneSettings(**{"score": "gradient", "recover": recover, **changes})


def weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    return dict(bundle.model().state_dict())


def equal(one: Bundle, other: Bundle) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_pruned_bundle_is_smaller_and_says_what_is_gone(tmp_path: Path, parent: Bundle, data: Recovery) -> None:
    bundle = prune_bundle(parent, tmp_path / "out", settings(), data)
    assert not (tmp_path / "out.work").exists()
    spec = bundle.spec
    assert (spec.layers, spec.heads, spec.kv_heads, spec.ffn_size) == (2, 2, 1, 64)
    opened = open_bundle(bundle.path)
    (entry,) = opened.card.recipe["compress"]
    assert (opened.card.scores, opened.card.data, opened.card.recipe["seed"]) == ({}, "abc", 1)
    assert entry["before"]["heads"] == 4
    assert entry["after"] == {"layers": 2, "heads": 2, "kv_heads": 1, "ffn_size": 64, "parameters": spec.parameters}
    assert [len(gone) for gone in entry["removed"]["heads"]] == [2, 2]
    assert entry["recovered"]["steps"] == 4
    assert entry["recovered"]["valid_loss"] > 0
    assert len(read_json(bundle.path / "pruned.json")["channels"][0]) == 64
    ids = torch.arange(12)[None]
    assert torch.equal(AutoModelForCausalLM.from_pretrained(bundle.path)(ids).logits, opened.model()(ids).logits)
    (answer,) = open_engine(bundle.path).generate([[1, 2, 3]], Decoding(max_new_tokens=1))
    with torch.inference_mode():
        assert answer[0].ids[0] == int(opened.model()(torch.tensor([[1, 2, 3]])).logits[0, -1].argmax())
    again = prune_bundle(bundle, tmp_path / "again", settings(sparsity=0.5, heads=0.0), data)
    assert [entry["after"]["ffn_size"] for entry in again.card.recipe["compress"]] == [64, 32]


@pytest.mark.parametrize("form", ["unstructured", "2:4"])
def test_masks_are_kept_through_recovery(tmp_path: Path, parent: Bundle, data: Recovery, form: str) -> None:
    bundle = prune_bundle(parent, tmp_path / "out", settings(form=form, score="sparsegpt", sparsity=0.5), data)
    model = bundle.model()
    masks = read_masks(bundle.path, model)
    assert masks is not None
    assert "masks.safetensors" in bundle.card.files
    assert bundle.card.recipe["compress"][0]["zeros"] == pytest.approx(0.5, abs=0.01)
    name = "model.layers.0.mlp.down_proj.weight"
    assert float((model.state_dict()[name] == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert not torch.equal(model.state_dict()[name], weights(parent)[name] * masks[name])
    later = prune_bundle(bundle, tmp_path / "later", settings(sparsity=0.3, heads=0.0), data)
    assert read_masks(later.path, later.model())


class Stopping:
    """Trains as `drive`, but stops like a kill after some optimiser steps of all calls together."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, *args: Any, **options: Any) -> Iterator[Any]:
        for event in drive(*args, **options):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            yield event


@pytest.mark.slow
@pytest.mark.parametrize(("form", "after"), [("structured", 0), ("structured", 1), ("structured", 4),
                                             ("unstructured", 2), ("unstructured", 5)],
                         ids=["before", "in-first", "in-last", "between-sparse", "in-last-sparse"])
def test_a_stopped_call_ends_as_a_whole_one(tmp_path: Path, parent: Bundle, data: Recovery, form: str,
                                            after: int) -> None:
    asked = settings(form=form, steps=2, multiple=16, sparsity=0.6)
    whole = prune_bundle(parent, tmp_path / "whole", asked, data)
    with pytest.raises(KeyboardInterrupt):
        prune_bundle(parent, tmp_path / "out", asked, data, learn=Stopping(after))
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.work").is_dir()
    resumed = prune_bundle(parent, tmp_path / "out", asked, data)
    assert equal(resumed, whole)
    assert resumed.card.recipe == whole.card.recipe


def test_a_finished_bundle_is_not_made_again(tmp_path: Path, parent: Bundle, data: Recovery) -> None:
    made = prune_bundle(parent, tmp_path / "out", settings(), data)
    again = prune_bundle(parent, tmp_path / "out", settings(), data, learn=Stopping(0))
    assert again.card.created == made.card.created
    with pytest.raises(KeyboardInterrupt):
        prune_bundle(parent, tmp_path / "out", settings(sparsity=0.3), data, learn=Stopping(0))
    other = prune_bundle(parent, tmp_path / "out", settings(sparsity=0.3, heads=0.0), data)
    assert other.spec.heads == 4


def test_a_gradual_schedule_trains_between(tmp_path: Path, parent: Bundle, data: Recovery) -> None:
    asked: list[tuple[str, float | None, int]] = []

    def learn(model: Any, train: Any, valid: Any, how: TrainSettings, *args: Any, **options: Any) -> Iterator[Any]:
        asked.append((options["label"], how.passes, model.config.intermediate_size))
        yield from drive(model, train, valid, how, *args, **options)

    prune_bundle(parent, tmp_path / "out", settings(steps=3, multiple=8, sparsity=0.5), data, learn=learn)
    # heads go in the first step; of the channels 0.35, 0.48 and 0.5 round to 64, 48 and 48
    assert asked == [("recover 1/3", 1.0, 64), ("recover 2/3", 1.0, 48), ("recover 3/3", 2.0, 48)]


def test_recovery_is_the_parents_training_but_gentler(parent: Bundle) -> None:
    found = recovery_settings(RecoverSettings(), parent.card, 3)
    assert (found.passes, found.minutes, found.batch, found.lr) == (3, None, 32, 0.005)
    assert (found.layout, found.patience, found.ema_decay) == ("shared", None, 0.99)
    assert recovery_settings(RecoverSettings(lr=1e-4), parent.card, 3).lr == 1e-4
    exported = parent.card.model_copy(update={"recipe": {"plan": {"train": {"lr": 0.04}}}})
    assert recovery_settings(RecoverSettings(), exported, 3).lr == 0.02
    broken = parent.card.model_copy(update={"recipe": {"train": {"lr": -1}}})
    with pytest.raises(CompressError, match="training settings cannot be read"):
        recovery_settings(RecoverSettings(), broken, 3)


def test_what_is_missing_is_said(tmp_path: Path, parent: Bundle) -> None:
    with pytest.raises(CompressError, match="no tokens to recover with"):
        prune_bundle(parent, tmp_path / "out", settings(score="l1"))
    with pytest.raises(CompressError, match="measured on examples"):
        prune_bundle(parent, tmp_path / "out", settings(recover=RecoverSettings(passes=0)))
    with pytest.raises(CompressError, match="holds no tokens"):
        Recovery.of(tmp_path)
    with pytest.raises(BundleError, match="does not exist"):
        prune_bundle(tmp_path / "none", tmp_path / "out", settings())
    made = prune_bundle(parent, tmp_path / "out", settings(score="l1", recover=RecoverSettings(passes=0)))
    assert made.card.recipe["compress"][0]["recovered"] == {}


def test_the_pruner_takes_bundles_checkpoints_and_models(tmp_path: Path, parent: Bundle, data: Recovery) -> None:
    model = parent.model()
    plain = tmp_path / "plain"
    model.save_pretrained(plain)
    parent.tokenizer.save(plain)
    sizes = set()
    for given in (parent, str(parent.path), plain, model):
        pruned = Pruner(given, sparsity=0.4, method="l1").apply()
        assert pruned.facts["removed"]["channels_per_layer"] == 32
        sizes.add(sum(p.numel() for p in pruned.model.parameters()))
        written = pruned.save(tmp_path / "saved", tokenizer=None if given is not model else parent.tokenizer)
        assert open_bundle(written.path).spec == pruned.spec
    assert sizes == {pruned.spec.parameters}
    with pytest.raises(CompressError, match="needs a tokenizer"):
        pruned.save(tmp_path / "saved")
    built = Pruner(parent, method="wanda", data=data, recover=RecoverSettings(passes=1)).build(tmp_path / "built")
    assert built.spec == pruned.spec
    with pytest.raises(CompressError, match="only a bundle"):
        Pruner(model).build(tmp_path / "built")
    assert set(Pruner(model, 0.5, "magnitude").apply().masks) == set(Pruner(model, 0.5, "sparsegpt",
                                                                            data=data).apply().masks)


@pytest.mark.parametrize(("given", "options", "match"), [
    (None, {"sparsity": 1.5}, "sparsity: Input should be less than 1"), (None, {"method": "best"}, "score"),
    (None, {"unknown": 1}, "unknown"), (torch.nn.Linear(2, 2), {}, "a Linear is no model")],
    ids=["sparsity", "method", "option", "model"])
def test_faulty_calls_are_refused(parent: Bundle, given: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(CompressError, match=match):
        Pruner(given or parent, **options)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, parent: Bundle, data: Recovery) -> None:
    with pytest.raises(KeyboardInterrupt):
        prune_bundle(parent, tmp_path / "out", settings(), data, learn=Stopping(3))
    with pytest.raises(CheckpointError, match="lr is"):
        prune_bundle(parent, tmp_path / "out", settings(), data, learn=_faster)


def _faster(model: Any, train: Any, valid: Any, how: TrainSettings, *args: Any, **options: Any) -> Iterator[Any]:
    yield from drive(model, train, valid, how.model_copy(update={"lr": 1.0}), *args, **options)
