"""Greedy decoding and sampling of one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from openautoglm.engine.decoder import Decoder
from openautoglm.engine.generate import Candidate
from openautoglm.engine.pick import draw, penalise, uniforms
from openautoglm.engine.sampling import Sampling

SHRINK_BELOW = 0.75
"""A batch is packed anew when fewer than this share of its rows are still going."""


def decode(
    decoder: Decoder, prompts: Sequence[list[int]], stops: torch.Tensor, limit: int, settings: Sampling
) -> list[list[Candidate]]:
    """Decode `settings.n` rows a prompt until each met a stop id or has `limit` tokens."""
    count = len(prompts) * settings.n
    device = stops.device
    tokens = torch.full((count, limit), -1, dtype=torch.long, device=device)
    logprobs = torch.zeros(count, dtype=torch.double, device=device)
    rows = torch.arange(count, device=device)  # which of all rows each row of the decoder is
    going = torch.ones(count, dtype=torch.bool, device=device)
    randoms = _randoms(prompts, settings, limit).to(device)
    seen = _seen(prompts, settings, decoder.logits_RV.shape[1], device)
    for place in range(limit):
        logits = decoder.logits_RV
        if seen is not None:
            logits = penalise(logits, seen[rows], settings.repetition_penalty)
        picked = draw(logits, randoms[rows, place], settings) if settings.temperature else logits.argmax(-1)
        chosen = decoder.logits_RV.log_softmax(-1).gather(1, picked[:, None])[:, 0].double()
        alive = going[rows]
        tokens[rows, place] = torch.where(alive, picked, -1)
        logprobs[rows] += torch.where(alive, chosen, 0.0)
        if seen is not None:
            seen[rows, picked] = True
        going[rows] = alive & ~torch.isin(picked, stops)
        left = int(going.sum())
        if left == 0 or place == limit - 1:
            break
        if left < SHRINK_BELOW * len(rows):
            kept = going[rows].nonzero()[:, 0]
            decoder.select(kept)
            rows, picked = rows[kept], picked[kept]
        decoder.step(picked)
    flat = _candidates(tokens, logprobs, going)
    return [flat[first : first + settings.n] for first in range(0, count, settings.n)]


def _randoms(prompts: Sequence[list[int]], settings: Sampling, limit: int) -> torch.Tensor:
    if not settings.temperature:
        return torch.empty(0)
    return torch.stack(
        [uniforms(prompt, settings.seed, copy, limit) for prompt in prompts for copy in range(settings.n)]
    )


def _seen(
    prompts: Sequence[list[int]], settings: Sampling, vocab_size: int, device: torch.device
) -> torch.Tensor | None:
    if settings.repetition_penalty == 1:
        return None
    seen = torch.zeros((len(prompts), vocab_size), dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        seen[row, [i for i in prompt if i < vocab_size]] = True
    return seen.repeat_interleave(settings.n, dim=0).to(device)


def _candidates(tokens: torch.Tensor, logprobs: torch.Tensor, going: torch.Tensor) -> list[Candidate]:
    found = []
    for ids, logprob, unfinished in zip(tokens.tolist(), logprobs.tolist(), going.tolist(), strict=True):
        length = ids.index(-1) if -1 in ids else len(ids)
        found.append(Candidate(tuple(ids[: length if unfinished else length - 1]), logprob, not unfinished))
    return found
