"""From ids to text: piece by piece the same as at once, whatever the tokens cut."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.engine.text_stream import TextStream
from openautoglm.serve.service.answer_text import AnswerText, TokenTexts, pieces_of
from openautoglm.text.tokenizer import Tokenizer

_ids = st.lists(st.integers(0, 330), max_size=24)  # a few more than there are
_cuts = st.lists(st.integers(0, 24), max_size=6)


def parts(ids: Sequence[int], cuts: Sequence[int]) -> list[Sequence[int]]:
    edges = sorted({0, len(ids), *(cut for cut in cuts if cut <= len(ids))})
    return [ids[start:end] for start, end in pairwise(edges)]


def grown(answer: AnswerText, pieces: Sequence[Sequence[int]]) -> str:
    return "".join([answer.feed(piece) for piece in pieces if piece] + [answer.finish()])


@given(_ids, _cuts)
def test_the_text_is_the_tokenizers_own(tokenizer: Tokenizer, ids: list[int], cuts: list[int]) -> None:
    pieces = pieces_of(tokenizer, 340)
    assert grown(AnswerText(pieces), parts(ids, cuts)) == tokenizer.decode(ids)


@given(_ids, _cuts, st.lists(st.sampled_from(["e", " p", "é", "关", "he", "\ufffd", "at", "Pu", "\u0000"]), max_size=3))
def test_stop_strings_end_it_as_they_end_the_engines_stream(tokenizer: Tokenizer, ids: list[int], cuts: list[int],
                                                            stops: list[str]) -> None:
    answer, stream = AnswerText(pieces_of(tokenizer, 340), stops), TextStream(tokenizer.decode, stops)
    shown = grown(answer, parts(ids, cuts))
    assert shown == stream.feed(ids) + stream.finish()
    assert answer.stopped == (stream.stopped is not None)
    assert not any(stop in shown for stop in stops)


def test_nothing_is_shown_before_it_is_certain(tokenizer: Tokenizer) -> None:
    answer = AnswerText(pieces_of(tokenizer, 340))
    raw = {piece: number for number, piece in enumerate(tokenizer.pieces) if len(piece) == 1}
    shown = [answer.feed([raw[bytes([byte])]]) for byte in "é关x".encode()]
    assert shown == ["", "é", "", "", "关", "x"]


def test_the_forms_own_beginning_is_left_out_once(tokenizer: Tokenizer) -> None:
    pieces = pieces_of(tokenizer, 340)
    for text in ("\n\nPunter", "\nPunter", "Punter", ""):
        ids = tokenizer.encode(text)
        assert grown(AnswerText(pieces, drop="\n"), [[token] for token in ids]) == text.removeprefix("\n")


def test_tokens_have_texts_bytes_and_names(tokenizer: Tokenizer) -> None:
    texts = TokenTexts(tokenizer, pieces_of(tokenizer, 340))
    end = tokenizer.special["<|endoftext|>"]
    assert texts.text(end) == ("<|endoftext|>", b"")
    assert texts.text(339) == ("", b"")
    token = tokenizer.encode("Punter")[0]
    found = texts.logprobs([token, token], (-0.5, -1.5, -9.0), (((end, -0.25),), (), ()))
    assert [item.logprob for item in found] == [-0.5, -1.5]  # the one of a stop id is left out
    assert found[0].text.encode() == found[0].raw == tokenizer.pieces[token]
    assert found[0].top == (("<|endoftext|>", -0.25, b""),)


@pytest.mark.parametrize("text", ["a", "关关雎鸠", "Café \N{GRINNING FACE}"])
def test_real_texts_come_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert grown(AnswerText(pieces_of(tokenizer, 340)), [[token] for token in ids]) == text
