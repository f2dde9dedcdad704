"""The work on one chunk of rows: rules in order, then everything that later stages must know of each row.

A chunk is sifted alone, in any process; what comes out depends on nothing but the chunk.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import AutoGLMError, RuleError
from openautoglm.core.values import Example, Origin
from openautoglm.data.census import Census, take_census
from openautoglm.data.clean_settings import CleanSettings
from openautoglm.data.jsonl import encode_example
from openautoglm.data.keys import Signer, WordKeys, key, keys, mix, normalised, split_words
from openautoglm.data.rules.base import Drop, Rule
from openautoglm.data.rules.registry import build_rules
from openautoglm.data.tables import U64, KeyTable

SPLITS = ("train", "valid", "test")
PAIR, SOURCE, TARGET = range(3)
FACTS = np.dtype([("offset", "<i8"), ("source", "<u8"), ("length", "<u4"), ("line", "<u4"), ("raw", "<u4"),
                  ("file", "<u2"),
                  ("split", "u1"), ("kept", "u1"), ("lengths", "<u4", (4,))])
"""What is kept of a row: where its line lies, its source's key, its origin, a checksum of the pair as it was
read, and its lengths (see `LENGTHS`)."""
LENGTHS = ("source characters", "source words", "target characters", "target words")
SHOWN_CHARS = 600

Arranged = tuple[U64, NDArray[np.int64]]


@dataclass(frozen=True)
class Chunk:
    """Some rows of one split; `first` is the number of the first one among all rows read."""

    first: int
    split: int
    examples: list[Example]

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as columns: a quarter of the time of pickling examples one by one."""
        rows = [(row.source, row.target, row.origin.file, row.origin.line, row.fields, row.turns)
                for row in self.examples]
        return _unpacked, (self.first, self.split, rows)


def _unpacked(first: int, split: int, rows: list[tuple[str, str, str, int, Any, Any]]) -> Chunk:
    return Chunk(first, split, [Example(source, target, Origin(file, line), fields, turns)
                                for source, target, file, line, fields, turns in rows])


class RuleTally(NamedTuple):
    """What one rule did: counts, and the first examples of each."""

    changed: int
    dropped: int
    change_examples: list[dict[str, str]]
    drop_examples: list[dict[str, str]]


class Sifted(NamedTuple):
    """What is known after sifting a chunk; see `FACTS`. `words` are the word keys of kept targets, end to
    end."""

    rows: int
    lines: bytes
    facts: NDArray[Any]
    words: U64
    signatures: NDArray[np.uint8]
    exact: Arranged
    bands: Arranged
    dropped: bytes
    tallies: list[RuleTally]
    census: Census


def sifting(settings: CleanSettings, items: Sequence[Any], files: Sequence[str]) -> Callable[[Chunk], Sifted]:
    """Return the function that sifts chunks, from what another process can be given: rules as their
    entries."""
    return Sifter(settings, build_rules(items), files).sift


