"""Structured output: JSON schemas, regular expressions and choices become states that say which token may follow.

Grammars come from clients, so none is compiled in the server before another process has compiled it and written
texts by it within bounds of time and memory (`grammar_worker`). The compiled object cannot move between processes;
the library's work is the same in each of them and bounded in both, so the server repeats what has been seen to work.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from openautoglm.core.errors import GenerationError, ResourceError
from openautoglm.engine.grammar_check import Grammar, GrammarLimits, as_mapping, dumps, parts, source_of
from openautoglm.engine.grammar_library import Matcher, make_matcher, make_tokenizer
from openautoglm.engine.grammar_process import GrammarProcess
from openautoglm.engine.grammar_state import GrammarState

_MOST_PARTS = 200
_LEAST_BYTES = 65_536
_REMEDIES = {
    "time": "simplify it: bound repetitions, take alternatives apart, drop multipleOf",
    "memory": "simplify it: bound repetitions, take alternatives apart, drop multipleOf",
    "complex": "simplify it: fewer alternatives and optional properties beside each other, shorter repetitions",
    "empty": "check bounds and patterns against each other, and that every text can come to an end",
    "invalid": "correct or simplify this part; docs/structured-output.md lists what is supported",
}


class _Entry(NamedTuple):
    matcher: Matcher
    size: int


class GrammarCompiler:
    """Compiles grammars for one vocabulary, and keeps them. For any number of threads.

    The process and the library's table of the vocabulary are made at the first grammar. Close it, or use it as a
    context manager.

    Args:
        pieces: bytes of each id (`Tokenizer.pieces`); empty for ids that no text holds, such as special tokens and
            padding of the embedding.
        limits: of what clients may ask.

    Raises:
        MissingExtraError: the library is not installed (at the first `compile`).
    """

    def __init__(self, pieces: Sequence[bytes], limits: GrammarLimits | None = None) -> None:
        self.pieces, self.limits = tuple(pieces), limits or GrammarLimits()
        self._process = GrammarProcess(self.pieces, self.limits.library, self.limits.memory_bytes,
                                       self.limits.time_s)
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._held = 0
        self._tokenizer: Any = None
        self._busy, self._guard = threading.Lock(), threading.Lock()
        self._waiting = 0

    def __enter__(self) -> GrammarCompiler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and forget the grammars; states go on working."""
        with self._busy:
            self._process.close()
        with self._guard:
            self._entries.clear()
            self._held = 0

    @property
    def cached(self) -> int:
        """Grammars that are kept."""
        return len(self._entries)

    @property
    def cached_bytes(self) -> int:
        """What they took when they were tried out."""
        return self._held

    @property
    def process_id(self) -> int | None:
        """Number of the process that tries grammars out; None before the first."""
        return self._process.pid

    def compile(self, grammar: Grammar, stop_ids: Sequence[int] = ()) -> GrammarState:
        """Return the state of a new answer, at its beginning.

        Blocks for milliseconds as a rule, for `limits.time_s` at most, and as long for each call before it; call it
        where a request comes in, not in the engine's loop.

        Args:
            stop_ids: ids that end the answer.

        Raises:
            GenerationError: the grammar is faulty, not supported, or beyond the limits; says which part of it.
            ResourceError: too many calls wait, or the process does not start.
        """
        source = source_of(grammar, self.limits)
        key = hashlib.sha256(source.encode()).digest()
        matcher = self._known(key)
        if matcher is None:
            self._enter()
            try:
                with self._busy:
                    matcher = self._known(key) or self._new(grammar, source, key)
            finally:
                with self._guard:
                    self._waiting -= 1

        def fresh() -> Matcher:
            self._forget(key)
            return make_matcher(self._tokenizer, source, self.limits.library)

        return GrammarState(matcher.deep_copy(), fresh, len(self.pieces), stop_ids)

    def _enter(self) -> None:
        with self._guard:
            if self._waiting > self.limits.waiting:
                raise ResourceError(f"{self._waiting} grammars wait to be compiled", where="grammar",
                                    remedy="try again later, or raise waiting")
            self._waiting += 1

    def _known(self, key: bytes) -> Matcher | None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry.matcher

    def _new(self, grammar: Grammar, source: str, key: bytes) -> Matcher:
        reply = self._process.ask({"source": source})
        if reply["kind"] != "good":
            raise self._fault(grammar, reply)
        if self._tokenizer is None:
            self._tokenizer = make_tokenizer(self.pieces)
        matcher = make_matcher(self._tokenizer, source, self.limits.library)
        if matcher.is_error():
            raise self._fault(grammar, {"kind": "invalid", "error": matcher.get_error()})
        self._keep(key, _Entry(matcher, max(int(reply["bytes"]), _LEAST_BYTES) + len(source)))
        return matcher

    def _keep(self, key: bytes, entry: _Entry) -> None:
        with self._guard:
            if entry.size > self.limits.cache_bytes:
                return
            self._entries[key] = entry
            self._held += entry.size
            while self._held > self.limits.cache_bytes:
                _, oldest = self._entries.popitem(last=False)
                self._held -= oldest.size

    def _forget(self, key: bytes) -> None:
        """Drop a grammar whose shared tables are full."""
        with self._guard:
            entry = self._entries.pop(key, None)
            self._held -= entry.size if entry is not None else 0

    def _fault(self, grammar: Grammar, reply: dict[str, Any]) -> GenerationError:
        kind, message, where = reply["kind"], _plain(reply["error"]), grammar.kind
        if kind == "invalid" and isinstance(grammar.json_schema, dict):
            known = list(parts(grammar.json_schema))[:_MOST_PARTS]
            found = self._process.ask({"parts": [dumps(as_mapping(part)) for _, part in known]})
            if found["kind"] == "located" and found["error"]:
                message, where = _plain(found["error"]), known[found["number"]][0]
        what = {"empty": "cannot be followed to an end", "invalid": "cannot be compiled"}.get(kind, "is too complex")
        return GenerationError(f"{what}: {message}", where=where, remedy=_REMEDIES[kind])


def _plain(error: str) -> str:
    """The library's words without its picture of the source."""
    lines = [line.strip() for line in error.split("\n   1 | ")[0].splitlines()]
    reasons = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    first = lines[0].partition("): ")[2] or lines[0] if lines and lines[0].startswith("at ") else "; ".join(lines)
    return (reasons[0] if reasons else first)[:300]
