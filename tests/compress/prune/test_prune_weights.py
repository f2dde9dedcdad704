"""Single weights: which go, what SparseGPT makes good, masks that stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prune_models import logits, random_batches, random_model, small_spec
from safetensors.torch import load_file, save_file

from openautoglm.compress.prune.choose import smallest_of
from openautoglm.compress.prune.masks import MASKS_NAME, apply_masks, matrices, read_masks, write_masks
from openautoglm.compress.prune.prune import prune
from openautoglm.compress.prune.settings import PruneSettings
from openautoglm.compress.prune.sparsegpt import sparsegpt
from openautoglm.compress.prune.weights import zero_share
from openautoglm.core.errors import BundleError, CompressError

SCORES = ["l1", "wanda", "gradient", "random", "sparsegpt"]


def correlated(inputs: int = 32, tokens: int = 400) -> torch.Tensor:
    """Inputs of which many follow from few, [tokens, inputs]."""
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(tokens, 8, generator=generator)
    return few @ torch.randn(8, inputs, generator=generator) + 0.1 * torch.randn(tokens, inputs, generator=generator)


@pytest.mark.parametrize("pattern", [None, (2, 4), (4, 8)], ids=["any", "2:4", "4:8"])
def test_sparsegpt_errs_less_than_magnitude(pattern: tuple[int, int] | None) -> None:
    x = correlated()
    weight = torch.randn(24, 32, generator=torch.Generator().manual_seed(1))
    small = weight.abs() <= weight.abs().flatten().kthvalue(24 * 16).values
    if pattern is not None:
        small = smallest_of(weight.abs(), pattern)
    new, stays = sparsegpt(weight, x.t() @ x, 0.5, pattern, block=16)
    assert float((~stays).float().mean()) == 0.5
    assert not bool(new[~stays].count_nonzero())
    errors = [float((x @ (other - weight).t()).norm()) for other in (new, weight * ~small)]
    assert errors[0] < 0.8 * errors[1]


def test_sparsegpt_keeps_an_earlier_mask_and_takes_dead_inputs() -> None:
    x = correlated()
    x[:, 5] = 0
    weight = torch.randn(24, 32, generator=torch.Generator().manual_seed(1))
    earlier = torch.rand(24, 32, generator=torch.Generator().manual_seed(2)) > 0.3
    new, stays = sparsegpt(weight, x.t() @ x, 0.5, None, stays_OI=earlier, block=16)
    assert not bool((stays & ~earlier).any())
    assert bool(torch.isfinite(new).all())
    with pytest.raises(CompressError, match="no Hessian"):
        sparsegpt(weight, torch.full((32, 32), float("nan")), 0.5, None)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("form", ["unstructured", "2:4", "4:8"])
def test_as_many_are_zero_as_asked(score: str, form: str) -> None:
    spec = small_spec(layers=2)
    model = random_model(spec)
    before = logits(model)
    settings = PruneSettings(form=form, score=score, sparsity=0.5)
    pruned = prune(model, spec, settings, random_batches(spec))
    assert pruned.spec == spec
    assert torch.equal(logits(model), before)
    assert zero_share(pruned.masks) == pytest.approx(0.5, abs=0.01)
    assert len(pruned.masks) == 2 * 6
    for name, matrix in matrices(pruned.model):
        assert not bool(matrix.weight[~pruned.masks[name]].count_nonzero())
        if settings.pattern:
            zeros, of = settings.pattern
            assert bool(((~pruned.masks[name]).view(-1, of).sum(1) == zeros).all())


@pytest.mark.parametrize("compare", ["row", "matrix", "global"])
def test_weights_are_compared_where_asked(compare: str) -> None:
    spec = small_spec(layers=2)
    model = random_model(spec)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[:8] *= 0.1
        model.model.layers[1].mlp.down_proj.weight *= 0.1
    pruned = prune(model, spec, PruneSettings(form="unstructured", score="l1", sparsity=0.25, compare=compare))
    first, second = (pruned.masks[f"model.layers.{number}.mlp.down_proj.weight"] for number in (0, 1))
    shares = [float((~mask).float().mean()) for mask in (first[:8], first, second)]
    expected = {"row": (0.25, 0.25, 0.25), "matrix": (0.75, 0.25, 0.25), "global": (1.0, 0.45, 1.0)}[compare]
    assert shares == pytest.approx(expected, abs=0.2)
    assert zero_share(pruned.masks) == pytest.approx(0.25, abs=0.01)


def test_wanda_looks_at_the_inputs() -> None:
    spec = small_spec(layers=1)
    model = random_model(spec)
    with torch.no_grad():
        model.model.layers[0].mlp.gate_up_proj.weight[96:100] = 0  # these channels are always zero
        model.model.layers[0].mlp.down_proj.weight[:, :4] = 100
    pruned = prune(model, spec, PruneSettings(form="unstructured", score="wanda", sparsity=0.25),
                   random_batches(spec))
    mask = pruned.masks["model.layers.0.mlp.down_proj.weight"]
    assert not bool(mask[:, :4].any())
    assert bool(((~mask).sum(1) == 24).all())


def test_masks_go_and_come(tmp_path: Path) -> None:
    spec = small_spec(layers=1, ffn_size=100)
    pruned = prune(random_model(spec), spec, PruneSettings(form="unstructured", score="l1", sparsity=0.3))
    write_masks(tmp_path, pruned.masks)
    found = read_masks(tmp_path, pruned.model)
    assert found is not None
    assert found.keys() == pruned.masks.keys()
    assert all(torch.equal(found[name], pruned.masks[name]) for name in found)
    assert (tmp_path / MASKS_NAME).stat().st_size < sum(mask.numel() for mask in found.values()) / 5
    assert read_masks(tmp_path / "none", pruned.model) is None
    with torch.no_grad():
        pruned.model.model.layers[0].mlp.down_proj.weight += 1
    with pytest.raises(BundleError, match="has weights where its mask has none"):
        read_masks(tmp_path, pruned.model)
    apply_masks(pruned.model, found)
    assert read_masks(tmp_path, pruned.model)


def test_damaged_and_foreign_masks_are_refused(tmp_path: Path) -> None:
    spec = small_spec(layers=1)
    pruned = prune(random_model(spec), spec, PruneSettings(form="2:4", score="l1"))
    write_masks(tmp_path, pruned.masks)
    with pytest.raises(BundleError, match="no mask of this model"):
        read_masks(tmp_path, random_model(small_spec(layers=1, ffn_size=64)))
    path = tmp_path / MASKS_NAME
    tensors = load_file(path)
    save_file(tensors, path, metadata={"format": "autoglm-masks", "version": "2"})
    with pytest.raises(BundleError, match="autoglm-masks 2"):
        read_masks(tmp_path, pruned.model)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BundleError, match="no whole safetensors"):
        read_masks(tmp_path, pruned.model)


def test_masks_are_cut_with_the_parts() -> None:
    spec = small_spec()
    sparse = prune(random_model(spec), spec, PruneSettings(form="unstructured", score="l1", sparsity=0.5))
    pruned = prune(sparse.model, spec, PruneSettings(score="l1", compensate=True), random_batches(spec),
                   masks=sparse.masks)
    for name, matrix in matrices(pruned.model):
        assert pruned.masks[name].shape == matrix.weight.shape
        assert not bool(matrix.weight[~pruned.masks[name]].count_nonzero())
    more = prune(sparse.model, spec, PruneSettings(form="unstructured", score="random", sparsity=0.6),
                 masks=sparse.masks)
    assert zero_share(more.masks) == pytest.approx(0.6, abs=0.01)
    assert not any(bool((more.masks[name] & ~mask).any()) for name, mask in sparse.masks.items())


def test_a_pattern_wants_columns_that_divide() -> None:
    spec = small_spec(ffn_size=98)
    with pytest.raises(CompressError, match="98 columns, no multiple of 4"):
        prune(random_model(spec), spec, PruneSettings(form="2:4", score="l1"))
