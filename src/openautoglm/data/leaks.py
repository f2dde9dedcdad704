"""Leaks: what two given splits share, by equal sources, equal targets and near targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openautoglm.data.clean_settings import LeakSettings
from openautoglm.data.dedup import Pairs, Rows, of_kind, rows_of
from openautoglm.data.sift import SOURCE, SPLITS, TARGET
from openautoglm.data.tables import KeyTable, by_key, scratch_array
from openautoglm.data.verdicts import LEAK, Verdicts

BETWEEN = ((0, 1), (0, 2), (1, 2))


@dataclass
class Leak:
    """What two splits share in one respect.

    Attributes:
        kind: ``source``, ``target`` or ``near_target``.
        between: the two splits.
        texts: distinct shared texts (for near targets: rows of the second split that are near one of the
            first). rows: rows of the first split and of the second that take part. pairs: the first few pairs
            of rows as examples.
    """

    kind: str
    between: tuple[str, str]
    texts: int = 0
    rows: list[int] = field(default_factory=lambda: [0, 0])
    pairs: list[tuple[int, int]] = field(default_factory=list)


class LeakCheck:
    """Finds leaks and, if so asked, decides that the train rows leave."""

    def __init__(self, folder: Path, verdicts: Verdicts, settings: LeakSettings, most: int) -> None:
        self.verdicts, self.settings, self.most = verdicts, settings, most
        self.leaks: dict[tuple[str, tuple[int, int]], Leak] = {
            (kind, pair): Leak(kind, (SPLITS[pair[0]], SPLITS[pair[1]]))
            for kind in settings.look_for for pair in BETWEEN}
        self._seen: NDArray[np.uint8] = scratch_array(folder / "near-leaks", verdicts.rows, np.uint8)

    def look(self, table: KeyTable) -> None:
        """Look for equal sources and targets."""
        for part in table.partitions():
            for kind, name in ((SOURCE, "source"), (TARGET, "target")):
                if name not in self.settings.look_for:
                    continue
                entries, first = by_key(of_kind(part, kind))
                if len(entries):
                    splits = (entries[:, 1] & np.uint64(3)).astype(np.int64)
                    self._shared(name, rows_of(entries), splits, first)

    def _shared(self, name: str, rows: Rows, split: Rows, first: Rows) -> None:
        starts = np.flatnonzero(first == np.arange(len(first)))
        masks = np.bitwise_or.reduceat(1 << split, starts)
        mask = np.repeat(masks, np.diff(np.append(starts, len(first))))
        for pair in BETWEEN:
            both = (1 << pair[0]) | (1 << pair[1])
            texts = int(((masks & both) == both).sum())
            if not texts:
                continue
            leak = self.leaks[name, pair]
            leak.texts += texts
            members = [np.flatnonzero(((mask & both) == both) & (split == side)) for side in pair]
            leak.rows = [count + len(side) for count, side in zip(leak.rows, members, strict=True)]
            mine, runs = rows[members[0]], first[members[1]]
            partners = rows[members[1]][np.searchsorted(runs, first[members[0]])]
            if name == "target":
                for rows_, mark in zip((mine, rows[members[1]]), self._marks(pair), strict=True):
                    self._mark(rows_, mark)
            pairs = list(zip(mine.tolist(), partners.tolist(), strict=True))
            leak.pairs += pairs[: self.most - len(leak.pairs)]
            self._decide(pair, mine, partners)

    def wants(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Want pairs of two splits, unless both rows are known to leak between these splits."""
        wanted = pairs.left_split != pairs.right_split
        if "near_target" not in self.settings.look_for:
            return np.zeros_like(wanted)
        for pair in BETWEEN:
            for sides, rows in ((pair, (pairs.left, pairs.right)), (pair[::-1], (pairs.right, pairs.left))):
                known = (pairs.left_split == sides[0]) & (pairs.right_split == sides[1])
                for side, mark in zip(rows, self._marks(pair), strict=True):
                    known &= self._seen[side] & mark != 0
                wanted &= ~known
        return np.asarray(wanted)

    def add(self, pairs: Pairs) -> None:
        """Count pairs of two splits."""
        swap = pairs.left_split > pairs.right_split
        left, right = np.where(swap, pairs.right, pairs.left), np.where(swap, pairs.left, pairs.right)
        low = np.minimum(pairs.left_split, pairs.right_split)
        high = np.maximum(pairs.left_split, pairs.right_split)
        for pair in BETWEEN:
            wanted = (low == pair[0]) & (high == pair[1])
            if not wanted.any():
                continue
            mine, others = left[wanted], right[wanted]
            leak, marks = self.leaks["near_target", pair], self._marks(pair)
            fresh = np.flatnonzero(self._seen[mine] & marks[0] == 0)
            pairs_ = dict(zip(mine[fresh].tolist(), others[fresh].tolist(), strict=True))
            leak.pairs += list(pairs_.items())[: self.most - len(leak.pairs)]
            leak.rows = [count + self._mark(rows, mark)
                         for count, rows, mark in zip(leak.rows, (mine, others), marks, strict=True)]
            leak.texts = leak.rows[1]
            self._decide(pair, mine, others)

    def found(self) -> list[Leak]:
        """Return the leaks that there are."""
        return [leak for leak in self.leaks.values() if leak.texts]

    @staticmethod
    def _marks(pair: tuple[int, int]) -> tuple[int, int]:
        """Return the bits that say that a row's target is known to leak, for the first and the second
        split."""
        bit = 2 * BETWEEN.index(pair)
        return 1 << bit, 2 << bit

    def _mark(self, rows: NDArray[np.int64], mark: int) -> int:
        """Mark rows as seen; return how many were not."""
        rows = np.unique(rows)
        fresh = rows[self._seen[rows] & mark == 0]
        self._seen[fresh] |= mark
        return len(fresh)

    def _decide(self, pair: tuple[int, int], mine: NDArray[np.int64], partners: NDArray[np.int64]) -> None:
        if self.settings.action == "drop_from_train" and pair[0] == 0:
            self.verdicts.drop(mine, LEAK, partners)
