"""A student's training: what is learnt of the teacher, kept probabilities, projections, resume, the first weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from train_models import VOCABULARY, random_store, tiny_model

from openautoglm.core.errors import ResourceError, TrainError
from openautoglm.data.pack import collate
from openautoglm.models import hf
from openautoglm.models.spec import GlmSpec
from openautoglm.train.distil import LOGITS, Distil
from openautoglm.train.distil_settings import DistilLoss
from openautoglm.train.forward import bare, loss_sums, to_inputs
from openautoglm.train.loop import train
from openautoglm.train.settings import TrainSettings
from openautoglm.train.student import initialise

STORE, VALID = random_store(12, 3), random_store(4, 2, seed=5)


def teacher_model():
    return tiny_model(num_hidden_layers=4)


def student_model():
    return tiny_model(num_hidden_layers=2, hidden_size=16, head_dim=4, initializer_range=0.1)


def settings(**changes) -> TrainSettings:
    usual = {"passes": 3, "batch": 9, "lr": 0.01, "layout": "shared", "tensorboard": False, "ema_decay": 0.9}
    return TrainSettings(**(usual | changes))


def goal_of(student, **changes) -> Distil:
    return Distil(teacher_model(), student, DistilLoss(**changes), name="teacher", smoothing=0.0, seed=0)


def batch_of(layout="shared"):
    units = [(0, 1, 2), (3, 4, 5)] if layout == "shared" else [(0,), (3,)]
    (batch,) = collate(STORE, units, layout, row_tokens=48)
    return batch


def logits_at_targets(model, store):
    """Plain logits of every target token, example after example."""
    rows = []
    for number in range(len(store)):
        ids = torch.from_numpy(store[number].astype("int64"))[None]
        rows.append(model(input_ids=ids).logits[0, int(store.prompts[number]) - 1 : -1])
    return torch.cat(rows)


@pytest.mark.parametrize("layout", ["bucket", "shared"])
def test_the_objective_is_that_of_plain_forwards(layout):
    student, batch = student_model(), batch_of(layout)
    goal = goal_of(student, alpha=0.6, temperature=2.0)
    objective, nll = goal(student, batch, to_inputs(batch), recompute=False, halves=None, start=None)
    objective.backward()
    members = (0, 1, 2, 3, 4, 5) if layout == "shared" else (0, 3)
    expected = 0.0
    for number in members:
        ids, prompt = torch.from_numpy(STORE[number].astype("int64")), int(STORE.prompts[number])
        mine, theirs = (model(input_ids=ids[None]).logits[0, prompt - 1 : -1] for model in (student, goal.teacher))
        hard = F.cross_entropy(mine, ids[prompt:], reduction="sum")
        soft = F.kl_div(F.log_softmax(mine / 2, -1), F.log_softmax(theirs / 2, -1), reduction="sum", log_target=True)
        expected = expected + 0.4 * hard + 0.6 * 4 * soft
    torch.testing.assert_close(objective, expected, rtol=1e-4, atol=1e-3)
    assert float(nll) == pytest.approx(float(loss_sums(student, to_inputs(batch))[1]), rel=1e-5)
    assert all(parameter.grad is None for parameter in goal.teacher.parameters())
    assert student.model.embed_tokens.weight.grad.abs().sum() > 0


def test_kept_probabilities_are_the_teachers_and_it_runs_once(tmp_path, monkeypatch):
    student = student_model()
    goal = goal_of(student, alpha=1.0, temperature=1.5, top_k=5)
    goal.prepare(STORE, tmp_path, "fp32")
    files, _ = goal._top
    with torch.no_grad():
        best = (logits_at_targets(goal.teacher, STORE) / 1.5).softmax(-1).topk(5, -1)
    every = np.arange(len(best.values))
    torch.testing.assert_close(torch.from_numpy(files.read("shares", every)).float(), best.values, rtol=2e-3, atol=1e-4)
    assert (torch.from_numpy(files.read("ids", every).astype("int64")) == best.indices).float().mean() > 0.99
    monkeypatch.setattr(goal, "_teacher_hidden", lambda *_: pytest.fail("the teacher runs again"))
    goal.prepare(STORE, tmp_path, "fp32")
    batch = batch_of()
    objective, _ = goal(student, batch, to_inputs(batch), recompute=False, halves=None, start=None)
    assert float(objective.detach()) > 0


def test_all_kept_probabilities_train_as_the_live_teacher_does(tmp_path):
    losses = []
    for number, top_k in enumerate((None, VOCABULARY)):
        student = student_model()
        goal = goal_of(student, alpha=0.8, top_k=top_k)
        losses.append([event.loss for event in train(student, STORE, None, settings(), tmp_path / str(number),
                                                     goal=goal)])
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    assert not (tmp_path / "1" / LOGITS).exists()


def test_a_student_comes_nearer_to_its_teacher():
    def distance(student):
        with torch.no_grad():
            mine, theirs = (F.log_softmax(logits_at_targets(model, STORE), -1) for model in (student, teacher_model()))
        return float(F.kl_div(mine, theirs, reduction="batchmean", log_target=True))

    alone, taught = student_model(), student_model()
    list(train(alone, STORE, None, settings(passes=5), None))
    list(train(taught, STORE, None, settings(passes=5), None, goal=goal_of(taught, alpha=1.0, temperature=1.0)))
    assert distance(taught) < 0.8 * min(distance(alone), distance(student_model()))


def test_features_learn_through_projections_that_stay_outside():
    student = student_model()
    goal = goal_of(student, alpha=0.0, features=3.0)
    assert goal._pairs == [(0, 1), (1, 3)]
    batch = batch_of()
    inputs = to_inputs(batch)
    objective, _ = goal(student, batch, inputs, recompute=False, halves=None, start=None)
    plain = loss_sums(student, inputs)[0]
    mine = student.model(inputs.ids[None], attention_mask=_mask(inputs), position_ids=inputs.positions[None],
                         output_hidden_states=True)
    theirs = goal.teacher.model(inputs.ids[None], attention_mask=_mask(inputs), position_ids=inputs.positions[None],
                                output_hidden_states=True)
    rows = inputs.needed[inputs.which]
    expected = _feature_error(mine.hidden_states[1][0][rows], theirs.hidden_states[2][0][rows], goal.module[0])
    torch.testing.assert_close(_tapped(goal, student, batch, 0), expected, rtol=1e-4, atol=1e-4)
    assert float(objective.detach()) > float(plain.detach())
    before = [one.weight.detach().clone() for one in goal.module]
    names = set(student.state_dict())
    list(train(student, STORE, None, settings(), None, goal=goal))
    assert set(student.state_dict()) == names
    assert not any(torch.equal(one.weight, old) for one, old in zip(goal.module, before, strict=True))


def _mask(inputs):
    """All blocks of the batch in one row, each seeing itself only."""
    total = len(inputs.ids)
    whole = torch.zeros(total, total, dtype=torch.bool)
    start = 0
    for (rows, width), mask in zip(inputs.blocks, inputs.masks, strict=True):
        for row in range(rows):
            span = slice(start, start + width)
            whole[span, span] = torch.ones(width, width).tril().bool() if mask is None else mask[row, 0]
            start += width
    whole |= torch.eye(total, dtype=torch.bool)
    return whole[None, None]


def _feature_error(mine, theirs, projection):
    goal = theirs / (theirs.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return (projection(mine) - goal).square().mean(-1).sum().detach()


def _tapped(goal, student, batch, pair):
    """The error of one pair, as the goal computes it."""
    one = goal_of(student, alpha=0.0, features=1.0, layers=((pair + 1, goal._pairs[pair][1] + 1),))
    one.module[0].weight.data.copy_(goal.module[pair].weight)
    inputs = to_inputs(batch)
    objective, _ = one(student, batch, inputs, recompute=False, halves=None, start=None)
    return (objective - loss_sums(student, inputs)[0]).detach()


@pytest.mark.parametrize(("how", "state"), [
    ({"alpha": 0.5, "top_k": 6}, "fp32"), ({"alpha": 0.3, "features": 0.5}, "8bit")], ids=["kept", "features"])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, how, state):
    s = settings(checkpoint_every_steps=2, accumulation=2, label_smoothing=0.1, optimiser_state=state)
    whole, cut, resumed = student_model(), student_model(), student_model()
    list(train(whole, STORE, VALID, s, tmp_path / "whole", goal=goal_of(whole, **how)))
    steps = train(cut, STORE, VALID, s, tmp_path / "cut", goal=goal_of(cut, **how))
    for _ in range(5):
        next(steps)
    steps.close()
    list(train(resumed, STORE, VALID, s, tmp_path / "cut", goal=goal_of(resumed, **how)))
    losses = [[json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
              for name in ("whole", "cut")]
    assert losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_another_teacher_makes_another_run(tmp_path):
    student = student_model()
    steps = train(student, STORE, None, settings(checkpoint_every_steps=1), tmp_path, goal=goal_of(student))
    next(steps), next(steps)
    steps.close()
    other = goal_of(student)
    other.identity = {**other.identity, "teacher": "other"}
    with pytest.raises(TrainError, match="teacher is 'other', was 'teacher'"):
        next(iter(train(student_model(), STORE, None, settings(), tmp_path, goal=other)))


def test_what_cannot_be_is_named(tmp_path):
    student = student_model()
    for pairs, named in ((((3, 1),), "no pair of layers 3 and 1"), (((1, 9),), "no pair"),
                         (((1, 1), (1, 2)), "two pairs")):
        with pytest.raises(TrainError, match=named):
            goal_of(student, features=1.0, layers=pairs)
    with pytest.raises(ResourceError, match=r"distill\.cache_gib"):
        goal_of(student, top_k=4, cache_gib=1e-9).prepare(STORE, tmp_path, "fp32")
    with pytest.raises(TrainError, match="need a folder"):
        goal_of(student, top_k=4).prepare(STORE, None, "fp32")
    cached = settings(freeze={"layers": 2, "cache": True})
    deep = tiny_model(num_hidden_layers=3)
    with pytest.raises(TrainError, match="frozen and cached"):
        list(train(deep, STORE, None, cached, tmp_path / "x", goal=goal_of(deep, features=1.0)))


SPEC = GlmSpec(vocab_size=64, hidden_size=32, layers=4, heads=4, kv_heads=2, head_dim=8, ffn_size=48, rotary_factor=0.5)


def test_an_equal_student_is_its_teacher():
    teacher, student = hf.build(SPEC, seed=0), hf.build(SPEC, seed=1)
    initialise(student, SPEC, teacher, SPEC)
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), student.parameters(), strict=True))


def test_layers_are_chosen_evenly_and_the_head_with_them():
    spec = SPEC.model_copy(update={"layers": 2})
    teacher, student = hf.build(SPEC, seed=0), hf.build(spec, seed=1)
    initialise(student, spec, teacher, SPEC)
    for mine, theirs in ((0, 1), (1, 3)):
        pairs = zip(student.model.layers[mine].parameters(), teacher.model.layers[theirs].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(student.lm_head.weight, teacher.lm_head.weight)


def test_what_is_cut_away_was_empty_then_nothing_is_lost():
    """A teacher whose upper channels, heads and rows are zero is the same model after they are cut."""
    teacher = hf.build(SPEC, seed=0)
    narrow = SPEC.model_copy(update={"ffn_size": 24, "heads": 2, "kv_heads": 1, "layers": 4})
    with torch.no_grad():
        for layer in teacher.model.layers:
            layer.mlp.gate_up_proj.weight.view(2, 48, 32)[:, 24:] = 0
            layer.mlp.down_proj.weight[:, 24:] = 0
            layer.self_attn.o_proj.weight[:, 16:] = 0
    student = hf.build(narrow, seed=1)
    initialise(student, narrow, teacher, SPEC)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(student(ids).logits, teacher(ids).logits, rtol=1e-4, atol=1e-4)


def test_the_greatest_channels_stay():
    teacher, narrow = hf.build(SPEC, seed=0), SPEC.model_copy(update={"hidden_size": 8})
    loud = torch.tensor([1, 5, 6, 11, 17, 20, 29, 31])
    with torch.no_grad():
        teacher.model.embed_tokens.weight[:, loud] *= 10
    student = hf.build(narrow, seed=1)
    initialise(student, narrow, teacher, SPEC)
    assert torch.equal(student.model.embed_tokens.weight, teacher.model.embed_tokens.weight[:, loud])
    assert torch.equal(student.model.layers[2].mlp.down_proj.weight, teacher.model.layers[2].mlp.down_proj.weight[loud])


@pytest.mark.parametrize("change", [
    {"hidden_size": 64}, {"layers": 5}, {"family": "glm4"}, {"head_dim": 8, "rotary_factor": 1.0}],
    ids=["wider", "deeper", "family", "rotary"])
def test_a_larger_student_is_refused(change):
    spec = GlmSpec(**{**SPEC.model_dump(), **change})
    with pytest.raises(TrainError, match=r"distill\.initialise"):
        initialise(hf.build(spec, seed=0), spec, hf.build(SPEC, seed=0), SPEC)


def test_a_wrapped_head_is_refused():
    pytest.importorskip("peft")
    from openautoglm.train.lora import LoraSettings, add_lora

    student = add_lora(student_model(), LoraSettings(rank=2, targets=("lm_head",)))
    batch = batch_of()
    with pytest.raises(TrainError, match="head is wrapped"):
        goal_of(bare(student))(student, batch, to_inputs(batch), recompute=False, halves=None, start=None)
