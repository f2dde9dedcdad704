"""From ids to text piece by piece: nothing is shown before it is certain.

A token may be a piece of a character, and text may be the beginning of a stop string; both are held back until the
next tokens decide. The engine knows ids only, so whoever serves text puts this behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openautoglm.engine.request import Watcher

Decode = Callable[[Sequence[int]], str]
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class StopFilter:
    """Text that ends before the first of some strings; what may be the beginning of one is held back.

    Args:
        stops: strings that end the text; neither they nor what follows is shown. Empty ones count for nothing.

    Attributes:
        stopped: the string that ended the text; None while it goes on.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max((len(stop) for stop in self._stops), default=0)
        self._held = ""
        self.stopped: str | None = None

    def show(self, new: str) -> str:
        """Add text; return what can be no part of a stop string."""
        text = self._held + new
        found = [(text.index(stop), stop) for stop in self._stops if stop in text]
        if found:
            place, self.stopped = min(found, key=lambda pair: pair[0])
            self._held = ""
            return text[:place]
        cut = len(text) - self._beginning(text)
        self._held = text[cut:]
        return text[:cut]

    def rest(self) -> str:
        """Return what was held back; the text has ended."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[len(text) - length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0


class TextStream:
    """The text of one answer as it grows.

    Args:
        decode: gives the text of ids; a character whose bytes are not all there becomes U+FFFD.
        stops: strings that end the text; neither they nor what follows is shown.
    """

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._decode, self._filter = decode, StopFilter(stops)
        self._ids: list[int] = []
        self._known = 0
        self._known_text = ""

    @property
    def stopped(self) -> str | None:
        """The stop string that ended the text; None while it goes on."""
        return self._filter.stopped

    def feed(self, ids: Sequence[int]) -> str:
        """Take new ids; return the text that is certain now."""
        shown = []
        for token in ids:
            if self.stopped is not None:
                break
            self._ids.append(token)
            text = self._decode(self._ids)
            if text.endswith(_INCOMPLETE):
                continue
            shown.append(self._filter.show(text[len(self._known_text):]))
            self._ids = self._ids[self._known:]  # the last ids stay as context, as spacing may depend on them
            self._known, self._known_text = len(self._ids), self._decode(self._ids)
        return "".join(shown)

    def finish(self) -> str:
        """Return what was held back; the answer has ended."""
        if self.stopped is not None:
            return ""
        new = self._decode(self._ids)[len(self._known_text):] if self._known < len(self._ids) else ""
        rest = self._filter.show(new) if new else ""
        if self.stopped is None:
            rest += self._filter.rest()
        self._known = len(self._ids)
        return rest


def stop_watcher(decode: Decode, stops: Sequence[str]) -> Callable[[], Watcher]:
    """Return what `Request.watch` takes to end an answer at the first of these strings."""
    def make() -> Watcher:
        stream = TextStream(decode, stops)

        def watch(token: int) -> bool:
            stream.feed([token])
            return stream.stopped is not None

        return watch

    return make
