"""Duplicates: equal pairs by their keys, near ones by MinHash signatures, both from tables on disk.

Equal: source and target equal an earlier row's, compared without regard to case, width and spacing. Near: the
source equals an earlier row's and the targets' estimated Jaccard similarity reaches the threshold. Near rows
form chains (a near b, b near c); of each chain the first row stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from openautoglm.data.clean_settings import DedupSettings
from openautoglm.data.keys import Signer
from openautoglm.data.sift import PAIR, SPLITS
from openautoglm.data.tables import U64, Groups, KeyTable, RowFile, by_key, run_starts
from openautoglm.data.verdicts import EXACT, KEPT, NEAR, Verdicts

Rows = NDArray[np.int64]


class Found(NamedTuple):
    """Duplicates found: rows by split, and the first pairs (row, the earlier row it repeats) as examples."""

    rows: dict[str, int]
    pairs: list[tuple[int, int]]

    @classmethod
    def none(cls) -> Found:
        """Nothing was looked for."""
        return cls(dict.fromkeys(SPLITS, 0), [])


class Pairs(NamedTuple):
    """Near pairs of one partition: rows, their splits, and whether their sources are equal; shape (pairs,)
    each."""

    left: Rows
    right: Rows
    left_split: Rows
    right_split: Rows
    same_source: NDArray[np.bool_]

    def only(self, mask: NDArray[np.bool_]) -> Pairs:
        """Return the pairs that the mask chooses."""
        return Pairs(self.left[mask], self.right[mask], self.left_split[mask], self.right_split[mask],
                     self.same_source[mask])


class PairConsumer(Protocol):
    """Who takes in near pairs."""

    def wants(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Say which pairs would tell something new, if they are near."""

    def add(self, pairs: Pairs) -> None:
        """Take in pairs that were wanted and are near."""


def exact_duplicates(table: KeyTable, facts: RowFile, verdicts: Verdicts, settings: DedupSettings,
                     most: int) -> tuple[Found, dict[str, int]]:
    """Find equal pairs and decide about them.

    Returns:
        the duplicates, and by split how many rows repeat an earlier row letter by letter, as it was read.
    """
    counts = np.zeros((2, len(SPLITS)), dtype=np.int64)
    examples: list[tuple[int, int]] = []
    losing = np.array([split in settings.splits for split in SPLITS])
    for part in table.partitions():
        entries, first = by_key(of_kind(part, PAIR))
        repeats = np.flatnonzero(first != np.arange(len(first)))
        if not len(repeats):
            continue
        splits = (entries[repeats, 1] & np.uint64(3)).astype(np.int64)
        counts[0] += np.bincount(splits, minlength=len(SPLITS))
        rows = rows_of(entries)
        later, earlier = rows[repeats], rows[first[repeats]]
        examples += list(zip(later.tolist(), earlier.tolist(), strict=True))[: most - len(examples)]
        places = np.append(repeats, np.unique(first[repeats]))
        same = _seen_before(rows[places], first[places], facts)
        counts[1] += np.bincount(splits[same[: len(later)]], minlength=len(SPLITS))
        if settings.exact == "drop":
            verdicts.drop(later[losing[splits]], EXACT, earlier[losing[splits]])
    by_split = [dict(zip(SPLITS, row, strict=True)) for row in counts.tolist()]
    return Found(by_split[0], examples), by_split[1]


def _seen_before(rows: Rows, runs: Rows, facts: RowFile) -> NDArray[np.bool_]:
    """Say of each row whether an earlier one of its run was the same letter by letter, as it was read."""
    raw = facts.take(rows)["raw"].astype(np.int64)
    order = np.lexsort((rows, raw, runs))
    runs, raw = runs[order], raw[order]
    again = np.zeros(len(rows), dtype=bool)
    again[order[1:]] = (runs[1:] == runs[:-1]) & (raw[1:] == raw[:-1])
    return again


