"""Prunes a model: whole parts of it, or single weights; the model given stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from openautoglm.compress.prune.compensate import compensated
from openautoglm.compress.prune.examples import ExampleBatch
from openautoglm.compress.prune.masks import Masks, apply_masks
from openautoglm.compress.prune.observe import Hessian, InputNorms, Inputs, quiet, walk_layers, watch_inputs
from openautoglm.compress.prune.scores import LayerScores, layer_scores, part_scores
from openautoglm.compress.prune.settings import PruneSettings
from openautoglm.compress.prune.shapes import heads_by, smaller_spec
from openautoglm.compress.prune.structure import Cut, Numbers, make_model, select, spread
from openautoglm.compress.prune.weights import prune_weights
from openautoglm.core.errors import CompressError
from openautoglm.core.progress import progress
from openautoglm.models.spec import GlmSpec


@dataclass(frozen=True)
class Pruned:
    """A pruned model.

    Attributes:
        model: transformers' class, in evaluation mode.
        spec: its architecture.
        masks: of the single weights that stay; empty where none were taken out.
        cut: of a structured removal, in the numbers of the model that was given.
    """

    model: Any
    spec: GlmSpec
    masks: Masks
    cut: Cut | None = None


def prune(model: Any, spec: GlmSpec, settings: PruneSettings, batches: Sequence[ExampleBatch] = (), *,
          masks: Mapping[str, Tensor] | None = None, share: float = 1.0, origin: GlmSpec | None = None) -> Pruned:
    """Prune `model` as the settings say, without training; recovery is the caller's.

    Args:
        model: ``GlmForCausalLM`` or ``Glm4ForCausalLM`` of `spec`.
        batches: examples to measure importance on.
        masks: of earlier pruning; what they take out stays out.
        share: of the asked removal that is done after this step of a gradual schedule.
        origin: what the schedule began with; `spec` when None.

    Raises:
        CompressError: nothing would be left or nothing removed, a score lacks its examples, or a matrix does not fit
            the pattern.
    """
    target = smaller_spec(origin or spec, settings, share) if settings.form == "structured" else spec
    if settings.needs_data and not batches:
        what = "layers" if settings.layers else "compensate" if settings.compensate else f"score {settings.score}"
        raise CompressError(f"{what} is measured on examples, and there are none", where="data",
                            remedy="give data, or score l1 or random without layers and compensate")
    device = next(model.parameters()).device
    batches = [batch.to(device) for batch in batches]
    earlier = {name: mask.to(device) for name, mask in (masks or {}).items()}
    if settings.form == "structured":
        return _structured(model, spec, settings, batches, earlier, target, origin or spec)
    smaller, stays = prune_weights(model, settings, batches, earlier, settings.sparsity * share)
    return Pruned(smaller, spec, stays)


def _structured(model: Any, spec: GlmSpec, settings: PruneSettings, batches: Sequence[ExampleBatch],
                masks: Mapping[str, Tensor], target: GlmSpec, origin: GlmSpec) -> Pruned:
    inputs = _inputs(model, settings, batches)
    layers: Numbers = tuple(range(spec.layers))
    if target.layers < spec.layers:
        layers = best(layer_scores(model, settings, batches), target.layers)
    scores = part_scores(model, settings, batches, inputs)
    cut = _cut(spec, target, heads_by(origin, settings) == "groups", layers, scores)
    state = select(_state(model, spec), spec, cut)
    if settings.compensate:
        _compensate(model, spec, cut, batches, state, settings.damping)
    smaller, stays = make_model(state, target), select(masks, spec, cut)
    apply_masks(smaller, stays)  # what was compensated has values there
    return Pruned(smaller, target, stays, cut)


def _state(model: Any, spec: GlmSpec) -> dict[str, Tensor]:
    state: dict[str, Tensor] = getattr(model, "_orig_mod", model).state_dict()
    if spec.tied:
        state = {name: tensor for name, tensor in state.items() if name != "lm_head.weight"}
    return state


def _inputs(model: Any, settings: PruneSettings, batches: Sequence[ExampleBatch]) -> dict[nn.Linear, Inputs]:
    """What flows into the output matrices of attention and feed-forward, where the score asks for it."""
    if settings.score != "wanda":
        return {}
    inputs: dict[nn.Linear, Inputs] = {matrix: InputNorms(matrix) for layer in model.model.layers
                                       for matrix in (layer.self_attn.o_proj, layer.mlp.down_proj)}
    watch_inputs(model, batches, inputs)
    return inputs


def _cut(spec: GlmSpec, target: GlmSpec, by_groups: bool, layers: Numbers, scores: Sequence[LayerScores]) -> Cut:
    """The best parts of every layer that stays."""
    heads, kv_heads = [], []
    for layer in layers:
        share = spec.heads // spec.kv_heads
        if by_groups:
            groups = best(scores[layer].groups, target.kv_heads)
            heads.append(tuple(group * share + place for group in groups for place in range(share)))
        else:
            groups = tuple(range(spec.kv_heads))
            left = target.heads // target.kv_heads
            heads.append(tuple(group * share + place for group in groups for place in
                               best(scores[layer].heads[group * share : (group + 1) * share], left)))
        kv_heads.append(groups)
    return Cut(spec=target, layers=layers, heads=tuple(heads), kv_heads=tuple(kv_heads),
               channels=tuple(best(scores[layer].channels, target.ffn_size) for layer in layers))


def best(scores: Tensor, count: int) -> Numbers:
    """The numbers of the greatest scores, in ascending order; among equals the first ones."""
    order = torch.argsort(scores, descending=True, stable=True)[:count]
    return tuple(sorted(order.tolist()))


def _compensate(model: Any, spec: GlmSpec, cut: Cut, batches: Sequence[ExampleBatch], state: dict[str, Tensor],
                damping: float) -> None:
    """Put compensated output matrices into the state of the smaller model, layer by layer."""
    with progress(spec.layers, "prune: compensate", "layers") as bar, quiet(model):
        for old, layer, run in walk_layers(model, batches):
            bar.advance()
            if old not in cut.layers:
                continue
            new = cut.layers.index(old)
            matrices = {"self_attn.o_proj": layer.self_attn.o_proj, "mlp.down_proj": layer.mlp.down_proj}
            stay = {"self_attn.o_proj": spread(cut.heads[new], spec.head_dim),
                    "mlp.down_proj": torch.tensor(cut.channels[new])}
            counters = {part: Hessian(matrix) for part, matrix in matrices.items()}
            run(layer, {matrix: counters[part] for part, matrix in matrices.items()})
            for part, matrix in matrices.items():
                state[f"model.layers.{new}.{part}.weight"] = compensated(
                    matrix.weight, counters[part].products, stay[part].to(matrix.weight.device), damping)
