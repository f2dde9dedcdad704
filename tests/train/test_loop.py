"""The loop: equal gradients under accumulation, limits, validation, the best weights, early stopping, EMA."""

from __future__ import annotations

import json

import pytest
import torch
from train_models import random_store, tiny_model

from openautoglm.core.errors import TrainError
from openautoglm.data.pack import plan_pass
from openautoglm.train.loop import Run, train
from openautoglm.train.settings import TrainSettings
from openautoglm.train.validate import valid_loss


def settings(**changes):
    usual = {"passes": 2, "batch": 8, "row_tokens": 48, "lr": 0.01, "tensorboard": False}
    return TrainSettings(**(usual | changes))


@pytest.mark.parametrize("layout", ["bucket", "packed", "shared"])
def test_accumulation_gives_the_gradient_of_one_batch(layout):
    store = random_store(8, 4)
    gradients = []
    for parts in (1, 4):
        s = settings(batch=32, layout=layout, accumulation=parts, clip_norm=None, label_smoothing=0.1)
        run = Run(tiny_model(), store, None, s, None, None)
        (units,) = plan_pass(store, layout, seed=0, number=0, batch=32)
        run._step(units, 1)
        gradients.append(torch.cat([flat.grad for flat in run.optim.flats.values()]))
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


def test_every_limit_ends_the_run_and_the_rate_falls_to_zero():
    store = random_store(8, 2)
    for limit in ({"passes": 1.5}, {"passes": None, "tokens": int(1.5 * store.tokens)}):
        events = list(train(tiny_model(), store, None, settings(**limit), None))
        assert len(events) in (3, 4)
        assert events[-1].progress == 1
        assert events[-1].lr == pytest.approx(0, abs=1e-9)
    timed = list(train(tiny_model(), store, None, settings(passes=None, minutes=0.01), None))
    assert timed[-1].elapsed_s >= 0.6


def test_no_limit_is_refused():
    with pytest.raises(ValueError, match="never ends"):
        settings(passes=None)


def test_events_and_metrics_agree(tmp_path):
    store = random_store(8, 2)
    events = list(train(tiny_model(), store, store, settings(), tmp_path,
                        on_validate=lambda model, step: {"bleu": 0.5}))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == [event.loss for event in events]
    assert events[-1].tokens == 2 * store.tokens
    assert events[-1].target_tokens == 2 * store.target_tokens
    assert [event.valid_loss is None for event in events] == [True, False, True, False]
    assert events[-1].metrics == {"bleu": 0.5}


def test_the_best_weights_are_restored_and_patience_ends(tmp_path):
    store, scores = random_store(8, 2), iter([1.0, 3.0, 2.0, 2.5])
    seen = {}

    def hook(model, step):
        seen[step] = {name: value.clone() for name, value in model.state_dict().items()}
        return {"bleu": next(scores)}

    for folder in (None, tmp_path):
        scores = iter([1.0, 3.0, 2.0, 2.5])
        model = tiny_model()
        events = list(train(model, store, None, settings(passes=9, best_by="bleu", patience=2), folder,
                            on_validate=hook))
        assert len(events) == 8
        assert [event.best for event in events if event.metrics] == [True, True, False, False]
        assert all(torch.equal(value, seen[4][name]) for name, value in model.state_dict().items())


def test_a_metric_that_is_not_there_is_named():
    with pytest.raises(TrainError, match="no 'bleu'"):
        list(train(tiny_model(), random_store(8, 2), None, settings(best_by="bleu"), None,
                   on_validate=lambda model, step: {"chrf": 1.0}))


def test_the_average_is_validated_and_kept():
    store, model = random_store(8, 2), tiny_model()
    seen = []

    def hook(model, step):
        seen.append(torch.cat([p.detach().flatten() for p in model.parameters()]).clone())
        return {"x": float(step)}

    run = list(train(model, store, None, settings(passes=3, ema_decay=0.9, best_by="x", best_mode="max"), None,
                     on_validate=hook))
    assert len(run) == 6
    kept = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.equal(kept, seen[-1])
    plain = tiny_model()
    list(train(plain, store, None, settings(passes=3), None))
    assert not torch.equal(kept, torch.cat([p.detach().flatten() for p in plain.parameters()]))


def logits_of(model, ids):
    return model(input_ids=torch.from_numpy(ids.astype("int64"))[None]).logits[0]


def test_training_learns_and_validation_is_the_mean_over_targets():
    store, model = random_store(6, 2), tiny_model()
    before = valid_loss(model, store)
    expected = sum(
        torch.nn.functional.cross_entropy(
            logits_of(model, store[i])[store.prompts[i] - 1 : -1],
            torch.from_numpy(store[i][store.prompts[i] :].astype("int64")), reduction="sum")
        for i in range(len(store))) / store.target_tokens
    assert before == pytest.approx(float(expected.detach()), rel=1e-5)
    list(train(model, store, None, settings(passes=20, layout="shared"), None))
    assert valid_loss(model, store) < 0.7 * before


def test_a_loss_that_is_not_finite_stops_with_the_weights_as_before():
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("inf"))
    with pytest.raises(TrainError, match="not finite"):
        list(train(model, random_store(4, 2), None, settings(), None))


def test_attention_dropout_and_hooks_are_seeded():
    runs = []
    for seed in (0, 0, 1):
        model = tiny_model(attention_dropout=0.2)
        model.model.embed_tokens.register_forward_hook(
            lambda module, _, output: torch.nn.functional.dropout(output, 0.2, training=module.training))
        events = train(model, random_store(8, 2), None, settings(seed=seed), None)
        runs.append([event.loss for event in events])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_bf16_stays_close_to_fp32():
    runs = [train(tiny_model(), random_store(8, 2), None, settings(precision=precision), None)
            for precision in ("fp32", "bf16")]
    losses = [[event.loss for event in run] for run in runs]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]
