"""Masks say exactly what may follow, whichever way a text is cut into tokens; tokens can be taken back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tokenizers
from grammar_tools import allowed, draw, end_id, feed, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models

from openautoglm.core.errors import GenerationError, TokenizerError
from openautoglm.engine.grammar import GrammarCompiler
from openautoglm.engine.grammar_check import Grammar, GrammarLimits
from openautoglm.engine.grammar_state import GrammarState
from openautoglm.text.tokenizer import GLM4_SPECIAL, Tokenizer

pytest.importorskip("llguidance", reason="the extra `serve` is not installed")

TREE = {"$defs": {"node": {"type": "object", "properties": {
    "naïve": {"type": "string", "maxLength": 3}, "子": {"type": "array", "items": {"$ref": "#/$defs/node"},
                                                       "maxItems": 2}},
    "required": ["naïve", "子"], "additionalProperties": False}}, "$ref": "#/$defs/node"}


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    with GrammarCompiler(tokenizer().pieces) as made:
        yield made


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20))
def test_pieces_are_the_bytes_of_each_id(text: str) -> None:
    pieces = tokenizer().pieces
    assert b"".join(pieces[i] for i in tokenizer().encode(text)) == text.encode()


def test_pieces_leave_out_what_no_text_holds() -> None:
    pieces = tokenizer().pieces
    assert len(pieces) == tokenizer().vocab_size
    assert {i for i, piece in enumerate(pieces) if not piece} == set(tokenizer().special.values())
    assert {piece for piece in pieces if len(piece) == 1} == {bytes([byte]) for byte in range(256)}


def test_pieces_of_another_kind_of_vocabulary_are_refused() -> None:
    words = tokenizers.Tokenizer(models.WordLevel({"the word": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.add_special_tokens([AddedToken(token, special=True) for token in GLM4_SPECIAL])
    with pytest.raises(TokenizerError, match="not byte-level"):
        _ = Tokenizer(words).pieces


def following(choices: list[str], before: bytes) -> set[int]:
    """The ids that may follow by the definition of a choice."""
    whole = [choice.encode() for choice in choices]
    ids = {i for i, piece in enumerate(tokenizer().pieces)
           if piece and any(choice.startswith(before + piece) for choice in whole)}
    return ids | ({end_id()} if before in whole else set())


@settings(max_examples=25)
@given(choices=st.lists(st.text(alphabet='ab"\\/\n\0é天😀{', min_size=1, max_size=6), min_size=1, max_size=4),
       seed=st.integers(0, 99))
def test_masks_are_exact_at_every_byte(compiler: GrammarCompiler, choices: list[str], seed: int) -> None:
    state, dice = compiler.compile(Grammar(choice=tuple(choices)), [end_id()]), np.random.default_rng(seed)
    before = b""
    while not state.finished:
        expected = following(choices, before)
        assert allowed(state) == expected
        assert state.complete == (end_id() in expected)
        token = draw(state, dice, end_id())
        assert state.advance(token)
        before += tokenizer().pieces[token]
    assert before.decode() in choices


def test_characters_are_cut_between_tokens(compiler: GrammarCompiler) -> None:
    state = compiler.compile(Grammar(regex="[天地]{2}😀?"), [end_id()])
    first, second, third = (tokenizer().pieces.index(bytes([byte])) for byte in "地".encode())
    for token in (first, second):
        assert token in allowed(state)
        assert state.advance(token)
        assert not state.complete
    assert first not in allowed(state)
    assert state.advance(third)
    feed(state, "天")
    assert state.complete
    assert not state.finished
    feed(state, "😀")
    assert state.finished
    assert allowed(state) == {end_id()}


def test_special_tokens_are_never_text(compiler: GrammarCompiler) -> None:
    state = compiler.compile(Grammar(regex=r"(?s).*"), [end_id()])
    assert allowed(state) & set(tokenizer().special.values()) == {end_id()}
    assert len(allowed(state)) > 256
    feed(state, "<|user|>")


def test_stop_ids_come_where_the_grammar_is_complete_and_nowhere_else(compiler: GrammarCompiler) -> None:
    stop = tokenizer().encode("a")[0]
    state = compiler.compile(Grammar(regex="[a-c]{2,}"), [stop, end_id(), 100_000])
    assert not {stop, end_id()} & allowed(state)
    assert not state.advance(end_id())
    assert not state.advance(stop)
    feed(state, "bc")
    assert {stop, end_id()} <= allowed(state)
    assert state.advance(stop)
    assert state.finished
    assert allowed(state) == set()
    assert not state.advance(end_id())
    state.rollback(1)
    assert not state.finished
    feed(state, "b")
    assert state.advance(end_id())


def test_without_stop_ids_a_whole_text_is_finished(compiler: GrammarCompiler) -> None:
    state = compiler.compile(Grammar(choice=("ab",)))
    feed(state, "ab")
    assert state.finished
    assert allowed(state) == set()


def test_masks_fit_other_widths(compiler: GrammarCompiler) -> None:
    state = compiler.compile(Grammar(regex="[ -~]+"), [end_id()])
    size = tokenizer().vocab_size
    assert allowed(state, size + 500) == allowed(state)
    assert allowed(state, 64) == {i for i in allowed(state) if i < 64}


def test_foreign_and_forbidden_tokens_change_nothing(compiler: GrammarCompiler) -> None:
    state = compiler.compile(Grammar(json_schema=TREE), [end_id()])
    before = allowed(state)
    pad = tokenizer().pad_id
    assert not any(state.advance(token) for token in (-1, tokenizer().vocab_size, pad, tokenizer().encode("x")[0]))
    assert allowed(state) == before
    with pytest.raises(GenerationError, match="1 tokens cannot be taken back, there are 0"):
        state.rollback(1)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_rolling_back_restores_every_mask(compiler: GrammarCompiler, seed: int) -> None:
    dice = np.random.default_rng(seed)
    state = compiler.compile(Grammar(json_schema=TREE), [end_id()])
    masks: list[set[int]] = []
    for _ in range(60):
        if masks and (state.finished or dice.random() < 0.2):
            back = int(dice.integers(1, len(masks) + 1))
            state.rollback(back)
            del masks[len(masks) - back + 1:]
            assert allowed(state) == masks.pop()
        masks.append(allowed(state))
        assert state.advance(draw(state, dice, end_id()))


def generate(state: GrammarState, seed: int, guess: int) -> list[int]:
    """Draw tokens by logits that depend on the tokens so far; `guess` tokens ahead, some of them wrong."""
    tokens: list[int] = []
    dice = np.random.default_rng(seed + 1)
    while not state.finished and len(tokens) < 120:
        guesses: list[int] = []
        for _ in range(guess):  # guess what comes, or something else
            right = draw(state, np.random.default_rng([seed, *tokens, *guesses]), end_id())
            token = right if dice.random() < 0.7 else int(dice.integers(tokenizer().vocab_size))
            if not state.advance(token):
                break
            guesses.append(token)
            if state.finished:
                break
        state.rollback(len(guesses))
        for place in range(len(guesses) + 1):
            token = draw(state, np.random.default_rng([seed, *tokens]), end_id())
            assert state.advance(token)
            tokens.append(token)
            if state.finished or place == len(guesses) or token != guesses[place]:
                break
    return tokens[:120]


@pytest.mark.parametrize("seed", range(4))
def test_speculation_gives_the_same_text(compiler: GrammarCompiler, seed: int) -> None:
    texts = [generate(compiler.compile(Grammar(json_schema=TREE), [end_id()]), seed, guess) for guess in (0, 1, 4)]
    assert texts[0] == texts[1] == texts[2]
    assert len(texts[0]) > 10


def test_a_copy_goes_its_own_way(compiler: GrammarCompiler) -> None:
    state = compiler.compile(Grammar(regex="(ab|cd)+"), [end_id()])
    feed(state, "ab")
    copy = state.copy()
    taken = feed(copy, "abc")
    assert state.complete
    assert not copy.complete
    copy.rollback(taken)
    feed(state, "c")
    assert copy.complete
    assert not state.complete


WIDE = Grammar(regex="(?s).*[a-t].{30}x.*")
"""Its tables grow with every text."""


def some(state: GrammarState, seed: int, count: int) -> list[int]:
    dice = np.random.default_rng(seed)
    tokens = []
    for _ in range(count):
        tokens.append(draw(state, dice, end_id()))
        assert state.advance(tokens[-1])
    return tokens


def test_full_tables_of_one_answer_do_not_end_another() -> None:
    """Tables are shared by the answers of a grammar; some texts together fill them, each alone does not."""
    limits = GrammarLimits(table_states=3000)
    with GrammarCompiler(tokenizer().pieces, limits) as compiler:
        states = [compiler.compile(WIDE) for _ in range(12)]
        together = [some(state, seed, 40) for seed, state in enumerate(states)]
        assert compiler.cached == 0, "full tables must not be given to new answers"
        assert together[0] == some(compiler.compile(WIDE), 0, 40)
        compiler.close()
        assert together[11] == some(compiler.compile(WIDE), 11, 40)
        states[11].rollback(39)
        again = compiler.compile(WIDE)
        assert again.advance(together[11][0])
        assert some(states[11], 5, 3) == some(again, 5, 3)


def test_a_grammar_beyond_its_limits_fails_by_name() -> None:
    with GrammarCompiler(tokenizer().pieces, GrammarLimits(table_states=3000)) as compiler:
        state = compiler.compile(WIDE)
        with pytest.raises(GenerationError, match=r"too complex after \d+ tokens: .*too many states"):
            some(state, 1, 2000)
