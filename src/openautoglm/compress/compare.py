"""How far a model is from another, with the memory of one layer: both walk through their layers, one after the other.

For models that do not fit into memory. Texts are read in one piece and in fp32, so what the engine rounds while it
decodes (activations, a cache in fewer bits) is not in these figures. Letters: T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from openautoglm.compress.calibrate import BATCH_TOKENS, Calibration, States
from openautoglm.compress.source import NORM, StoredSource
from openautoglm.compress.walk import Passage, rms_norm
from openautoglm.core.errors import DataError
from openautoglm.core.progress import progress


@dataclass(frozen=True)
class Distance:
    """Figures over all predicted tokens, in nats where they are logarithms.

    Attributes:
        tokens: predicted.
        kl: mean divergence (KL) of the second model's distribution from the first's.
        agreement: share of tokens whose likeliest continuation is the same.
        perplexity: per token, by each.
    """

    tokens: int
    kl: float
    agreement: float
    perplexity: tuple[float, float]


@dataclass
class _Seen:
    """What one model says of each token [T].

    Attributes:
        log_sum: logarithm of the sum of the logits' exponentials.
        best, likeliest: the greatest logit, and its id.
        given: the logit of the id that follows.
    """

    log_sum: Tensor
    best: Tensor
    likeliest: Tensor
    given: Tensor


@torch.no_grad()
def compare_layers(first: Path, second: Path, texts: Sequence[tuple[Sequence[int], int]], folder: Path, *,
                   vocab_size: int | None = None) -> Distance:
    """Compare two checkpoints or bundles, quantised ones too, on texts: ids, and the first of them that is predicted.

    Args:
        folder: for files of some size, removed at the end: a row of the hidden width in fp32 for each token and model.
        vocab_size: ids from here on are padding, and left out.

    Raises:
        DataError: nothing is predicted, or the vocabularies differ.
        BundleError, SpecError: one of them cannot be read.
    """
    one, other = StoredSource(first), StoredSource(second)
    if one.spec.vocab_size != other.spec.vocab_size:
        raise DataError(f"the vocabularies differ: {one.spec.vocab_size} and {other.spec.vocab_size} ids",
                        where=str(second), remedy="compare a model with what was made of it")
    shown = Calibration(tuple(tuple(ids) for ids, _ in texts))
    follows = torch.tensor([following for ids, _ in texts for following in [*ids[1:], 0]])
    counted = torch.tensor([first - 1 <= place < len(ids) - 1 for ids, first in texts for place in range(len(ids))])
    if not bool(counted.any()):
        raise DataError("no token is predicted", where="texts", remedy="give texts of two tokens and more")
    same = first.resolve() == second.resolve()
    sides = [one] if same else [one, other]
    with progress(sum(side.spec.layers + 2 for side in sides), "compare, layer by layer", "layers") as bar:
        states = [_passed(side, shown, folder / f"compare-{number}.bin", bar.advance)
                  for number, side in enumerate(sides)]
        spans = _spans(one, vocab_size)
        seen = [_seen(side, each, follows, spans) for side, each in zip(sides, states, strict=True)]
        bar.advance(len(sides))
        kl = 0.0 if same else _divergence(sides, states, seen, counted, spans)
        bar.advance(len(sides))
        for each in states:
            each.discard()
    tokens = int(counted.sum())
    losses = [float((side.log_sum - side.given)[counted].sum()) / tokens for side in (seen[0], seen[-1])]
    agree = float((seen[0].likeliest == seen[-1].likeliest)[counted].double().mean())
    return Distance(tokens, max(kl, 0.0) / tokens, agree, (math.exp(losses[0]), math.exp(losses[1])))


def _passed(source: StoredSource, shown: Calibration, file: Path, advance: Callable[[], None]) -> States:
    """The states [T, hidden] behind the last norm."""
    states, passage = States(shown.tokens, source.spec.hidden_size, file), Passage(source, shown)
    passage.begin(states)
    for layer in range(source.spec.layers):
        passage.through(layer, states)
        advance()
    weight = source.tensor(NORM)
    for start, stop in _blocks(states):
        states.write(start, rms_norm(states.read(start, stop), weight, source.spec.rms_eps))
    return states


def _blocks(states: States) -> list[tuple[int, int]]:
    return [(start, min(start + BATCH_TOKENS, states.rows)) for start in range(0, states.rows, BATCH_TOKENS)]


def _spans(source: StoredSource, vocab_size: int | None) -> list[tuple[int, int]]:
    """Rows of the head that are read at a time."""
    size = vocab_size or source.spec.vocab_size
    return [(low, min(high, size)) for low, high in source.rows(source.head) if low < size]


def _seen(source: StoredSource, states: States, follows: Tensor, spans: Sequence[tuple[int, int]]) -> _Seen:
    """Read the head span by span, once."""
    count = states.rows
    found = _Seen(torch.full((count,), -math.inf, dtype=torch.float64), torch.full((count,), -math.inf),
                  torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.float64))
    for low, high in spans:
        table = source.tensor(source.head, low, high)
        for start, stop in _blocks(states):
            logits, at = states.read(start, stop) @ table.t(), slice(start, stop)
            found.log_sum[at] = torch.logaddexp(found.log_sum[at], logits.double().logsumexp(1))
            best, place = logits.max(1)
            better = best > found.best[at]
            found.best[at] = torch.where(better, best, found.best[at])
            found.likeliest[at] = torch.where(better, place + low, found.likeliest[at])
            ids = follows[at]
            here = (ids >= low) & (ids < high)
            picked = logits.gather(1, (ids - low).clamp(0, high - low - 1)[:, None])[:, 0].double()
            found.given[at] = torch.where(here, picked, found.given[at])
    return found


def _divergence(sides: Sequence[StoredSource], states: Sequence[States], seen: Sequence[_Seen], counted: Tensor,
                spans: Sequence[tuple[int, int]]) -> float:
    """The sum of the divergences of the tokens that count; both heads are read span by span once more."""
    total = 0.0
    for low, high in spans:
        tables = [side.tensor(side.head, low, high) for side in sides]
        for start, stop in _blocks(states[0]):
            logs = [(each.read(start, stop) @ table.t()).double() - what.log_sum[start:stop, None]
                    for each, table, what in zip(states, tables, seen, strict=True)]
            total += float((logs[0].exp() * (logs[0] - logs[1])).sum(1)[counted[start:stop]].sum())
    return total
