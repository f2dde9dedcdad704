"""Leak-proof splitting: rows that share a source, a target or a near target stay on one side.

Rows are joined into groups by union-find, and whole groups are drawn at random (seeded) until each split has
its share. Where such ties hold most rows together in one group, the weakest kind of tie is given up, and the
report says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openautoglm.data.clean_settings import SplitSettings
from openautoglm.data.dedup import Pairs, of_kind, rows_of
from openautoglm.data.keys import mix
from openautoglm.data.sift import SOURCE, TARGET
from openautoglm.data.tables import Groups, KeyTable, RowFile, by_key, scratch_array
from openautoglm.data.verdicts import KEPT, Verdicts

TIES = ("source", "target", "near_target")
TRAIN, VALID, TEST = range(3)
_CHUNK = 1 << 14
_BINS = 1 << 16


class SplitFacts(NamedTuple):
    """How rows were split: the ties that held, groups, rows of the largest one, and what had to be given
    up."""

    made: tuple[str, ...]
    together: tuple[str, ...]
    groups: int
    largest_group: int
    warnings: tuple[str, ...]


class Splitter:
    """Splits the given train rows into train and the splits that were not given."""

    def __init__(self, folder: Path, settings: SplitSettings, wanted: dict[int, float], rows: int) -> None:
        self.folder, self.settings, self.wanted, self.rows = folder, settings, wanted, rows
        ties: list[str] = [tie for tie in TIES if tie in settings.together]
        self.levels = [tuple(ties[:count]) for count in range(1, len(ties) + 1)]
        self.groups = {level: self._separate(level) for level in self.levels if wanted}
        self._number = np.int32 if rows < 1 << 31 else np.int64
        self.split: NDArray[np.uint8] = scratch_array(folder / "split", rows, np.uint8)

    def look(self, table: KeyTable) -> None:
        """Tie train rows with equal sources and equal targets."""
        if not self.groups:
            return
        for part in table.partitions():
            for kind, tie in ((SOURCE, "source"), (TARGET, "target")):
                entries = of_kind(part, kind)
                entries, first = by_key(entries[(entries[:, 1] & np.uint64(3)) == TRAIN])
                rows = rows_of(entries)
                self._tie(tie, rows, rows[first])

    def wants(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Want pairs of train rows that are not tied yet."""
        both = (pairs.left_split == TRAIN) & (pairs.right_split == TRAIN)
        if not self.groups or "near_target" not in self.levels[-1]:
            return np.zeros_like(both)
        return np.asarray(both & self.groups[self.levels[-1]].apart(pairs.left, pairs.right))

    def add(self, pairs: Pairs) -> None:
        """Tie train rows with near targets."""
        self._tie("near_target", pairs.left, pairs.right)

    def _tie(self, tie: str, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        for level, groups in self.groups.items():
            if tie in level:
                groups.union(left, right)

    def assign(self, facts: RowFile, verdicts: Verdicts) -> SplitFacts:
        """Give every row its split; given splits stay as they are."""
        for first, chunk in facts.chunks(_CHUNK):
            self.split[first:first + len(chunk)] = chunk["split"]
        if not self.wanted:
            return SplitFacts((), (), 0, 0, ())
        warnings: list[str] = []
        for level in (*reversed(self.levels), ()):
            groups = self.groups.pop(level, None) or self._separate(level)
            sizes = self._sizes(groups, facts, verdicts)
            total = int(sum(sizes[at:at + _CHUNK].sum() for at in range(0, self.rows, _CHUNK)))
            limit = max(int(total * self.settings.max_group), 1)
            free = int(sum(part[part <= limit].sum() for part in _parts(sizes)))
            largest = max((int(part.max()) for part in _parts(sizes)), default=0)
            if free >= 2 * total * sum(self.wanted.values()) or not level:
                break
            warnings.append(f"{largest:,} of {total:,} rows hang together by {' and '.join(level)}; "
                            f"rows that share a {level[-1].replace('_', ' ')} may cross splits")
        if largest > limit:
            warnings.append(f"the largest group, {largest:,} of {total:,} rows, stays in train")
        got = self._draw(groups, sizes, total, limit)
        names = {VALID: "valid", TEST: "test"}
        warnings += [f"no rows could be split off for {names[split]}" for split in got if not got[split]]
        count = int(sum((part > 0).sum() for part in _parts(sizes)))
        made = tuple(names[split] for split in self.wanted)
        return SplitFacts(made, level, count, largest, tuple(warnings))

    def _separate(self, level: tuple[str, ...]) -> Groups:
        """Every row a group of its own."""
        return Groups(self.folder / f"groups-{len(level)}", self.rows)

    def _sizes(self, groups: Groups, facts: RowFile, verdicts: Verdicts) -> NDArray[np.int64]:
        """Return for each row how many kept train rows are in the group of which it is the root."""
        sizes: NDArray[np.int64] = scratch_array(self.folder / "sizes", self.rows, self._number)
        for first, chunk in facts.chunks(_CHUNK):
            here = np.arange(first, first + len(chunk))
            counted = (chunk["split"] == TRAIN) & (verdicts.state[here] == KEPT)
            np.add.at(sizes, groups.find(here[counted]), 1)
        return sizes

    def _draw(self, groups: Groups, sizes: NDArray[np.int64], total: int,
              limit: int) -> dict[int, int]:
        """Draw groups in random order for test, then valid; return how many rows each got."""
        want = {split: max(round(total * share), min(1, total // 3)) for split, share in self.wanted.items()}
        weights = np.zeros(_BINS, dtype=np.int64)
        for at in range(0, self.rows, _CHUNK):
            size, place = sizes[at:at + _CHUNK], self._places(at)
            fits = (size > 0) & (size <= limit)
            np.add.at(weights, (place[fits] >> np.uint64(48)).astype(np.int64), size[fits])
        cut = int(np.searchsorted(np.cumsum(weights), 2 * sum(want.values()) + 1))
        drawn: list[tuple[int, int, int]] = []
        for at in range(0, self.rows, _CHUNK):
            size, place = sizes[at:at + _CHUNK], self._places(at)
            near = np.flatnonzero((size > 0) & (size <= limit) & ((place >> np.uint64(48)) <= cut))
            drawn += zip(place[near].tolist(), (near + at).tolist(), size[near].tolist(), strict=True)
        got = dict.fromkeys(want, 0)
        target = scratch_array(self.folder / "target", self.rows, np.uint8)
        for _, root, size_ in sorted(drawn):
            for split in sorted(want, reverse=True):
                if got[split] + size_ <= want[split] or (got[split] == 0 and want[split] > 0):
                    got[split] += size_
                    target[root] = split
                    break
        for at in range(0, self.rows, _CHUNK):
            here = np.arange(at, min(at + _CHUNK, self.rows))
            here = here[self.split[here] == TRAIN]
            self.split[here] = target[groups.find(here)]
        return got

    def _places(self, at: int) -> NDArray[np.uint64]:
        rows = np.arange(at, min(at + _CHUNK, self.rows), dtype=np.uint64)
        return mix(mix(rows, 96), self.settings.seed + 1000)


def _parts(values: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [values[at:at + _CHUNK] for at in range(0, len(values), _CHUNK)]
