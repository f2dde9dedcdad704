"""``tokenizer.json`` as tables for the edge program: pieces, merges, pattern, classes of code points, added tokens.

docs/edge.md tells the layout. What the tables cannot say is refused: a normaliser, other models than byte-level BPE.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openautoglm.core.errors import TokenizerError
from openautoglm.edge.pattern import Alternative, Element, Ranges, parse
from openautoglm.text.tokenizer import byte_letters

MAGIC, VERSION = b"OAGT", 1
_HEADER = struct.Struct("<4sIII")
_CLASS, _NONE, _END, _POSSESSIVE = range(4)
_MOST_CLASSES = 32
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What the pre-tokeniser ``ByteLevel`` cuts by when it is told to."""
_REMEDY = "export a model whose tokenizer is GLM-4's or ours"
Split = tuple[list[Alternative], bool]


def tables_of(path: Path) -> bytes:
    """The tables of a ``tokenizer.json``.

    Raises:
        TokenizerError: it cannot be read, or holds what the edge program does not do.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        model = facts["model"]
        vocabulary: dict[str, int] = model["vocab"]
        merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
        added: list[dict[str, Any]] = facts.get("added_tokens") or []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokenizerError(f"cannot be read: {error}", where=str(path), remedy="fetch or write it again") from error
    _check(facts, model, added)
    size = 1 + max([*vocabulary.values(), *(token["id"] for token in added)])
    pieces = _pieces(vocabulary, added, size)
    runs, elements, splits = _patterns(_splits(facts.get("pre_tokenizer")))
    offsets = np.concatenate(([0], np.cumsum([len(piece) for piece in pieces])))
    plain = [token for token in added if not token["special"]]
    contents = [token["content"].encode() for token in plain]
    starts = np.concatenate(([0], np.cumsum([len(content) for content in contents]))).astype(int)
    sections = [
        offsets.astype("<u4").tobytes(), b"".join(pieces), _byte_ids(vocabulary), _merges(vocabulary, merges),
        _sorted(vocabulary, pieces) if model.get("ignore_merges") else b"", runs, elements, splits,
        _u32((start, len(content), token["id"], int(bool(token.get("normalized"))))
             for start, content, token in zip(starts, contents, plain, strict=False)),
        b"".join(contents)]
    return _file(size, sections)


def _check(facts: Mapping[str, Any], model: Mapping[str, Any], added: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what the tables cannot say."""
    faults = []
    if model.get("type") not in (None, "BPE"):
        faults.append(f"its model is {model.get('type')}, not BPE")
    if facts.get("normalizer") is not None:
        faults.append("it has a normaliser")
    faults += [f"its model sets {name}" for name in ("dropout", "unk_token", "continuing_subword_prefix",
                                                     "end_of_word_suffix", "byte_fallback") if model.get(name)]
    faults += [f"the added token {token['content']!r} takes the spaces around it, or only whole words"
               for token in added if not token["special"]
               and (token.get("lstrip") or token.get("rstrip") or token.get("single_word"))]
    if faults:
        raise TokenizerError(f"the edge program does not do what this tokenizer does: {'; '.join(faults)}",
                             where="tokenizer.json", remedy=_REMEDY)


def _pieces(vocabulary: Mapping[str, int], added: Sequence[Mapping[str, Any]], size: int) -> list[bytes]:
    """The bytes that each id is decoded to; none of special tokens."""
    letters = byte_letters()
    pieces = [b""] * size
    texts = {**{i: text for text, i in vocabulary.items()}, **{token["id"]: token["content"] for token in added}}
    for i, text in texts.items():
        known = all(letter in letters for letter in text)
        pieces[i] = bytes(letters[letter] for letter in text) if known else text.encode()
    for token in added:
        if token["special"]:
            pieces[token["id"]] = b""
    return pieces


def _byte_ids(vocabulary: Mapping[str, int]) -> bytes:
    ids = {byte: vocabulary.get(letter) for letter, byte in byte_letters().items()}
    if missing := sorted(byte for byte, found in ids.items() if found is None):
        raise TokenizerError(f"the vocabulary lacks {len(missing)} of the 256 bytes, {missing[0]:#04x} among them",
                             where="tokenizer.json", remedy=_REMEDY)
    return _u32((ids[byte],) for byte in range(256))


