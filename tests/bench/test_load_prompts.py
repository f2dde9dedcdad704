"""Prompts: exact lengths, shared beginnings, seeds; rows of data sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.bench.plan import Planner
from openautoglm.bench.prompts import drawn_lengths, made_prompts, read_prompts
from openautoglm.bench.settings import Arrivals, LoadSettings, Prompts
from openautoglm.bench.words import id_vocabulary, word_vocabulary
from openautoglm.core.errors import DataError
from openautoglm.text.tokenizer import Tokenizer


def test_words_of_a_tokenizer_give_exact_lengths(tokenizer: Tokenizer) -> None:
    words = word_vocabulary(tokenizer)
    assert words.exact
    assert words.size >= 32
    lengths = [1, 2, 17, 100]
    for prompt, length in zip(made_prompts(Prompts(shared_prefix=0.3), words, lengths, 5), lengths, strict=True):
        assert len(tokenizer.encode(prompt.text)) == length == prompt.tokens
        assert tuple(tokenizer.encode(prompt.text)) == prompt.ids


def test_without_a_tokenizer_words_are_plain(tokenizer: Tokenizer) -> None:
    for words in (word_vocabulary(None), word_vocabulary(Tokenizer.train(["aa bb"] * 3, 280))):
        assert not words.exact
        (prompt,) = made_prompts(Prompts(), words, [9], 0)
        assert len(prompt.text.split()) == 9
        assert (prompt.tokens, prompt.ids) == (0, ())


def test_ids_are_none_of_the_special_tokens(tokenizer: Tokenizer) -> None:
    ids = id_vocabulary(tokenizer, tokenizer.vocab_size)
    assert ids.size == tokenizer.vocab_size - len(tokenizer.special)
    assert not set(ids.ids.tolist()) & set(tokenizer.special.values())
    assert id_vocabulary(None, 7).ids.tolist() == list(range(7))


@given(st.floats(0, 1), st.integers(1, 4), st.integers(1, 60), st.integers(0, 1000))
def test_beginnings_are_shared_as_asked(share: float, prefixes: int, length: int, seed: int) -> None:
    vocabulary = id_vocabulary(None, 10_000)
    settings = Prompts(shared_prefix=share, num_prefixes=prefixes)
    made = made_prompts(settings, vocabulary, [length] * (2 * prefixes), seed)
    for first, second in zip(made, made[prefixes:], strict=False):
        shared = round(share * length)
        assert first.ids[:shared] == second.ids[:shared]
    assert made == made_prompts(settings, vocabulary, [length] * (2 * prefixes), seed)
    if length > 20:
        assert made != made_prompts(settings, vocabulary, [length] * (2 * prefixes), seed + 1)


def test_prompts_differ_behind_their_beginning() -> None:
    made = made_prompts(Prompts(shared_prefix=0.5), id_vocabulary(None, 50_000), [40] * 30, 1)
    assert len({prompt.ids[:20] for prompt in made}) == 1
    assert len({prompt.ids[20:] for prompt in made}) == 30


@given(st.integers(1, 500), st.floats(0, 0.99), st.integers(0, 99))
def test_lengths_stay_in_their_range(length: int, ratio: float, seed: int) -> None:
    lengths = drawn_lengths(length, ratio, 200, np.random.default_rng(seed))
    assert lengths.min() >= max(1, round(length * (1 - ratio)))
    assert lengths.max() <= max(1, round(length * (1 + ratio)))
    if ratio == 0:
        assert (lengths == length).all()


def write(path: Path, text: str) -> tuple[str]:
    path.write_text(text)
    return (str(path),)


def test_rows_of_many_formats(tmp_path: Path) -> None:
    files = (write(tmp_path / "a.csv", "mr,ref\nname[X],X is\nname[Y],Y is\n"),
             write(tmp_path / "b.jsonl", '{"prompt": "hello", "output_tokens": 9}\n{"prompt": "you"}\n'),
             write(tmp_path / "c.txt", "one\n\ntwo\n"))
    found = [read_prompts(Prompts(dataset=file)) for file in files]
    assert [[prompt.text for prompt in one] for one in found] == [["name[X]", "name[Y]"], ["hello", "you"],
                                                                  ["one", "two"]]
    assert [prompt.output_tokens for prompt in found[1]] == [9, 0]
    assert [prompt.text for prompt in read_prompts(Prompts(dataset=files[0], column="ref"))] == ["X is", "Y is"]


def test_conversations_end_with_the_turn_to_be_answered(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "be short"}, {"role": "user", "content": "hello"},
             {"role": "assistant", "content": "hi"}]
    (prompt,) = read_prompts(Prompts(dataset=write(tmp_path / "a.jsonl", json.dumps({"messages": turns}))))
    assert [(turn.role, turn.text) for turn in prompt.turns] == [("system", "be short"), ("user", "hello")]
    assert prompt.text == "hello"


@pytest.mark.parametrize(("name", "text", "says"), [
    ("a.csv", "x,y\n1,2\n", "no column for prompts"),
    ("a.jsonl", '{"prompt": ""}\n', r"a\.jsonl:1.*holds no text"),
    ("a.jsonl", '{"prompt": "x"}\n{oops\n', r"a\.jsonl:2"),
    ("a.jsonl", '{"prompt": "x", "output_tokens": "few"}\n', r"a\.jsonl:1.*no number"),
    ("a.jsonl", '{"messages": [{"role": "wizard", "content": "x"}]}\n', "known role"),
    ("a.jsonl", '{"messages": [{"role": "assistant", "content": "x"}]}\n', "no turn to be answered"),
    ("a.txt", "\n", "holds no prompt"),
], ids=["column", "empty", "broken", "tokens", "role", "turn", "nothing"])
def test_broken_rows_name_their_place(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_prompts(Prompts(dataset=write(tmp_path / name, text)))


def test_a_data_set_repeats_where_it_is_too_small_and_says_so(tmp_path: Path) -> None:
    rows = write(tmp_path / "b.jsonl", "\n".join(json.dumps({"prompt": f"p{number}"}) for number in range(5)))
    settings = LoadSettings(prompts=Prompts(dataset=rows, output_len=30), arrivals=Arrivals(num_prompts=12))
    plan = Planner(settings, word_vocabulary(None)).plan()
    texts = [ask.prompt.text for ask in plan.asks]
    assert sorted(texts[:5]) == sorted(texts[5:10]) == [f"p{number}" for number in range(5)]
    assert {ask.max_tokens for ask in plan.asks} == {30}
    assert "they repeat" in plan.notes[0]
    assert not settings.prompts.ignores_eos
    assert Planner(settings, word_vocabulary(None)).plan() == plan
    assert [ask.prompt.text for ask in Planner(settings, word_vocabulary(None)).plan(1).asks] != texts


def test_repetitions_ask_other_things_and_warm_ups_are_short() -> None:
    settings = LoadSettings(arrivals=Arrivals(request_rate=9, num_prompts=20), prompts=Prompts(range_ratio=0.5))
    planner = Planner(settings, id_vocabulary(None, 9000))
    first, second = planner.plan(0), planner.plan(1)
    assert not {ask.prompt.ids for ask in first.asks} & {ask.prompt.ids for ask in second.asks}
    assert first.span_s != second.span_s
    assert len({ask.seed for ask in (*first.asks, *second.asks)}) == 40
    assert len(planner.plan(7, 3).asks) == 3
