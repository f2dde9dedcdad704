"""Walking through grammars without a model: random logits, and masks as sets of ids."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from openautoglm.engine.grammar_state import GrammarState
from openautoglm.text.tokenizer import Tokenizer

TEXTS = [
    'The Punter is a cheap pub near Café Rouge. {"name": "Zoë", "tags": ["a", "b"], "stars": 12.5, "open": true}',
    "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。 😀😀 naïve façade, ½ and ² and ﬁ",
    '[{"x": null, "text": "one two three"}, {"x": false, "text": "four\\nfive \\u0001"}]',
] * 3


@cache
def tokenizer() -> Tokenizer:
    """Byte-level pieces: parts of characters, of JSON's signs, of several words at once."""
    return Tokenizer.train(TEXTS, 420)


def end_id() -> int:
    """The id that ends a text."""
    return tokenizer().special["<|endoftext|>"]


def allowed(state: GrammarState, vocab: int | None = None) -> set[int]:
    """The ids that may come next."""
    words = np.full(-(-(vocab or tokenizer().vocab_size) // 32), 0xABCDABCD, np.uint32)
    state.fill_mask(words)
    return set(np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")).tolist())


def draw(state: GrammarState, dice: np.random.Generator, stop: int) -> int:
    """The likeliest of the allowed ids by random logits; ends are likely, as of a model that has said what it had."""
    logits = dice.normal(size=tokenizer().vocab_size)
    logits[stop] += 3
    ids = np.array(sorted(allowed(state)))
    return int(ids[logits[ids].argmax()])


def write(state: GrammarState, dice: np.random.Generator, most: int = 2000) -> str:
    """Write a text by a grammar; it must come to an end."""
    tokens: list[int] = []
    while not state.finished:
        token = draw(state, dice, end_id())
        assert state.advance(token)
        tokens.append(token)
        assert len(tokens) <= most, tokenizer().decode(tokens)[:200]
    return tokenizer().decode([token for token in tokens if token != end_id()])


def feed(state: GrammarState, text: str) -> int:
    """Let a state take a text; how many tokens it was."""
    ids = tokenizer().encode(text)
    for token in ids:
        assert state.advance(token), tokenizer().decode([token])
    return len(ids)


def resident_bytes(pid: int | str = "self") -> int:
    """Memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