class Sifter:
    """Applies rules and makes keys, chunk by chunk."""

    def __init__(self, settings: CleanSettings, rules: Sequence[Rule], files: Sequence[str]) -> None:
        self.settings, self.rules = settings, tuple(rules)
        self.files = {file: number for number, file in enumerate(files)}
        self.words = WordKeys()
        self.signer = Signer(settings.near)
        self._sources: dict[tuple[str, Any], tuple[int, int]] = {}

    def sift(self, chunk: Chunk) -> Sifted:
        """Apply the rules to a chunk and note what later stages need.

        Raises:
            RuleError: a rule fails on a row (named).
        """
        kept, dropped, tallies = self._apply(chunk.examples)
        places = np.array([place for place, _ in kept], dtype=np.int64)
        examples = [example for _, example in kept]
        facts = np.zeros(len(chunk.examples), dtype=FACTS)
        facts["split"] = chunk.split
        facts["file"] = [self.files[example.origin.file] for example in chunk.examples]
        facts["line"] = [example.origin.line for example in chunk.examples]
        facts["kept"][places] = 1
        encoded = [encode_example(example).encode() + b"\n" for example in examples]
        facts["length"][places] = [len(line) for line in encoded]
        words, counts, targets = self._texts(examples, facts, places)
        facts["raw"] = [crc32(f"{example.source}\0{example.target}".encode("utf-8", "surrogatepass"))
                        for example in chunk.examples]
        rows = (places + chunk.first).astype(np.uint64) << np.uint64(4) | np.uint64(chunk.split)
        long = counts >= self.settings.near.min_words
        signatures = np.zeros((len(chunk.examples), self.settings.near.permutations), dtype=np.uint8)
        full = self.signer.sign(words, counts)
        signatures[places] = full.astype(np.uint8)
        sources = facts["source"][places]
        has_source = np.array([bool(example.source or example.turns) for example in examples], dtype=bool)
        return Sifted(
            rows=len(chunk.examples), lines=b"".join(encoded), facts=facts, words=words,
            signatures=signatures,
            exact=_exact(rows, sources, targets, has_source, long, chunk.split),
            bands=_bands(self.signer.band_keys(full[long]), rows[long], sources[long]),
            dropped=b"".join(dropped), tallies=tallies,
            census=take_census(chunk.examples, examples, SPLITS[chunk.split], self.settings.examples))

    def _apply(self, examples: list[Example]
               ) -> tuple[list[tuple[int, Example]], list[bytes], list[RuleTally]]:
        kept: list[tuple[int, Example]] = []
        dropped: list[bytes] = []
        changes, drops = [0] * len(self.rules), [0] * len(self.rules)
        shown: list[tuple[list[dict[str, str]], list[dict[str, str]]]] = [([], []) for _ in self.rules]
        most, verbs = self.settings.examples, [rule.apply for rule in self.rules]
        for place, example in enumerate(examples):
            for number, apply in enumerate(verbs):
                try:
                    result = apply(example)
                except AutoGLMError:
                    raise
                except Exception as error:
                    raise _failed(self.rules[number], example, error) from error
                if result is example:
                    continue
                if isinstance(result, Drop):
                    drops[number] += 1
                    dropped.append(dropped_line(self.rules[number].name, result.reason, example))
                    if len(shown[number][1]) < most:
                        shown[number][1].append(_show_drop(example, result.reason))
                    break
                changes[number] += 1
                if len(shown[number][0]) < most:
                    shown[number][0].append(_show_change(example, result))
                example = result
            else:
                kept.append((place, example))
        return kept, dropped, [RuleTally(changed, gone, *lists)
                               for changed, gone, lists in zip(changes, drops, shown, strict=True)]

    def _texts(self, examples: list[Example], facts: NDArray[Any],
               places: NDArray[np.int64]) -> tuple[U64, NDArray[np.int64], U64]:
        sources = [self._source(example) for example in examples]
        facts["source"][places] = [number for number, _ in sources]
        texts = [normalised(example.target) for example in examples]
        words, counts = self.words.of(texts)
        lengths = np.zeros((len(examples), 4), dtype=np.uint32)
        lengths[:, 0] = [len(example.source) for example in examples]
        lengths[:, 1] = [count for _, count in sources]
        lengths[:, 2] = [len(example.target) for example in examples]
        lengths[:, 3] = counts
        facts["lengths"][places] = lengths
        return words, counts, keys(texts)

    def _source(self, example: Example) -> tuple[int, int]:
        """Return the key and the words of the whole input side: earlier turns and source."""
        known = self._sources.get((example.source, example.turns))
        if known is None:
            parts = [f"{turn.role}\0{turn.text}" for turn in example.turns]
            text = normalised("\0".join([*parts, example.source]))
            known = key(text), len(split_words(normalised(example.source)))
            if len(self._sources) >= 1 << 13:
                self._sources.clear()
            self._sources[example.source, example.turns] = known
        return known


def _failed(rule: Rule, example: Example, error: Exception) -> RuleError:
    return RuleError(f"rule {rule.name!r} failed: {type(error).__name__}: {error}", where=str(example.origin),
                     remedy="correct the rule, or take it out of clean.rules")


def _exact(rows: U64, sources: U64, targets: U64, has_source: NDArray[np.bool_], long: NDArray[np.bool_],
           split: int) -> Arranged:
    """Entries (key, row | kind | split) of equal pairs (within the split), sources and targets (across
    splits)."""
    pairs = mix(mix(sources, 7) + targets, 16 + split)
    parts = ((PAIR, pairs, rows), (SOURCE, mix(sources[has_source], 48), rows[has_source]),
             (TARGET, mix(targets[long], 64), rows[long]))
    entries = [np.stack([keys, codes | np.uint64(kind << 2)], axis=1) for kind, keys, codes in parts]
    return KeyTable.arrange(np.concatenate(entries))


def _bands(keys: U64, rows: U64, sources: U64) -> Arranged:
    """Entries (band key, row | split, source key), one a band and row."""
    bands = keys.shape[1]
    columns = [keys.reshape(-1), np.repeat(rows, bands), np.repeat(sources, bands)]
    return KeyTable.arrange(np.stack(columns, axis=1))


def dropped_line(rule: str, reason: str, example: Example) -> bytes:
    """Return one line of ``dropped.jsonl``: the rule, its reason, and the row as it was when it left."""
    row = {"rule": rule, "reason": reason, "file": example.origin.file, "line": example.origin.line,
           "source": example.source, "target": example.target}
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def shown(text: str) -> str:
    """Return a text for a report: its beginning, if it is long."""
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


def _show_change(before: Example, after: Example) -> dict[str, str]:
    side = "target" if before.target != after.target else "source"
    return {"origin": str(after.origin), "side": side, "before": shown(getattr(before, side)),
            "after": shown(getattr(after, side))}


def _show_drop(example: Example, reason: str) -> dict[str, str]:
    return {"origin": str(example.origin), "reason": reason, "source": shown(example.source),
            "target": shown(example.target)}