def _merges(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, ...]]) -> bytes:
    """Merges by the ids that they join; of two of the same ids the later counts, as in the library."""
    made: dict[tuple[int, int], tuple[int, int]] = {}
    try:
        for rank, (left, right) in enumerate(merges):
            made[vocabulary[left], vocabulary[right]] = rank, vocabulary[left + right]
    except (KeyError, ValueError) as error:
        raise TokenizerError(f"a merge joins what the vocabulary lacks: {error}", where="tokenizer.json",
                             remedy="fetch or write it again") from error
    return _u32((*pair, *made[pair]) for pair in sorted(made))


def _sorted(vocabulary: Mapping[str, int], pieces: Sequence[bytes]) -> bytes:
    """Ids in the order of their bytes: where whole words come before merges they are looked up so."""
    return _u32((i,) for i in sorted(vocabulary.values(), key=lambda i: pieces[i]))


def _splits(pre: Mapping[str, Any] | None) -> list[Split]:
    """Patterns by which texts are cut, one after the other, and whether what lies between matches stays."""
    parts = pre.get("pretokenizers", ()) if pre and pre.get("type") == "Sequence" else [pre] if pre else []
    splits: list[Split] = []
    byte_level = False
    for part in parts:
        kind = part.get("type")
        if kind == "Split" and not byte_level:
            behaviour = (str(part.get("behavior")).lower(), bool(part.get("invert")))
            expression = (part.get("pattern") or {}).get("Regex")
            if expression is None or behaviour not in (("isolated", False), ("isolated", True), ("removed", True)):
                raise TokenizerError(f"the edge program cannot cut by {json.dumps(part)}", where="pre_tokenizer",
                                     remedy=_REMEDY)
            splits.append((parse(expression), behaviour[0] == "isolated"))
        elif kind == "ByteLevel" and not part.get("add_prefix_space"):
            byte_level = True
            if part.get("use_regex", True):
                splits.append((parse(_GPT2), True))
        else:
            raise TokenizerError(f"the edge program cannot cut by {json.dumps(part)}", where="pre_tokenizer",
                                 remedy=_REMEDY)
    if not byte_level:
        raise TokenizerError("the pre-tokeniser makes no bytes of the text", where="pre_tokenizer", remedy=_REMEDY)
    return splits


def _patterns(splits: Sequence[Split]) -> tuple[bytes, bytes, bytes]:
    """Runs of code points by their classes, elements of all alternatives, and where each pattern's lie."""
    classes: dict[Ranges, int] = {}
    rows: list[tuple[int, int, int, int]] = []
    places = []
    for alternatives, keeps in splits:
        first = len(rows)
        for alternative in alternatives:
            rows += [(_kind(element), classes.setdefault(element.ranges, len(classes)), element.least, element.most)
                     for element in alternative]
            rows.append((_END, 0, 0, 0))
        places.append((first, len(rows), int(keeps), 0))
    if len(classes) > _MOST_CLASSES:
        raise TokenizerError(f"the pre-tokeniser has {len(classes)} classes, at most {_MOST_CLASSES} are possible",
                             where="pre_tokenizer", remedy=_REMEDY)
    elements = b"".join(struct.pack("<BBHHH", kind, bit, least, most, 0) for kind, bit, least, most in rows)
    return _runs(classes), elements, _u32(places)


def _kind(element: Element) -> int:
    return _NONE if element.kind == "none" else _POSSESSIVE if element.possessive else _CLASS


def _runs(classes: Mapping[Ranges, int]) -> bytes:
    changes: dict[int, int] = {0: 0}
    for ranges, bit in classes.items():
        for edge in (edge for one in ranges for edge in one):
            changes[edge] = changes.get(edge, 0) ^ 1 << bit
    mask, runs = 0, []
    for first in sorted(changes):
        mask ^= changes[first]
        runs.append((first, mask))
    return _u32(runs)


def _u32(rows: Iterable[Iterable[Any]]) -> bytes:
    return np.array([value for row in rows for value in row], "<u4").tobytes()


def _file(size: int, sections: Sequence[bytes]) -> bytes:
    """A header, places of the sections, and the sections, each at a multiple of 8 bytes."""
    at = _HEADER.size + 16 * len(sections)
    places, body = [], b""
    for section in sections:
        places.append(struct.pack("<QQ", at + len(body), len(section)))
        body += section + bytes(-len(section) % 8)
    return _HEADER.pack(MAGIC, VERSION, size, 0) + b"".join(places) + body
