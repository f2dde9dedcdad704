"""The next token: the likeliest, or one drawn from the filtered distribution. Shapes: R rows, V ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy
import torch

from openautoglm.engine.sampling import Sampling


def penalise(logits_RV: torch.Tensor, seen_RV: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return the logits, those of seen tokens made smaller (see `Sampling.repetition_penalty`)."""
    smaller = torch.where(logits_RV > 0, logits_RV / penalty, logits_RV * penalty)
    return torch.where(seen_RV, smaller, logits_RV)


def draw(logits_RV: torch.Tensor, uniforms_R: torch.Tensor, settings: Sampling) -> torch.Tensor:
    """Return one id a row, drawn by inverting the cumulative distribution at `uniforms_R` (in [0, 1)).

    Filters act in the order top_k, temperature, top_p, min_p; at least the likeliest token stays.
    """
    ids = None
    if 0 < settings.top_k < logits_RV.shape[1]:
        logits_RV, ids = logits_RV.topk(settings.top_k, dim=-1)
    elif settings.top_p < 1:
        logits_RV, ids = logits_RV.sort(dim=-1, descending=True, stable=True)
    chances = (logits_RV.double() / settings.temperature).softmax(-1)
    if settings.top_p < 1:
        before = chances.cumsum(-1) - chances
        chances = chances.masked_fill(before >= settings.top_p, 0.0)
    if settings.min_p > 0:
        chances = chances.masked_fill(chances < settings.min_p * chances.amax(-1, keepdim=True), 0.0)
    reached = chances.cumsum(-1)
    wanted = uniforms_R[:, None] * reached[:, -1:]
    places = torch.searchsorted(reached, wanted, right=True).clamp_max(chances.shape[1] - 1)
    return (places if ids is None else ids.gather(1, places))[:, 0]


def uniforms(prompt: Sequence[int], seed: int, copy: int, count: int) -> torch.Tensor:
    """Return `count` numbers in [0, 1) that depend on the prompt, the seed and the copy's number only."""
    digest = hashlib.sha256(numpy.asarray(prompt, dtype="<i8").tobytes()).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)]
    source = numpy.random.Generator(numpy.random.Philox(numpy.random.SeedSequence([seed, copy, *words])))
    return torch.from_numpy(source.random(count))
