"""The last pass: every row goes to the file of its split or to the dropped ones, and the kept ones are
measured."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openautoglm.data.collect import Shelf
from openautoglm.data.dedup import Rows
from openautoglm.data.jsonl import decode_example
from openautoglm.data.sift import LENGTHS, SPLITS, dropped_line
from openautoglm.data.tables import U64, KeyTable, by_key
from openautoglm.data.verdicts import EXACT, KEPT, LEAK, NAMES, NEAR, Verdicts

LONGEST = 4096
"""Lengths from here on are counted together."""
_CHUNK = 1 << 12
_GONE = len(SPLITS)
_REASONS = {EXACT: "source and target equal those of {}", NEAR: "same source and a near target as {}",
            LEAK: "shares a source or a target with {}, of another split"}


class Dealt(NamedTuple):
    """Rows written by split, drops by verdict and split, length counts (split, LENGTHS, length), longest
    lengths."""

    rows: dict[str, int]
    drops: dict[str, dict[str, int]]
    lengths: NDArray[np.int64]
    longest: NDArray[np.int64]
    words: dict[str, dict[str, float]]


def deal(shelf: Shelf, verdicts: Verdicts, splits: NDArray[np.uint8], files: list[str], out: Path) -> Dealt:
    """Write ``train.jsonl``, ``valid.jsonl``, ``test.jsonl`` (those that have rows) and ``dropped.jsonl``
    into `out`."""
    lengths = np.zeros((len(SPLITS), len(LENGTHS), LONGEST + 1), dtype=np.int64)
    longest = np.zeros((len(SPLITS), len(LENGTHS)), dtype=np.int64)
    rows = np.zeros(len(SPLITS), dtype=np.int64)
    drops = {name: dict.fromkeys(SPLITS, 0) for name in NAMES[EXACT:]}
    vocabulary = KeyTable(shelf.folder / "vocabulary", 2)
    shutil.move(shelf.dropped, out / "dropped.jsonl")
    with ExitStack() as stack:
        lines = stack.enter_context(shelf.lines.open("rb"))
        targets = [stack.enter_context((out / f"{split}.jsonl").open("wb")) for split in SPLITS]
        dropped = stack.enter_context((out / "dropped.jsonl").open("ab"))
        words = stack.enter_context(shelf.words.path.open("rb"))
        for first, facts in shelf.facts.chunks(_CHUNK):
            here = slice(first, first + len(facts))
            state, split = np.array(verdicts.state[here]), np.array(splits[here])
            goes = np.where((facts["kept"] == 1) & (state == KEPT), split, _GONE).astype(np.int64)
            rows += np.bincount(goes, minlength=_GONE + 1)[:_GONE]
            block = lines.read(int(facts["length"].sum()))
            _copy(block, facts, goes, targets)
            gone = np.flatnonzero(state != KEPT)
            partners = shelf.facts.take(verdicts.partner[first + gone])
            for place, partner in zip(gone.tolist(), partners, strict=True):
                drops[NAMES[state[place]]][SPLITS[split[place]]] += 1
                reason = _REASONS[int(state[place])].format(f"{files[partner['file']]}:{partner['line']}")
                start = int(facts["offset"][place] - facts["offset"][0])
                example = decode_example(block[start:start + int(facts["length"][place])])
                dropped.write(dropped_line(NAMES[state[place]], reason, example))
            _measure(facts, goes, lengths, longest)
            counts = facts["lengths"][:, 3].astype(np.int64)
            keys = np.fromfile(words, "<u8", int(counts.sum()))
            vocabulary.add(KeyTable.arrange(_count_words(keys, np.repeat(goes, counts))))
    by_split = dict(zip(SPLITS, rows.tolist(), strict=True))
    for split_name, count in by_split.items():
        if not count and split_name != "train":
            (out / f"{split_name}.jsonl").unlink()
    return Dealt(by_split, drops, lengths, longest, coverage(vocabulary))


def read_line(shelf: Shelf, fact: Any) -> bytes:
    """Return the line of a row of which these are the facts."""
    with shelf.lines.open("rb") as file:
        file.seek(int(fact["offset"]))
        return file.read(int(fact["length"]))


def _copy(block: bytes, facts: NDArray[Any], goes: NDArray[np.int64], targets: Sequence[IO[bytes]]) -> None:
    """Copy the lines of a chunk to where they go, runs of neighbours at once."""
    ends = np.cumsum(facts["length"].astype(np.int64))
    last = np.append(np.flatnonzero(goes[1:] != goes[:-1]), len(goes) - 1)
    start = 0
    for place, end in zip(goes[last].tolist(), ends[last].tolist(), strict=True):
        if place != _GONE:
            targets[place].write(block[start:end])
        start = end


def _measure(facts: NDArray[Any], goes: NDArray[np.int64], lengths: NDArray[np.int64],
             longest: NDArray[np.int64]) -> None:
    for split in range(len(SPLITS)):
        found = facts["lengths"][goes == split]
        if not len(found):
            continue
        longest[split] = np.maximum(longest[split], found.max(axis=0))
        for number in range(len(LENGTHS)):
            counts = np.bincount(np.minimum(found[:, number], LONGEST), minlength=LONGEST + 1)
            lengths[split, number] += counts


def _count_words(keys: U64, goes: NDArray[np.int64]) -> U64:
    """Return entries (word, split | occurrences << 2) of a chunk."""
    parts = []
    for split in range(len(SPLITS)):
        words, counts = np.unique(keys[goes == split], return_counts=True)
        parts.append(np.stack([words, counts.astype(np.uint64) << np.uint64(2) | np.uint64(split)], axis=1))
    return np.concatenate(parts)


def coverage(vocabulary: KeyTable) -> dict[str, dict[str, float]]:
    """Return by split: distinct words, all words, and the shares of both that train has seen."""
    distinct, total = np.zeros(len(SPLITS), dtype=np.int64), np.zeros(len(SPLITS), dtype=np.int64)
    seen_distinct, seen_total = np.zeros_like(distinct), np.zeros_like(total)
    for part in _partitions(vocabulary):
        split, count, group = part
        groups = int(group[-1]) + 1
        sums = np.bincount(group * len(SPLITS) + split, weights=count, minlength=groups * len(SPLITS))
        table = sums.reshape(groups, len(SPLITS)).astype(np.int64)
        seen = table[:, 0] > 0
        distinct += (table > 0).sum(axis=0)
        total += table.sum(axis=0)
        seen_distinct += (table[seen] > 0).sum(axis=0)
        seen_total += table[seen].sum(axis=0)
    return {name: {"distinct": int(distinct[number]), "total": int(total[number]),
                   "distinct_seen": round(float(seen_distinct[number] / distinct[number]), 6),
                   "total_seen": round(float(seen_total[number] / total[number]), 6)}
            for number, name in enumerate(SPLITS) if total[number]}


def _partitions(vocabulary: KeyTable) -> Iterator[tuple[Rows, Rows, Rows]]:
    """Yield (split, occurrences, number of the word within the partition) of every partition."""
    for part in vocabulary.partitions():
        entries, first = by_key(part)
        group = np.cumsum(first == np.arange(len(first))) - 1
        codes = entries[:, 1].astype(np.int64)
        yield codes & 3, codes >> 2, group
