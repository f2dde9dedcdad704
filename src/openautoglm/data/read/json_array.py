"""JSON arrays, one element at a time: a scanner finds where elements end, the strict parser reads each.

A broken element costs itself: an unclosed quote ends where no JSON may follow it, a missing brace where the
next object begins. Nothing longer than `max_row_bytes` is held.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from openautoglm.data.read.json_lines import json_row
from openautoglm.data.read.lines import RAW_CHARS
from openautoglm.data.read.row import Bad, Row, Table
from openautoglm.data.read.source import BROKEN, Source, StreamError
from openautoglm.data.read.strict_json import parse_first

_MARK = re.compile(r'["\[\]{},]')
_STRING = re.compile(r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+(?:(?P<cut>(?:\\|"\s*)?\Z)|"(?=\s*[,:\]}]))', re.DOTALL)
_STRING_REST = re.compile(r'[^"\\\n]*+(?:\\.[^"\\\n]*+)*+', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*+")
_CLOSES = {"}": "{", "]": "["}


class _Text:
    """A moving window of decoded text: what is before `at` is done with; `line` is the line of `at`."""

    def __init__(self, source: Source) -> None:
        self.chunks = source.chunks
        self.decoder = codecs.getincrementaldecoder(source.encoding)("openautoglm-mark")
        self.window, self.at, self.line = "", 0, 1
        self.ended = False

    def more(self) -> bool:
        """Append at least as much as is left, so that scanning it again stays linear; false at the end."""
        self.window, self.at = self.window[self.at:], 0
        parts, size, wanted = [self.window], 0, len(self.window)
        while not self.ended and size <= wanted:
            chunk = next(self.chunks, None)
            self.ended = chunk is None
            parts.append(self.decoder.decode(chunk or b"", final=self.ended))
            size += len(parts[-1])
        self.window = "".join(parts)
        return size > 0

    @property
    def left(self) -> int:
        """How many characters the window still holds."""
        return len(self.window) - self.at

    def show(self, size: int = RAW_CHARS) -> str:
        """The next characters, without going on."""
        return self.window[self.at:self.at + size]

    def skip(self, size: int) -> None:
        """Go on by `size` characters."""
        self.line += self.window.count("\n", self.at, self.at + size)
        self.at += size

    def first(self) -> str:
        """Go on to the next character that is not white space, and return it, or nothing at the end."""
        while True:
            blank = _SPACE.match(self.window, self.at)
            self.skip(blank.end() - self.at if blank else 0)
            if self.left or not self.more():
                return self.show(1)


def json_array(source: Source, *, max_row_bytes: int, max_depth: int) -> Table:
    """Read the elements of one array, or one object that is the whole file (then it is one row)."""
    return Table(None, _rows(_Text(source), max_row_bytes, max_depth))


def _rows(text: _Text, limit: int, max_depth: int) -> Iterator[Row | Bad]:
    try:
        if text.first() != "[":
            yield _element(text, limit, max_depth, whole=True)
            return
        text.skip(1)
        if text.first() == "]":
            text.skip(1)
        else:
            yield from _elements(text, limit, max_depth)
        if text.first():
            yield Bad(text.line, "invalid_json", "text after the end of the array", text.show())
    except StreamError as error:
        yield Bad(text.line, error.reason, error.detail, text.show())


def _elements(text: _Text, limit: int, max_depth: int) -> Iterator[Row | Bad]:
    while True:
        text.first()
        item = _quick(text, limit // 4, max_depth) or _element(text, limit, max_depth)
        yield item
        mark = text.show(1)
        if not mark and isinstance(item, Row):
            yield Bad(text.line, "unclosed_json", "the array is not closed before the end of the file", "")
        if mark == "{":
            continue
        text.skip(1)
        if mark != ",":
            return


def _quick(text: _Text, max_chars: int, max_depth: int) -> Row | None:
    """Take one faultless object off the text, if the window holds it and the mark after it."""
    line, start, window = text.line, text.at, text.window
    parsed = parse_first(window, start, max_depth, max_chars) if window.startswith("{", start) else None
    if parsed is None:
        return None
    blank = _SPACE.match(window, parsed[1])
    end = blank.end() if blank else parsed[1]
    if not window.startswith((",", "]"), end) or window.find(BROKEN, start, end) >= 0:
        return None
    text.skip(end - start)
    return Row(line, parsed[0], window[start:parsed[1]])


def _element(text: _Text, limit: int, max_depth: int, whole: bool = False) -> Row | Bad:
    """Take one element off the text, up to the mark after it; `whole`: up to the end of the file."""
    line = text.line
    scan = _Scan(text, limit, whole)
    end = scan.run()
    raw = scan.head or text.show(end)
    closed = whole or text.left > end or not scan.stack
    text.skip(end)
    if scan.head or (len(raw) * 4 > limit and len(raw.encode("utf-8", "surrogatepass")) > limit):
        return Bad(line, "row_too_long",
                   f"longer than max_row_bytes ({limit:,} bytes), up to line {text.line}", raw)
    if not closed:
        return Bad(line, "unclosed_json", f"not closed before the end of the file (line {text.line})", raw)
    if BROKEN in raw:
        return Bad(line, "broken_encoding", f"bytes that are no text at character {raw.index(BROKEN) + 1}",
                   raw.replace(BROKEN, "\N{REPLACEMENT CHARACTER}"))
    return json_row(line, raw, max_depth)


class _Scan:
    """Finds the end of the element that begins where the text stands; places are counted from there."""

    def __init__(self, text: _Text, limit: int, whole: bool) -> None:
        self.text, self.limit, self.whole = text, limit, whole
        self.stack: list[str] = []
        self.head = ""
        self.place = 0

    def run(self) -> int:
        """Return how long the element is; `head` is set, and its beginning gone, when it was too long."""
        before, text = "", self.text
        while True:
            found = _MARK.search(text.window, text.at + self.place)
            mark = found[0] if found else ""
            string = _STRING.match(text.window, found.start()) if found and mark == '"' else None
            if found is None or (string and string["cut"] is not None):
                self.place = (found.start() if found else len(text.window)) - text.at
                if not self._grow(string is not None):
                    return text.left
                continue
            if not self.whole and ((not self.stack and mark in ",]") or (
                    mark == "{" and before == "," and self.stack[-1:] == ["{"])):
                return found.start() - text.at
            self.place = (string or found).end() - text.at
            self._nest(mark)
            before = mark

    def _nest(self, mark: str) -> None:
        if mark in ("{", "["):
            self.stack.append(mark)
        elif mark in _CLOSES and self.stack and self.stack[-1] == _CLOSES[mark]:
            self.stack.pop()

    def _grow(self, in_string: bool) -> bool:
        """Get more text; what is beyond the limit is dropped. False when there is no more."""
        text = self.text
        if text.left > self.limit:
            self.head = self.head or text.show()
            text.skip(self.place)
            self.place = 0
            if in_string and text.left > self.limit:
                return self._skip_string()
        if text.more():
            return True
        if in_string and self.place < text.left:
            self.place += 1
            return True
        return False

    def _skip_string(self) -> bool:
        """Skip a string that is longer than the limit, with its closing quote or the end of its line."""
        text = self.text
        text.skip(1)
        while True:
            rest = _STRING_REST.match(text.window, text.at)
            text.skip(rest.end() - text.at if rest else 0)
            if text.show(1) in ('"', "\n"):
                text.skip(1)
                return True
            if not text.more():
                return False
