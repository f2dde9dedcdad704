"""Which of llama.cpp's pre-tokenisers cuts text as a tokenizer does: told by what they do, on probe texts.

llama.cpp does not read the pattern by which a tokenizer cuts text before it merges bytes. It knows some by name. So the
tokenizer is given each of those patterns in place of its own, and the one whose ids are equal on all probes is written
down; where none is, the nearest, with a count of the probes that differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tokenizers

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GLM4 = (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
_QWEN2 = _GLM4.replace("{1,3}", "")


class Split(NamedTuple):
    """One of llama.cpp's pre-tokenisers: its patterns, one after the other, and whether whole words skip merging."""

    name: str
    patterns: tuple[str, ...]
    whole_words: bool = False


SPLITS = (Split("chatglm-bpe", (_GLM4,)), Split("glm4", (_GLM4,), whole_words=True), Split("gpt-2", (_GPT2,)),
          Split("qwen2", (_QWEN2,)), Split("starcoder", (r"\p{N}", _GPT2)))
"""In the order in which they are taken where several fit."""

PROBES: dict[str, tuple[str, ...]] = {
    "words": ("The Punter is a cheap pub.", "don't  can't WE'LL it's I'd", "x = f(a, b); // ok\n", "naïve café Straße",
              "name[The Eagle], eatType[coffee shop]", "e-mail: a.b@c.example, 50% off!", "(see below)", "a/b_c"),
    "quotes before words": ("\n'some words'", "'sing it'", "他说'day'", "\"'tis\"", ".'tis 'twas"),
    "numbers": ("5 of 12, 100 and 3.14", "£20-25 or 30€", "in 1999", "v1.10.0", "３００", "1,024.50"),
    "numbers of four digits and more": tuple(f"{before}{7**n}" for before in ("", " ", "a") for n in range(4, 40)),
    "spaces": ("a  b   c", " lead", "trail  ", "\n\n\nx", "a\n b", "\t\tx", "a \n", "a\r\n\r\nb", "a\u00a0b\u3000c"),
    "punctuation and line breaks": ("end.\nNext", "end.\n\nNext!\n", "...\n...", "?!\r\n", " --- \n"),
    "Chinese": ("床前明月光，疑是地上霜。", "举头望明月\n低头思故乡", "价格：１２元", "中 文"),
    "combining marks": ("cafe\u0301 noe\u0308l", "नमस्ते दुनिया", "ภาษาไทย", "שָׁלוֹם"),
    "other scripts": ("Привет, мир", "日本語のテキスト", "안녕하세요 세계", "مرحبا", "Ελληνικά"),
    "symbols": ("😀 👍🏽 👩‍👩‍👧", "→ ∀x∈ℝ", "½ ² Ⅷ ①", "\u200b\u200d\ufeff", "\x00\x07\x1f\x85", "\U0010fffd\ue000"),
}
PIECES = "pieces of the vocabulary"
_COMMON = ("words", "numbers", "spaces", "Chinese", PIECES)
"""Kinds that most texts hold; of two pre-tokenisers, the one that differs less on these is nearer."""
_MOST_PIECES = 4000


class Choice(NamedTuple):
    """The pre-tokeniser chosen; probes that it gives other ids, those of the vocabulary's own pieces among them."""

    name: str
    differing: dict[str, tuple[str, ...]]
    probes: int

    def told(self) -> str | None:
        """What a person should know; None where all ids are equal."""
        if not self.differing:
            return None
        count = sum(len(texts) for texts in self.differing.values())
        kinds = ", ".join(f"{kind} (e.g. {texts[0]!r})" for kind, texts in self.differing.items())
        return (f"no pre-tokeniser of llama.cpp cuts text exactly as this tokenizer; with the nearest, {self.name}, "
                f"{count} of {self.probes} probe texts get other ids: {kinds}. Give llama.cpp ids where that matters")


def choose(definition: dict[str, Any], pieces: Sequence[str]) -> Choice:
    """Choose the pre-tokeniser for a tokenizer.

    Args:
        definition: the content of its ``tokenizer.json``.
        pieces: texts of its vocabulary, which are probed too.
    """
    step = -(-len(pieces) // _MOST_PIECES) if pieces else 1
    kinds = {**PROBES, PIECES: tuple(pieces[::step])}
    texts = [text for many in kinds.values() for text in many]
    wanted = _ids(definition, texts)
    best: tuple[tuple[float, float], Choice] | None = None
    for split in SPLITS:
        found = iter(zip(texts, wanted, _ids(_with(definition, split), texts), strict=True))
        differing = {kind: tuple(text for text, ours, theirs in (next(found) for _ in many) if ours != theirs)
                     for kind, many in kinds.items()}
        choice = Choice(split.name, {kind: many for kind, many in differing.items() if many}, len(texts))
        distance = _distance(choice, kinds)
        if best is None or distance < best[0]:
            best = distance, choice
    assert best is not None
    return best[1]


def _distance(choice: Choice, kinds: Mapping[str, Sequence[str]]) -> tuple[float, float]:
    """Shares of the probes that differ, summed over common kinds, then over the others."""
    shares = {kind: len(texts) / len(kinds[kind]) for kind, texts in choice.differing.items()}
    common = sum(share for kind, share in shares.items() if kind in _COMMON)
    return common, sum(shares.values()) - common


def _with(definition: dict[str, Any], split: Split) -> dict[str, Any]:
    """The tokenizer as llama.cpp would run it with a pre-tokeniser."""
    cuts = [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
            for pattern in split.patterns]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {**definition, "normalizer": None, "post_processor": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*cuts, byte_level]},
            "model": {**definition["model"], "ignore_merges": split.whole_words, "byte_fallback": False,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None, "dropout": None}}


def _ids(definition: dict[str, Any], texts: Sequence[str]) -> list[list[int]]:
    backend = tokenizers.Tokenizer.from_str(json.dumps(definition))
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