def near_pairs(table: KeyTable, signatures: RowFile, signer: Signer, verdicts: Verdicts,
               consumers: Sequence[PairConsumer]) -> None:
    """Find pairs of rows whose targets are near and hand them to the consumers that want to know of them.

    In every bucket of a band each row is compared with the row before it, with the bucket's first row, and
    with the nearest rows of another split; rows that are no longer kept take no part.
    """
    for part in table.partitions():
        entries = part[verdicts.state[(part[:, 1] >> np.uint64(4)).astype(np.int64)] == KEPT]
        if not len(entries):
            continue
        split = (entries[:, 1] & np.uint64(3)).astype(np.int64)
        order = np.lexsort((split, entries[:, 2], entries[:, 0]))
        entries, split = entries[order], split[order]
        here, there = _candidates(entries, split)
        if not len(here):
            continue
        rows = rows_of(entries)
        codes = np.unique(np.minimum(here, there) * len(rows) + np.maximum(here, there))
        here, there = codes // len(rows), codes % len(rows)
        same = entries[here, 2] == entries[there, 2]
        pairs = Pairs(rows[here], rows[there], split[here], split[there], same)
        wants = [consumer.wants(pairs) for consumer in consumers]
        asked = np.flatnonzero(np.logical_or.reduce(wants))
        similar = signer.similarity(signatures.take(pairs.left[asked]), signatures.take(pairs.right[asked]))
        near = np.zeros(len(here), dtype=bool)
        near[asked] = similar >= signer.settings.threshold
        for consumer, wanted in zip(consumers, wants, strict=True):
            consumer.add(pairs.only(wanted & near))


def _candidates(entries: U64, split: Rows) -> tuple[Rows, Rows]:
    """Return places of pairs worth comparing, from entries sorted by band key, source and split."""
    places = np.arange(len(entries))
    new_key = entries[1:, 0] != entries[:-1, 0]
    start = run_starts(new_key)
    source_start = run_starts(new_key | (entries[1:, 2] != entries[:-1, 2]))
    changes = np.flatnonzero(~new_key & (split[1:] != split[:-1]))
    before = np.zeros(len(entries), dtype=np.int64)
    before[changes + 1] = changes + 1
    last = np.maximum.accumulate(before) - 1
    after = np.full(len(entries), len(entries))
    after[changes] = changes + 1
    following = np.minimum.accumulate(after[::-1])[::-1]
    end = np.append(start[1:] != start[:-1], True)
    run_end = np.minimum.accumulate(np.where(end, places, len(entries))[::-1])[::-1]
    inside = following <= run_end
    pairs = [(places[1:][~new_key], places[:-1][~new_key]), (places, start), (places, source_start),
             (places[last >= start], last[last >= start]), (places[inside], following[inside])]
    here = np.concatenate([pair[0] for pair in pairs])
    there = np.concatenate([pair[1] for pair in pairs])
    apart = here != there
    return here[apart], there[apart]


class NearDuplicates:
    """Collects near pairs of one source and one split into chains, and decides about them."""

    def __init__(self, folder: Path, verdicts: Verdicts, settings: DedupSettings) -> None:
        self.verdicts, self.settings = verdicts, settings
        self.groups = Groups(folder / "near", verdicts.rows)

    def wants(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Want pairs of one source and split that are not in one chain yet."""
        wanted = pairs.same_source & (pairs.left_split == pairs.right_split)
        return np.asarray(wanted & self.groups.apart(pairs.left, pairs.right))

    def add(self, pairs: Pairs) -> None:
        """Put pairs into one chain."""
        self.groups.union(pairs.left, pairs.right)

    def decide(self, facts: RowFile, most: int, rows: int = 1 << 14) -> Found:
        """Decide that all rows of a chain but the first leave."""
        counts = np.zeros(len(SPLITS), dtype=np.int64)
        examples: list[tuple[int, int]] = []
        losing = np.array([split in self.settings.splits for split in SPLITS])
        for first, chunk in facts.chunks(rows):
            here = np.arange(first, first + len(chunk))
            roots = self.groups.find(here)
            later = roots != here
            splits = chunk["split"][later].astype(np.int64)
            counts += np.bincount(splits, minlength=len(SPLITS))
            here, roots = here[later], roots[later]
            examples += list(zip(here.tolist(), roots.tolist(), strict=True))[: most - len(examples)]
            if self.settings.near == "drop":
                self.verdicts.drop(here[losing[splits]], NEAR, roots[losing[splits]])
        return Found(dict(zip(SPLITS, counts.tolist(), strict=True)), examples)


def of_kind(part: U64, kind: int) -> U64:
    """Return the entries of one kind."""
    return np.asarray(part[(part[:, 1] >> np.uint64(2) & np.uint64(3)) == kind])


def rows_of(entries: U64) -> Rows:
    """Return the row numbers of entries."""
    return (entries[:, 1] >> np.uint64(4)).astype(np.int64)
