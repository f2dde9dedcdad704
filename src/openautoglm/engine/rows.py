"""The sequences that decode, one slot each, and what a step and the choice of tokens need of them as arrays.

Slots are dense: when a sequence leaves, the last one takes its slot. Arrays are made once; a step reads their first
`count` entries, so that launching it costs no work for a row. Letters: B slots, P pages.
"""

from __future__ import annotations

import numpy as np

from openautoglm.engine.sequence import Sequence


class Rows:
    """Slots for `most` sequences of up to `pages` pages.

    Attributes:
        count: slots in use.
        sequences: of those slots, in order.
        ids: [B] the last token of each, which is not in the cache yet.
        lengths: [B] tokens in the cache.
        room: [B] the length up to which its pages may be written.
        table: [B, P] pages.
        temperature, top_k, top_p, min_p: [B].
        shaped, drawn, scored, grouped: how many have their logits changed, sample, want log-probabilities, are beams.
    """

    def __init__(self, most: int, pages: int) -> None:
        self.count = 0
        self.sequences: list[Sequence] = []
        self.ids, self.lengths, self.room, self.top_k = (np.zeros(most, np.int32) for _ in range(4))
        self.table = np.zeros((most, pages), np.int32)
        self.temperature, self.top_p, self.min_p = (np.zeros(most, np.float32) for _ in range(3))
        self.shaped = self.drawn = self.scored = self.grouped = 0

    def add(self, sequence: Sequence) -> None:
        """Give a sequence a slot; all its tokens but the last are in the cache."""
        slot = self.count
        sequence.slot = slot
        self.sequences.append(sequence)
        self.count += 1
        self.refresh(sequence, len(sequence.tokens) - 1)
        decoding = sequence.ticket.request.decoding
        self.temperature[slot], self.top_k[slot] = decoding.temperature, decoding.top_k
        self.top_p[slot], self.min_p[slot] = decoding.top_p, decoding.min_p
        self._tally(sequence, 1)

    def refresh(self, sequence: Sequence, length: int) -> None:
        """Take over the tokens and pages of a sequence that were changed; `length` of its tokens are in the cache.

        Its room is looked up before it is next written to.
        """
        slot = sequence.slot
        self.ids[slot] = sequence.tokens[-1]
        self.lengths[slot] = self.room[slot] = length
        self.table[slot, :len(sequence.pages)] = sequence.pages

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence's slot away."""
        slot, last = sequence.slot, self.count - 1
        moved = self.sequences.pop()
        if slot != last:
            self.sequences[slot] = moved
            moved.slot = slot
            for array in (self.ids, self.lengths, self.room, self.top_k, self.temperature, self.top_p, self.min_p):
                array[slot] = array[last]
            pages = len(moved.pages)
            self.table[slot, :pages] = self.table[last, :pages]
        sequence.slot = -1
        self.count = last
        self._tally(sequence, -1)

    def _tally(self, sequence: Sequence, one: int) -> None:
        self.shaped += one * (sequence.shaper is not None)
        self.drawn += one * (sequence.uniforms is not None)
        self.scored += one * sequence.scored
        self.grouped += one * (sequence.group is not None)
