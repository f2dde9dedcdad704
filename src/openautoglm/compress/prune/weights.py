"""Single weights become zero: by magnitude, Wanda, gradients, chance, or SparseGPT."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from openautoglm.compress.prune.choose import chosen, smallest_of
from openautoglm.compress.prune.examples import ExampleBatch
from openautoglm.compress.prune.masks import Masks, apply_masks, matrices
from openautoglm.compress.prune.observe import Hessian, InputNorms, Inputs, quiet, walk_layers, weight_effects
from openautoglm.compress.prune.settings import PruneSettings
from openautoglm.compress.prune.sparsegpt import sparsegpt
from openautoglm.core.errors import CompressError
from openautoglm.core.progress import progress


def prune_weights(model: Any, settings: PruneSettings, batches: Sequence[ExampleBatch], masks: Mapping[str, Tensor],
                  share: float) -> tuple[Any, Masks]:
    """Return a copy of the model with zeros, and the masks of what stays, bool [O, I] by name.

    Args:
        masks: earlier ones; what they take out stays out, and counts.
        share: of the weights of each matrix (or row, or all) to be zero; a pattern has its own.

    Raises:
        CompressError: a matrix does not fit the pattern.
    """
    _refuse_uneven(model, settings)
    model = copy.deepcopy(model)
    stays = {name: masks[name].clone() if name in masks else torch.ones_like(matrix.weight, dtype=torch.bool)
             for name, matrix in matrices(model)}
    if settings.score in ("wanda", "sparsegpt"):
        _layer_by_layer(model, settings, batches, stays, share)
    else:
        _take(_scores(model, settings, batches), settings, stays, share)
        apply_masks(model, stays)
    return model, stays


def zero_share(masks: Mapping[str, Tensor]) -> float:
    """The share of the weights that masks take out."""
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())


def _refuse_uneven(model: Any, settings: PruneSettings) -> None:
    if settings.pattern is None:
        return
    for name, matrix in matrices(model):
        if matrix.in_features % settings.pattern[1]:
            raise CompressError(f"{name} has {matrix.in_features} columns, no multiple of {settings.pattern[1]}",
                                where="form", remedy="give form unstructured, or another pattern")


def _scores(model: Any, settings: PruneSettings, batches: Sequence[ExampleBatch]) -> dict[str, Tensor]:
    """A score for every weight, 0 or greater, fp32."""
    if settings.score == "gradient":
        return weight_effects(model, batches, dict(matrices(model)))
    generator = torch.Generator().manual_seed(settings.seed)
    found = {}
    for name, matrix in matrices(model):
        found[name] = (torch.rand(matrix.weight.shape, generator=generator).to(matrix.weight.device)
                       if settings.score == "random" else matrix.weight.detach().float().abs())
    return found


def _take(scores: Mapping[str, Tensor], settings: PruneSettings, stays: Masks, share: float) -> None:
    """Take the lowest scores out of `stays`."""
    scores = {name: score.masked_fill(~stays[name], -1) for name, score in scores.items()}
    if settings.pattern is not None:
        gone = {name: smallest_of(score, settings.pattern) for name, score in scores.items()}
    else:
        gone = chosen(scores, share, _compared(settings))
    for name, marks in gone.items():
        stays[name] &= ~marks


def _compared(settings: PruneSettings) -> Literal["row", "matrix", "global"]:
    if settings.compare != "auto":
        return settings.compare
    return "row" if settings.score == "wanda" else "matrix"


def _layer_by_layer(model: Any, settings: PruneSettings, batches: Sequence[ExampleBatch], stays: Masks,
                    share: float) -> None:
    """Prune each layer by what flows into its matrices once the layers before it are pruned."""
    counter = Hessian if settings.score == "sparsegpt" else InputNorms
    with progress(len(model.model.layers), "prune: weights", "layers") as bar, quiet(model):
        for number, layer, run in walk_layers(model, batches):
            prefix = f"model.layers.{number}."
            mine = {name: matrix for name, matrix in matrices(model) if name.startswith(prefix)}
            counters: dict[str, Inputs] = {name: counter(matrix) for name, matrix in mine.items()}
            run(layer, {matrix: counters[name] for name, matrix in mine.items()})
            _prune_layer(mine, counters, settings, stays, share)
            bar.advance()


def _prune_layer(mine: Mapping[str, nn.Linear], counters: Mapping[str, Inputs], settings: PruneSettings,
                 stays: Masks, share: float) -> None:
    for name, matrix in mine.items():
        counter = counters[name]
        if isinstance(counter, Hessian):
            weight, stays[name] = sparsegpt(
                matrix.weight, counter.products, share, settings.pattern, stays_OI=stays[name], block=settings.block,
                damping=settings.damping)
            matrix.weight.copy_(weight)
        else:  # |w| times the norm of its input: Wanda (Sun et al. 2023, arXiv 2306.11695)
            _take({name: matrix.weight.float().abs() * counter.squares.sqrt()}, settings, stays, share)
            matrix.weight.masked_fill_(~stays[name], 0)
