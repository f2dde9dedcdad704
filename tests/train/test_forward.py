"""Batches in which samples never see each other; our walk equals the module's own forward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from train_models import random_store, tiny_model

from openautoglm.data.pack import collate
from openautoglm.train.forward import EAGER, bare, compiled, loss_sums, needed_hidden, to_inputs

LAYOUTS = ("bucket", "packed", "shared")


def separate_losses(model, store):
    """Each example alone, by the transformers forward: mean loss per target and the example's logits."""
    losses, logits = [], []
    for index in range(len(store)):
        ids = torch.from_numpy(store[index].astype(np.int64))[None]
        out = model(input_ids=ids, use_cache=False).logits[0]
        prompt = int(store.prompts[index])
        logits.append(out[prompt - 1 : -1])
        losses.append(torch.nn.functional.cross_entropy(logits[-1], ids[0, prompt:], reduction="sum"))
    return losses, logits


def units_of(store, layout):
    if layout != "shared":
        return [(index,) for index in range(len(store))]
    return [tuple(int(i) for i in np.flatnonzero(store.groups == group)) for group in np.unique(store.groups)]


@pytest.mark.parametrize("family", ["glm", "glm4"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("walk", [True, False])
def test_samples_never_see_each_other(family, layout, walk, monkeypatch):
    if not walk:
        monkeypatch.setattr("openautoglm.train.forward._WALKABLE", frozenset())
    model, store = tiny_model(family), random_store(sources=5, references=3)
    expected = torch.cat(separate_losses(model, store)[1])
    (batch,) = collate(store, units_of(store, layout), layout, row_tokens=64)
    inputs = to_inputs(batch)
    hidden = needed_hidden(bare(model), inputs, EAGER)
    if inputs.which is not None:
        hidden = hidden[inputs.which]
    got = model.lm_head(hidden)
    assert got.shape == expected.shape
    torch.testing.assert_close(sort_rows(got, batch.labels), sort_rows(expected, all_targets(store)),
                               rtol=1e-4, atol=1e-5)


def all_targets(store):
    return np.concatenate([store[i][store.prompts[i] :] for i in range(len(store))])


def sort_rows(logits, labels):
    """Order rows by label and first logit, so that layouts can be compared."""
    keys = np.lexsort((logits.detach()[:, 0].numpy().round(3), labels))
    return logits[torch.from_numpy(keys)]


@pytest.mark.parametrize("family", ["glm", "glm4"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_equal_those_of_separate_rows(family, layout):
    model, store = tiny_model(family), random_store(sources=4, references=3)
    sum(separate_losses(model, store)[0]).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    (batch,) = collate(store, units_of(store, layout), layout, row_tokens=48)
    loss_sums(model, to_inputs(batch))[0].backward()
    for name, parameter in model.named_parameters():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5 * scale, msg=name)


def test_shared_rows_compute_fewer_tokens_for_the_same_targets():
    store = random_store(sources=4, references=6, prompt=(20, 21))
    (packed,) = collate(store, units_of(store, "packed"), "packed", row_tokens=128)
    (shared,) = collate(store, units_of(store, "shared"), "shared", row_tokens=128)
    assert packed.real_tokens == shared.real_tokens == store.tokens
    assert sorted(packed.labels) == sorted(shared.labels)
    assert (shared.segments > 0).sum() < 0.5 * (packed.segments > 0).sum()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_recomputing_changes_no_gradient(layout):
    model, store = tiny_model(), random_store(sources=3, references=2)
    (batch,) = collate(store, units_of(store, layout), layout, row_tokens=48)
    grads = []
    for recompute in (False, True):
        model.zero_grad()
        loss_sums(model, to_inputs(batch), recompute=recompute)[0].backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch.compile itself
def test_compiled_halves_change_no_gradient():
    model, store = tiny_model(), random_store(sources=3, references=2)
    (batch,) = collate(store, units_of(store, "shared"), "shared", row_tokens=48)
    grads = []
    for halves in (EAGER, compiled()):
        model.zero_grad()
        loss_sums(model, to_inputs(batch), halves=halves)[0].backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-5 * float(grads[0].abs().max()))
