"""Freezing: what does not learn has no gradient and no state; gradual thawing; both resume bit for bit."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError
from train_models import random_store, tiny_model

from openautoglm.core.errors import ResourceError, TrainError
from openautoglm.data.pack import collate
from openautoglm.models.hf import Dropouts
from openautoglm.train import states
from openautoglm.train.forward import EAGER, loss_sums, needed_hidden, to_inputs
from openautoglm.train.freeze import Freezer, FreezeSettings, depth
from openautoglm.train.loop import Run, train
from openautoglm.train.settings import TrainSettings

STORE, VALID = random_store(12, 3), random_store(4, 2, seed=5)


def model_of(layers: int = 3, **changes):
    return tiny_model(num_hidden_layers=layers, **changes)


def settings(freeze, **changes) -> TrainSettings:
    usual = {"passes": 3, "batch": 9, "lr": 0.01, "layout": "shared", "tensorboard": False, "ema_decay": 0.9,
             "freeze": freeze}
    return TrainSettings(**(usual | changes))


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def changed(before: dict[str, torch.Tensor], model) -> set[str]:
    return {name for name, value in model.named_parameters() if not torch.equal(before[name], value)}


@pytest.mark.parametrize(("freeze", "still"), [
    ({"layers": 2}, ("model.embed_tokens", "model.layers.0.", "model.layers.1.")),
    ({"layers": 1, "embeddings": False}, ("model.layers.0.",)),
    ({"embeddings": True}, ("model.embed_tokens",)),
    ({"patterns": ["*.mlp.*", "lm_head.*"]}, (".mlp.", "lm_head")),
], ids=["layers", "layers-without-embeddings", "embeddings", "patterns"])
def test_frozen_parts_stay_and_have_neither_gradient_nor_state(freeze, still):
    model = model_of()
    before = weights(model)
    run = Run(model, STORE, None, settings(freeze), None, None)
    list(run.steps())
    frozen = {name for name in before if any(part in name for part in still)}
    assert frozen
    assert changed(before, model) == before.keys() - frozen
    assert all(value.grad is None for name, value in model.named_parameters() if name in frozen)
    held = {name for places in run.optim.layout.values() for name, _, _ in places}
    assert held == before.keys() - frozen
    learnt = sum(flat.numel() for flat in run.optim.flats.values())
    state = sum(value.numel() for name, value in run.optim.moments.tensors().items() if name.startswith("exp_avg."))
    assert state == learnt
    assert learnt < sum(value.numel() for value in before.values())


def test_the_gradient_of_what_learns_is_that_of_full_training():
    (batch,) = collate(STORE, [(number,) for number in range(6)], "bucket", row_tokens=0)
    full, half = model_of(), model_of()
    Freezer(half, FreezeSettings(layers=2))
    for model in (full, half):
        loss_sums(model, to_inputs(batch))[0].backward()
    of_full = dict(full.named_parameters())
    for name, value in half.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(value.grad, of_full[name].grad)
        else:
            assert value.grad is None
            assert of_full[name].grad.abs().sum() > 0


def test_nothing_of_the_frozen_layers_is_kept():
    (batch,) = collate(STORE, [(number,) for number in range(6)], "bucket", row_tokens=0)
    kept = {}
    for layers in (0, 2):
        model, sizes = model_of(), []
        if layers:
            Freezer(model, FreezeSettings(layers=layers))
        mine = {value.data_ptr() for value in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(
                lambda x, mine=mine, sizes=sizes: sizes.append(0 if x.data_ptr() in mine else x.numel()) or x,
                lambda x: x):
            needed_hidden(model, to_inputs(batch), EAGER)
        kept[layers] = sum(sizes)
    assert kept[2] < 0.5 * kept[0]


def test_layers_thaw_from_the_top_and_embeddings_last():
    model = model_of()
    freezer = Freezer(model, FreezeSettings(layers=3, unfreeze={"begin": 0.2, "end": 0.8}))
    assert [freezer.due(progress) for progress in (0, 0.19, 0.2, 0.39, 0.4, 0.6, 0.79, 0.8, 1)] == [
        0, 0, 1, 1, 2, 3, 3, 4, 4]
    seen = []
    for stage in range(1, 5):
        freezer.thaw(stage)
        seen.append([next(part.parameters()).requires_grad
                     for part in (model.model.embed_tokens, *model.model.layers)])
    assert seen == [[False, False, False, True], [False, False, True, True], [False, True, True, True], [True] * 4]
    assert depth(model) == 0


def test_state_appears_when_a_part_thaws():
    model = model_of()
    before = weights(model)
    run = Run(model, STORE, None, settings({"layers": 2, "unfreeze": {"begin": 0.3, "end": 0.6}}), None, None)
    sizes, moved = [], []
    for _ in run.steps():
        sizes.append(sum(value.numel() for value in run.optim.moments.tensors().values()))
        moved.append(len(changed(before, model)))
    assert run.state.thawed == 3
    assert len(set(sizes)) == 4
    assert sizes == sorted(sizes)
    assert moved == sorted(moved)
    assert moved[-1] == len(before)
    assert moved[0] < len(before)


@pytest.mark.parametrize(("freeze", "stop"), [
    ({"layers": 2, "unfreeze": {"begin": 0.2, "end": 0.7}}, 8), ({"layers": 2, "cache": True}, 3),
    ({"layers": 2, "cache": True, "unfreeze": {"begin": 0.4, "end": 0.7}}, 3),
    ({"layers": 2, "cache": True, "unfreeze": {"begin": 0.4, "end": 0.7}}, 8)],
    ids=["gradual", "cache", "both-frozen", "both-thawed"])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, freeze, stop):
    s = settings(freeze, checkpoint_every_steps=2)
    whole, resumed = model_of(), model_of()
    list(train(whole, STORE, VALID, s, tmp_path / "whole"))
    steps = train(model_of(), STORE, VALID, s, tmp_path / "cut")
    for _ in range(stop):
        next(steps)
    steps.close()
    list(train(resumed, STORE, VALID, s, tmp_path / "cut"))
    losses = [[json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
              for name in ("whole", "cut")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 12
    assert changed(weights(whole), resumed) == set()


def test_the_best_weights_from_before_a_thaw_come_back_whole():
    model, before = model_of(), weights(model_of())
    seen, scores = {}, iter([3.0, 1.0, 1.0])

    def hook(model, step):
        seen[step] = weights(model)
        return {"x": next(scores)}

    s = settings({"layers": 2, "unfreeze": {"begin": 0.4, "end": 0.6}}, best_by="x", best_mode="max")
    list(train(model, STORE, None, s, None, on_validate=hook))
    first = seen[min(seen)]
    assert {name for name in before if torch.equal(before[name], first[name])} > {"model.embed_tokens.weight"}
    assert changed(first, model) == set()
    assert not torch.equal(seen[max(seen)]["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


@pytest.mark.parametrize("layout", ["bucket", "packed", "shared"])
def test_the_cache_holds_what_would_be_computed(tmp_path, layout):
    model = model_of()
    s = settings({"layers": 2, "cache": True}, layout=layout, row_tokens=48, accumulation=2)
    run = Run(model, STORE, None, s, tmp_path, None)
    run.frozen = states.FrozenStates(model, STORE, s.freeze, tmp_path, "fp32")
    for batch in collate(STORE, run._plan()[0], layout, row_tokens=48, parts=2):
        start, inputs = run.frozen.start(model, batch), to_inputs(batch)
        assert start.layer == 2
        plain, cached = (loss_sums(model, inputs, start=begin) for begin in (None, start))
        torch.testing.assert_close(cached, plain)
    losses = [[event.loss for event in train(model_of(), STORE, None, settings(freeze, layout=layout), tmp_path / name)]
              for name, freeze in (("with", {"layers": 2, "cache": True}), ("without", {"layers": 2}))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert not (tmp_path / "with" / states.NAME).exists()  # a finished run needs no cache


def test_a_cache_that_was_cut_is_finished_and_a_foreign_one_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr("openautoglm.train.rows.BATCH_TOKENS", 60)
    monkeypatch.setattr("openautoglm.train.rows._FLUSH_EVERY", 2)
    freeze, whole = FreezeSettings(layers=2, cache=True), model_of()
    Freezer(whole, freeze)
    calls = []

    def counted(*args):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return lower(*args)

    lower = states.lower_hidden
    states.FrozenStates(whole, STORE, freeze, tmp_path / "whole", "fp32")
    monkeypatch.setattr(states, "lower_hidden", counted)
    with pytest.raises(KeyboardInterrupt):
        states.FrozenStates(whole, STORE, freeze, tmp_path / "cut", "fp32")
    states.FrozenStates(whole, STORE, freeze, tmp_path / "cut", "fp32")
    files = [(tmp_path / name / states.NAME / "hidden.bin").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    all_batches = len(calls) - 6 + 4
    with torch.no_grad():
        whole.model.layers[0].mlp.down_proj.weight.mul_(2)
    calls[:] = [1] * 10
    states.FrozenStates(whole, STORE, freeze, tmp_path / "cut", "fp32")
    assert len(calls) - 10 == all_batches
    assert (tmp_path / "cut" / states.NAME / "hidden.bin").read_bytes() != files[0]


def test_a_cache_is_refused_where_it_would_lie_or_not_fit(tmp_path):
    freeze = {"layers": 2, "cache": True}
    with pytest.raises(ResourceError, match=r"cache_gib: the cache takes .* GiB, above its bound"):
        list(train(model_of(), STORE, None, settings(freeze | {"cache_gib": 1e-6}), tmp_path))
    with pytest.raises(TrainError, match="needs a folder"):
        list(train(model_of(), STORE, None, settings(freeze), None))
    wet = model_of()
    Dropouts(wet, 0.1)
    for model in (wet, model_of(attention_dropout=0.1)):
        with pytest.raises(TrainError, match="dropout acts in the frozen layers"):
            list(train(model, STORE, None, settings(freeze), tmp_path))


@pytest.mark.parametrize(("freeze", "named"), [
    ({"layers": 4}, "has 3 layers, not 4"), ({"patterns": ["*.experts.*"]}, "no weight matches"),
    ({"layers": 3, "patterns": ["lm_head.*", "model.norm.*"]}, "no trainable parameter")],
    ids=["layers", "pattern", "everything"])
def test_what_cannot_be_frozen_is_named(freeze, named):
    with pytest.raises(TrainError, match=named):
        list(train(model_of(), STORE, None, settings(freeze), None))


@pytest.mark.parametrize("freeze", [
    {}, {"patterns": ["*"], "cache": True}, {"layers": 1, "embeddings": False, "cache": True},
    {"patterns": ["*"], "unfreeze": {}}, {"layers": 1, "unfreeze": {"begin": 0.5, "end": 0.4}}],
    ids=["nothing", "cache-of-a-pattern", "cache-without-embeddings", "unfreeze-a-pattern", "backwards"])
def test_settings_that_do_not_fit_together_are_refused(freeze):
    with pytest.raises(ValidationError):
        FreezeSettings(**freeze)


def test_a_run_from_before_these_settings_has_the_same_identity():
    numbers = TrainSettings().numeric()
    assert not {"freeze", "optimiser_state", "offload"} & numbers.keys()
    assert settings({"layers": 1}).numeric()["freeze"]["layers"] == 1
