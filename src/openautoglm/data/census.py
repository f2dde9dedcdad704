"""What the texts look like: faults counted as read, characters by script counted after cleaning."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from openautoglm.core.values import Example

_MOJIBAKE = re.compile("[ÂÃâ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|[ÐÑ][\u0080-\u00bf][ÐÑ]")
_SUSPECT = re.compile("[ÂÃâÐÑ\ufffd]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")

FAULTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("double spaces", lambda text: "  " in text),
    ("whitespace at an end", lambda text: text != text.strip()),
    ("line breaks", lambda text: "\n" in text or "\r" in text),
    ("control characters", lambda text: not text.isprintable() and _CONTROL.search(text) is not None),
    ("replacement characters (U+FFFD)", lambda text: not text.isascii() and "\ufffd" in text),
    ("signs of mojibake", lambda text: not text.isascii() and _MOJIBAKE.search(text) is not None),
    ("empty", lambda text: not text or text.isspace()),
)

_RANGES: tuple[tuple[int, str], ...] = (
    (0x00, "space and punctuation"), (0x30, "digits"), (0x3A, "space and punctuation"), (0x41, "Latin"),
    (0x5B, "space and punctuation"), (0x61, "Latin"), (0x7B, "space and punctuation"), (0xAA, "Latin"),
    (0xAB, "space and punctuation"), (0xC0, "Latin"), (0x370, "Greek"), (0x400, "Cyrillic"),
    (0x530, "Armenian"), (0x590, "Hebrew"), (0x600, "Arabic"), (0x780, "other"), (0x900, "Indic"),
    (0xE00, "Thai"), (0xE80, "other"), (0x1100, "Hangul"), (0x1200, "other"), (0x1E00, "Latin"),
    (0x1F00, "Greek"), (0x2000, "space and punctuation"), (0x2190, "symbols and emoji"), (0x2C00, "other"),
    (0x2E80, "Han"), (0x3000, "space and punctuation"), (0x3040, "Kana"), (0x3100, "Han"),
    (0x3130, "Hangul"), (0x3190, "Han"), (0xA000, "other"), (0xAC00, "Hangul"), (0xD7B0, "other"),
    (0xF900, "Han"), (0xFB00, "other"), (0xFF00, "space and punctuation"), (0xFF66, "Kana"),
    (0xFFA0, "Hangul"), (0xFFE0, "space and punctuation"), (0xFFF0, "other"),
    (0x1F000, "symbols and emoji"), (0x20000, "Han"), (0x40000, "other"))
_STARTS = np.array([start for start, _ in _RANGES], dtype=np.uint32)


class Census(NamedTuple):
    """Counts of one or more chunks.

    `faults` counts rows by (split, side, fault); `examples` holds the first few; `scripts` counts characters
    of targets by (split, script).
    """

    faults: Counter[tuple[str, str, str]]
    examples: dict[str, list[dict[str, str]]]
    scripts: Counter[tuple[str, str]]


def take_census(read: Sequence[Example], kept: Sequence[Example], split: str, most: int) -> Census:
    """Count faults of rows as they were read, and scripts of rows as they are kept."""
    census = Census(Counter(), {}, Counter())
    for example in read:
        texts = f"{example.source}|{example.target}"
        if (texts.isprintable() and "  " not in texts and " |" not in texts and "| " not in texts
                and not (texts[0].isspace() or texts[-1].isspace() or texts[-1] == "|")
                and (texts.isascii() or not _SUSPECT.search(texts))):
            continue
        for side, text in (("source", example.source), ("target", example.target)):
            if "  " not in text and text.isascii() and text.isprintable() and text.strip() == text and text:
                continue
            if side == "source" and not text:
                continue
            for fault, test in FAULTS:
                if test(text):
                    census.faults[split, side, fault] += 1
                    shown = census.examples.setdefault(fault, [])
                    if len(shown) < most:
                        shown.append({"origin": str(example.origin), "side": side, "text": text[:600]})
    for script, count in count_scripts([example.target for example in kept]).items():
        census.scripts[split, script] = count
    return census


def merge(total: Census, more: Census, most: int) -> None:
    """Add `more` to `total`, in place; the first examples stay."""
    total.faults.update(more.faults)
    total.scripts.update(more.scripts)
    for fault, examples in more.examples.items():
        shown = total.examples.setdefault(fault, [])
        shown.extend(examples[: most - len(shown)])


def count_scripts(texts: Sequence[str]) -> dict[str, int]:
    """Count characters by script, by ranges of code points."""
    plain = "".join([text for text in texts if text.isascii()]).encode()
    others = "".join([text for text in texts if not text.isascii()])
    points = np.frombuffer(others.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    narrow = points < 128
    ascii_counts = np.bincount(np.frombuffer(plain, dtype=np.uint8), minlength=128)
    ascii_counts += np.bincount(points[narrow], minlength=128)
    counts: Counter[str] = Counter()
    for number, (start, script) in enumerate(_RANGES):
        if start >= 128:
            break
        end = min(_RANGES[number + 1][0], 128)
        counts[script] += int(ascii_counts[start:end].sum())
    wide = points[~narrow]
    if len(wide):
        found = np.bincount(np.searchsorted(_STARTS, wide, side="right") - 1, minlength=len(_RANGES))
        for (_, script), count in zip(_RANGES, found.tolist(), strict=True):
            counts[script] += count
    return {script: count for script, count in counts.items() if count}
