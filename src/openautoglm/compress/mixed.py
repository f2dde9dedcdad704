"""Mixed precision: 8 bits where the model's output suffers most from 4, within an average of bits.

Each matrix alone is rounded to 4 and to 8 bits, and the divergence (KL) of the model's next-token distribution from the
original's is measured on some calibration tokens. All variants of the model walk through the layers together, so every
layer is read once. Which matrices get 8 bits is a knapsack: most divergence saved for the bits that are left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from openautoglm.compress.apply import Base
from openautoglm.compress.calibrate import Batch, Calibration, States
from openautoglm.compress.grid import Form
from openautoglm.compress.rtn import round_to_nearest
from openautoglm.compress.settings import Bits
from openautoglm.compress.source import NORM, Source
from openautoglm.compress.walk import Passage, rms_norm
from openautoglm.core.errors import TaskError
from openautoglm.core.progress import progress

CHOICES: tuple[Bits, ...] = (4, 8)
_MOST_CELLS = 20_000_000
Place = tuple[int, str]
"""A layer's number and the name of a place in it."""
COPIES = 2 + 4 * len(CHOICES)
"""Of the calibration's states: before and behind the layers of the original, and of each variant of one layer."""


def sensitivities(source: Source, calibration: Calibration, base: Base, room: Callable[[], States], *, first: int = 0
                  ) -> Iterator[dict[Place, dict[Bits, float]]]:
    """Measure, in nats a token, how far the model with one matrix quantised diverges from the original, layer by layer.

    Matrices are rounded to nearest for this, whatever the base method is: that takes no statistics, and what counts is
    which of them suffer most.

    Args:
        room: makes room for the states of the calibration; called `COPIES` times.
        first: the layer to begin with, where those before were measured earlier.

    Yields:
        For each layer from `first` on: the divergence of each of its places by bits.
    """
    layers, walk = source.spec.layers, Passage(source, calibration)
    clean, end, *rooms = (room() for _ in range(COPIES))
    walk.begin(end)
    for layer in range(layers):
        if layer == first:
            clean.copy(end)
        walk.through(layer, end)
    left = [layers - layer for layer in range(layers)]
    with progress(sum(left), "sensitivity", "layers", done=sum(left[:first])) as bar:
        for layer in range(first, layers):
            places = [((layer, slot), bits) for slot in source.slots for bits in CHOICES]
            norms, weights = walk.read(layer)
            for (place, bits), states in zip(places, rooms, strict=True):
                form = Form(bits, base.group, base.symmetric)
                effective = round_to_nearest(weights[place[1]], form, search=base.search).effective()
                walk.advance(clean, states, {**weights, place[1]: effective}, norms)
            walk.advance(clean, clean, weights, norms)
            del norms, weights
            bar.advance()
            for later in range(layer + 1, layers):
                walk.through(later, *rooms)
                bar.advance()
            found: dict[Place, dict[Bits, float]] = {}
            for (place, bits), divergence in zip(places, _divergences(source, end, rooms, walk.batches), strict=True):
                found.setdefault(place, {})[bits] = divergence
            yield found
    for states in (clean, end, *rooms):
        states.discard()


def _divergences(source: Source, clean: States, others: list[States], batches: list[Batch]) -> list[float]:
    """KL(clean || other) in nats a token for each of the others; the table of the head is read span by span."""
    norm, eps = source.tensor(NORM), source.spec.rms_eps
    sums, count = [0.0] * len(others), 0
    for batch in batches:
        normed = [rms_norm(each.read(batch.start, batch.stop), norm, eps) for each in (clean, *others)]
        log_sum = _log_sum(source, normed[:1])[0]
        log_sums = _log_sum(source, normed[1:])
        crossed = [torch.zeros(len(normed[0]), dtype=torch.float64) for _ in others]
        for start, stop in source.rows(source.head):
            table = source.tensor(source.head, start, stop)
            logits = normed[0] @ table.t()
            shares = (logits.double() - log_sum[:, None]).exp()
            for number, states in enumerate(normed[1:]):
                crossed[number] += (shares * (logits - states @ table.t())).sum(1)
        for number, (cross, own) in enumerate(zip(crossed, log_sums, strict=True)):
            sums[number] += float((cross - log_sum + own).sum())
        count += len(normed[0])
    return [max(value, 0.0) / count for value in sums]


def _log_sum(source: Source, all_states: list[Tensor]) -> list[Tensor]:
    """Logarithm of the sum of the exponentials of the logits, for each row of each of the states; fp64."""
    found = [torch.full((len(states),), -math.inf, dtype=torch.float64) for states in all_states]
    for start, stop in source.rows(source.head):
        table = source.tensor(source.head, start, stop)
        for number, states in enumerate(all_states):
            found[number] = torch.logaddexp(found[number], (states @ table.t()).double().logsumexp(1))
    return found


def allot(measured: dict[Place, dict[Bits, float]], weights: dict[Place, int], stored: dict[Place, float],
          average_bits: float) -> dict[Place, Bits]:
    """Give 8 bits to the matrices that save the most divergence, within an average of stored bits.

    An exact 0/1 knapsack over matrices, whose sizes are counted in their greatest common divisor (in coarser units,
    rounded up, where that would take too many cells).

    Args:
        measured: divergence of each place by bits.
        weights: weights of each place.
        stored: stored bits a weight of each place with 4 bits.

    Raises:
        TaskError: 4 bits everywhere are more than `average_bits`.
    """
    places, total = list(weights), sum(weights.values())
    least = sum(stored[place] * weights[place] for place in places) / total
    room = (average_bits - least) * total / 4
    if room < 0:
        raise TaskError(f"average_bits {average_bits:g} cannot be reached: 4 bits everywhere take {least:.4g}",
                        remedy="raise average_bits, or the group")
    unit = math.gcd(*weights.values())
    unit = max(unit, math.ceil(room * len(places) / _MOST_CELLS))
    sizes = [-(-weights[place] // unit) for place in places]
    capacity = min(int(room // unit), sum(sizes))
    best, taken = np.zeros(capacity + 1), np.zeros((len(places), capacity + 1), bool)
    for number, place in enumerate(places):
        gain, size = max(measured[place][4] - measured[place][8], 0.0), sizes[number]
        if size > capacity or gain <= 0:
            continue
        tried = best[:capacity + 1 - size] + gain
        taken[number, size:] = tried > best[size:]
        best[size:] = np.maximum(best[size:], tried)
    found: dict[Place, Bits] = dict.fromkeys(places, 4)
    left = capacity
    for number in range(len(places) - 1, -1, -1):
        if taken[number, left]:
            found[places[number]], left = 8, left - sizes[number]
    return found
