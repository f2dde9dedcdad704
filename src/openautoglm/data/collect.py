"""The first pass: read, sift in several processes, and lay everything down on disk in the order of the
rows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from openautoglm.core.progress import Progress
from openautoglm.core.values import Example, Reject
from openautoglm.data.census import Census, merge
from openautoglm.data.clean_settings import CleanSettings
from openautoglm.data.read import RejectLog, read
from openautoglm.data.rules.base import Drop, Rule
from openautoglm.data.settings import DataSettings
from openautoglm.data.sift import FACTS, SPLITS, Chunk, RuleTally, Sifted
from openautoglm.data.tables import KeyTable, RowFile
from openautoglm.data.workers import Builder, spread

CHUNK_ROWS = 1024
CHUNK_CHARS = 4 << 20

Files = dict[str, list[Path]]


class Shelf:
    """Everything known after the first pass: rows on disk in a scratch folder, counts in memory."""

    def __init__(self, folder: Path, settings: CleanSettings, rules: int) -> None:
        self.folder, self.most = folder, settings.examples
        self.rows = 0
        self.read = Counter[str]()
        self.tallies = [RuleTally(0, 0, [], []) for _ in range(rules)]
        self.census = Census(Counter(), {}, Counter())
        self.reject_examples: dict[str, list[dict[str, str]]] = {}
        self.facts = RowFile(folder / "facts", FACTS)
        self.signatures = RowFile(folder / "signatures", ("u1", (settings.near.permutations,)))
        self.words = RowFile(folder / "words", "<u8")
        self.exact = KeyTable(folder / "exact", 2)
        self.bands = KeyTable(folder / "bands", 3)
        self.lines = folder / "lines"
        self.dropped = folder / "dropped"
        self._stack = ExitStack()
        for file in (self.facts, self.signatures, self.words):
            self._stack.callback(file.finish)
        self._lines = self._stack.enter_context(self.lines.open("wb"))
        self._dropped = self._stack.enter_context(self.dropped.open("wb"))
        self._offset = 0

    def add(self, sifted: Sifted, split: int) -> None:
        """Lay down a sifted chunk; chunks come in the order of their rows."""
        facts = sifted.facts
        lengths = facts["length"].astype(np.int64)
        facts["offset"] = self._offset + np.cumsum(lengths) - lengths
        self._offset += len(sifted.lines)
        self.rows += sifted.rows
        self.read[SPLITS[split]] += sifted.rows
        self._lines.write(sifted.lines)
        self._dropped.write(sifted.dropped)
        self.facts.add(facts)
        self.signatures.add(sifted.signatures)
        self.words.add(sifted.words)
        self.exact.add(sifted.exact)
        self.bands.add(sifted.bands)
        both = zip(self.tallies, sifted.tallies, strict=True)
        self.tallies = [_sum(total, more, self.most) for total, more in both]
        merge(self.census, sifted.census, self.most)

    def note(self, items: Iterable[Example | Reject]) -> Iterator[Example | Reject]:
        """Pass rows on and remember the first rejects of each reason."""
        for item in items:
            if isinstance(item, Reject):
                shown = self.reject_examples.setdefault(item.reason, [])
                if len(shown) < self.most:
                    shown.append({"origin": str(item.origin), "detail": item.detail, "raw": item.raw[:600]})
            yield item

    def finish(self) -> None:
        """End the first pass; reading may begin."""
        self._stack.close()

    close = finish


def collect(shelf: Shelf, files: Files, data: DataSettings, settings: CleanSettings, rules: Sequence[Rule],
            rejects: RejectLog, bar: Progress) -> None:
    """Read all files, sift their rows and lay them down on the shelf."""
    names = [str(path) for paths in files.values() for path in paths]
    items = [rule.item() for rule in rules]
    splits: list[int] = []

    def jobs() -> Iterator[Chunk]:
        first = 0
        for split, paths in files.items():
            rows = rejects.examples(shelf.note(read(paths, data, lambda count: bar.advance(count))))
            for examples in chunked(rows):
                splits.append(SPLITS.index(split))
                yield Chunk(first, SPLITS.index(split), examples)
                first += len(examples)

    builder = Builder("openautoglm.data.sift:sifting", (settings, items, names))
    for number, sifted in enumerate(spread(jobs(), builder, processes(settings))):
        shelf.add(sifted, splits[number])
        bar.update(rows=shelf.rows)
    shelf.finish()


def processes(settings: CleanSettings) -> int:
    """Return how many processes clean: as set, or one per core that this process may use, at most 8."""
    return settings.workers or min(len(os.sched_getaffinity(0)), 8)


def chunked(examples: Iterator[Example]) -> Iterator[list[Example]]:
    """Cut a stream into chunks, bounded in rows and in characters."""
    while first := next(examples, None):
        chunk = [first]
        chars = len(first.source) + len(first.target)
        for example in islice(examples, CHUNK_ROWS - 1):
            chunk.append(example)
            chars += len(example.source) + len(example.target)
            if chars > CHUNK_CHARS:
                break
        yield chunk


def fitted(rules: Sequence[Rule], files: Files, data: DataSettings, bar: Any) -> tuple[Rule, ...]:
    """Return the rules with those fitted that need it: each sees, in a pass of its own, the train rows as the
    rules before it leave them.

    Raises:
        RuleError: a rule does not find what it needs.
    """
    done: list[Rule] = []
    for rule in rules:
        if rule.needs_fit:
            rule = rule.fit(_ruled(read(files["train"], data, bar), tuple(done)))
        done.append(rule)
    return tuple(done)


def _ruled(items: Iterable[Example | Reject], rules: tuple[Rule, ...]) -> Iterator[Example]:
    for item in items:
        result: Example | Reject | Drop = item
        for rule in rules:
            if not isinstance(result, Example):
                break
            result = rule.apply(result)
        if isinstance(result, Example):
            yield result


def _sum(total: RuleTally, more: RuleTally, most: int) -> RuleTally:
    return RuleTally(total.changed + more.changed, total.dropped + more.dropped,
                     list(islice(chain(total.change_examples, more.change_examples), most)),
                     list(islice(chain(total.drop_examples, more.drop_examples), most)))
