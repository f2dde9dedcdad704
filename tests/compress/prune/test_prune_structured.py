"""Structured pruning: shapes shrink, and what is left computes what the whole model does with the rest at zero."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prune_models import FORM_NAMES, FORMS, logits, random_batches, random_examples, random_model, small_spec, zeroed
from transformers import AutoModelForCausalLM

from openautoglm.compress.prune.compensate import compensated
from openautoglm.compress.prune.examples import example_batches, loss_sum
from openautoglm.compress.prune.observe import block_influence, input_effects
from openautoglm.compress.prune.prune import prune
from openautoglm.compress.prune.settings import PruneSettings
from openautoglm.compress.prune.structure import Cut
from openautoglm.core.errors import CompressError
from openautoglm.data.tokens import store_from_ids
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.runtime.load import load_program

SCORES = ["l1", "l2", "wanda", "gradient", "random"]


def settings(**changes) -> PruneSettings:
    return PruneSettings(**{"sparsity": 0.5, "score": "l1", **changes})


@pytest.mark.parametrize(("family", "tied", "bias"), FORMS, ids=FORM_NAMES)
@pytest.mark.parametrize("by", ["groups", "queries"])
def test_removing_is_zeroing(family: str, tied: bool, bias: bool, by: str) -> None:
    spec = small_spec(family=family, tied=tied, qkv_bias=bias)
    model = random_model(spec)
    before = logits(model)
    pruned = prune(model, spec, settings(heads_by=by, layers=0.34), random_batches(spec))
    assert (pruned.spec.layers, pruned.spec.ffn_size, pruned.spec.heads) == (2, 64, 4)
    assert pruned.spec.kv_heads == (2 if by == "groups" else 4)
    assert sum(p.numel() for p in pruned.model.parameters()) == pruned.spec.parameters
    assert pruned.cut is not None
    torch.testing.assert_close(logits(pruned.model), logits(zeroed(model, spec, pruned.cut)), rtol=1e-4, atol=1e-4)
    assert (logits(pruned.model) - before).abs().max() > 0.1
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize(("family", "tied", "bias"), FORMS, ids=FORM_NAMES)
def test_transformers_and_the_engine_agree_on_what_is_written(tmp_path: Path, family: str, tied: bool,
                                                              bias: bool) -> None:
    spec = small_spec(family=family, tied=tied, qkv_bias=bias)
    pruned = prune(random_model(spec), spec, settings())
    pruned.model.save_pretrained(tmp_path)
    theirs = logits(AutoModelForCausalLM.from_pretrained(tmp_path))
    assert torch.equal(theirs, logits(pruned.model))
    program = load_program(tmp_path, "torch:cpu", cache="fp32", page_size=16, pages=4)
    layout = lay_out([Part(20, 0, [0, 1])], page_size=16, pages=4)
    ours = program.step(torch.arange(20).int().numpy(), layout.positions, layout, layout.positions)
    torch.testing.assert_close(torch.from_numpy(ours), theirs[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("score", SCORES)
def test_every_score_finds_what_adds_nothing(score: str) -> None:
    spec = small_spec()
    model, dead = random_model(spec), slice(16, 48)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate_up_proj.weight[dead] = layer.mlp.gate_up_proj.weight[96 + 16 : 96 + 48] = 0
            layer.mlp.down_proj.weight[:, dead] = 0
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                width = part.out_features // 4
                part.weight[width : 2 * width] = part.bias[width : 2 * width] = 0
            layer.self_attn.o_proj.weight[:, 32:64] = 0
    pruned = prune(model, spec, settings(score=score, sparsity=0.3, heads=0.25), random_batches(spec))
    same = torch.allclose(logits(pruned.model), logits(model), rtol=1e-4, atol=1e-4)
    assert same == (score != "random")
    assert pruned.cut is not None
    assert (pruned.cut.kv_heads[0] == (0, 2, 3)) == (score != "random")


def test_chance_is_seeded() -> None:
    spec = small_spec()
    model = random_model(spec)
    cuts = [prune(model, spec, settings(score="random", seed=seed)).cut for seed in (1, 1, 2)]
    assert cuts[0] == cuts[1]
    assert cuts[0] != cuts[2]


def test_an_effect_is_the_change_of_the_loss_to_first_order() -> None:
    spec = small_spec(layers=1)
    model = random_model(spec)
    batch = example_batches(random_examples(1), spec, 1)[0]
    matrix = model.model.layers[0].mlp.down_proj
    (effects,) = input_effects(model, [batch], [(matrix, 1)])
    with torch.no_grad():
        whole, step = float(loss_sum(model, batch).double()), 1e-2
        for channel in (3, 40, 77):
            kept = matrix.weight[:, channel].clone()
            matrix.weight[:, channel] *= 1 - step
            change = (float(loss_sum(model, batch).double()) - whole) / step
            matrix.weight[:, channel] = kept
            assert abs(change) == pytest.approx(float(effects[channel].sqrt()), rel=0.1, abs=2e-3)


def test_padding_changes_no_score() -> None:
    spec = small_spec()
    model, store = random_model(spec), random_examples(12)
    together = example_batches(store, spec, 12)
    alone = [batch for row in range(12) for batch in _single(store, row, spec)]
    assert len(together) < len(alone)
    for score in ("wanda", "gradient"):
        cuts = [prune(model, spec, settings(score=score), batches).cut for batches in (together, alone)]
        assert cuts[0] == cuts[1]


def _single(store, row: int, spec):
    return example_batches(store_from_ids([(store[row].tolist(), int(store.prompts[row]))]), spec, 1)


def test_the_layer_that_changes_nothing_goes_first() -> None:
    spec = small_spec(family="glm4")
    model = random_model(spec)
    with torch.no_grad():
        model.model.layers[1].post_self_attn_layernorm.weight.mul_(1e-3)
        model.model.layers[1].post_mlp_layernorm.weight.mul_(1e-3)
    influence = block_influence(model, random_batches(spec))
    assert int(influence.argmin()) == 1
    pruned = prune(model, spec, settings(ffn=0, heads=0, layers=0.34), random_batches(spec))
    assert pruned.cut is not None
    assert pruned.cut.layers == (0, 2)
    torch.testing.assert_close(logits(pruned.model), logits(model), rtol=0.05, atol=0.05)


def test_what_stays_takes_over_what_follows_from_it() -> None:
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(200, 8, generator=generator)
    x = few @ torch.randn(8, 24, generator=generator) + 0.01 * torch.randn(200, 24, generator=generator)
    weight, stay = torch.randn(16, 24, generator=generator), torch.arange(12)
    new = compensated(weight, x.t() @ x, stay, 1e-4)
    whole, dropped, mended = x @ weight.t(), x[:, stay] @ weight[:, stay].t(), x[:, stay] @ new.t()
    assert (mended - whole).norm() < 0.05 * (dropped - whole).norm()


def test_compensating_brings_outputs_nearer() -> None:
    spec = small_spec(layers=1)
    model, batches = random_model(spec), random_batches(spec)
    apart = []
    for compensate in (False, True):
        pruned = prune(model, spec, settings(score="wanda", compensate=compensate), batches)
        with torch.no_grad():
            difference = pruned.model(batches[0].ids).logits - model(batches[0].ids).logits
        apart.append(float(difference[batches[0].real].norm()))
    assert apart[1] < 0.9 * apart[0]


def test_cuts_in_two_steps_are_one_cut() -> None:
    spec = small_spec()
    model = random_model(spec)
    first = prune(model, spec, settings(), share=0.5)
    second = prune(first.model, first.spec, settings(), origin=spec)
    assert first.cut is not None
    assert second.cut is not None
    assert (first.spec.kv_heads, second.spec.kv_heads) == (3, 2)
    both = first.cut.then(second.cut)
    torch.testing.assert_close(logits(second.model), logits(zeroed(model, spec, both)), rtol=1e-4, atol=1e-4)
    assert Cut.whole(spec).then(both) == both
    assert both.removed(spec)["channels_per_layer"] == 32
    assert [len(gone) for gone in both.removed(spec)["kv_heads"]] == [2, 2, 2]


@pytest.mark.parametrize(("changes", "match"), [
    ({"sparsity": 0.99}, "nothing would be left of 4 kv heads"),
    ({"heads": 0.0, "ffn": 0.95}, "nothing would be left of 96 channels"),
    ({"heads": 0.0, "ffn": 0.0, "layers": 0.9}, "nothing would be left of 3 layers"),
    ({"sparsity": 0.05}, "nothing would be removed"),
    ({"score": "gradient"}, "score gradient is measured on examples"),
    ({"layers": 0.5}, "layers is measured on examples"),
], ids=["heads", "channels", "layers", "too-little", "no-data", "no-data-for-layers"])
def test_what_cannot_be_is_said(changes: dict, match: str) -> None:
    spec = small_spec()
    with pytest.raises(CompressError, match=match):
        prune(random_model(spec), spec, settings(**changes))


def test_foreign_tokens_are_refused() -> None:
    with pytest.raises(CompressError, match="vocabulary has 96 ids"):
        example_batches(random_examples(vocabulary=4000), small_spec(), 8)
