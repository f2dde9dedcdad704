"""Text from ids: nothing is shown that a later token takes back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.engine.text_stream import TextStream, stop_watcher


def decode(ids: Sequence[int]) -> str:
    """Bytes as ids."""
    return bytes(ids).decode("utf-8", errors="replace")


def spaced(ids: Sequence[int]) -> str:
    """Words as ids: the first has no space before it, as in some tokenizers."""
    return " ".join(f"w{i}" for i in ids)


def show(text: str, stops: Sequence[str] = (), step: int = 1) -> tuple[list[str], TextStream]:
    stream, raw = TextStream(decode, stops), text.encode()
    shown = [stream.feed(list(raw[place:place + step])) for place in range(0, len(raw), step)]
    return [*shown, stream.finish()], stream


@given(st.text(max_size=30), st.integers(1, 5))
def test_all_of_a_text_comes_and_nothing_else(text: str, step: int) -> None:
    shown, stream = show(text, step=step)
    assert "".join(shown) == text
    assert stream.stopped is None


@given(st.text(alphabet="abé", max_size=20), st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3),
       st.integers(1, 3))
def test_a_text_ends_before_its_first_stop(text: str, stops: list[str], step: int) -> None:
    shown, stream = show(text, stops, step)
    for grown in range(len(text) + 1):  # the first moment at which a stop string stands in the text
        found = sorted((text[:grown].index(stop), stop) for stop in stops if stop in text[:grown])
        if found:
            assert "".join(shown) == text[:found[0][0]]
            assert stream.stopped in stops
            return
    assert "".join(shown) == text
    assert stream.stopped is None


def test_the_beginning_of_a_stop_is_held_back_and_comes_when_it_was_none() -> None:
    shown, _ = show("a<en<end", ["<end>"])
    assert shown == ["a", "", "", "", "<en", "", "", "", "<end"]
    shown, stream = show("ab<end>cd", ["<end>"])
    assert "".join(shown) == "ab"
    assert stream.stopped == "<end>"
    assert stream.feed([101]) == ""


def test_pieces_of_characters_are_held_back() -> None:
    shown, _ = show("aé€")
    assert shown == ["a", "", "é", "", "", "€", ""]
    stream = TextStream(decode)
    assert stream.feed([0xC3]) == ""
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"


def test_spaces_between_words_are_kept() -> None:
    stream = TextStream(spaced)
    assert [stream.feed([i]) for i in (1, 2, 3)] == ["w1", " w2", " w3"]


@pytest.mark.parametrize("stop", ["lo w", "w"])
def test_a_watcher_ends_at_the_stop(stop: str) -> None:
    make = stop_watcher(decode, [stop])
    for _ in range(2):  # each answer has a watcher of its own
        watch, text = make(), "hello world"
        ends = [watch(byte) for byte in text.encode()]
        assert ends.index(True) == text.index(stop) + len(stop) - 1
