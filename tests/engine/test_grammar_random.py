"""Whatever a model without sense writes by a random schema parses, and fits the schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fake_program import FakeProgram, fake_logits
from grammar_tools import end_id, feed, tokenizer, write
from hypothesis import given, settings
from hypothesis import strategies as st

from openautoglm.engine.engine import Engine
from openautoglm.engine.grammar import GrammarCompiler
from openautoglm.engine.grammar_check import Grammar
from openautoglm.engine.request import Decoding, Request
from openautoglm.engine.settings import EngineSettings, Speculation

pytest.importorskip("llguidance", reason="the extra `serve` is not installed")
jsonschema = pytest.importorskip("jsonschema", reason="the extra `dev` is not installed")

LETTERS = st.text(alphabet="ab é中😀\"\\/\n\t{}[]:,\x01", max_size=4)
NAMES = st.text(alphabet="abé中😀\" ", min_size=1, max_size=4)


@st.composite
def bounds(draw: st.DrawFn, low: str, high: str, most: int) -> dict[str, int]:
    least = draw(st.integers(0, most))
    return {low: least, high: draw(st.integers(least, most))}


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    properties = draw(st.dictionaries(NAMES, inner, max_size=4))
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    return {"type": "array", "items": draw(inner), **draw(bounds("minItems", "maxItems", 3))}


@st.composite
def integers(draw: st.DrawFn) -> dict[str, Any]:
    least = draw(st.integers(-1000, 1000))
    return {"type": "integer", "minimum": least, "maximum": least + draw(st.integers(0, 5000))}


LEAVES = st.one_of(
    st.just({"type": "null"}), st.just({"type": "boolean"}), integers(),
    st.builds(lambda more: {"type": "string", **more}, bounds("minLength", "maxLength", 6)),
    st.just({"type": "number", "minimum": -2.5, "exclusiveMaximum": 10}),
    st.builds(lambda values: {"enum": values},
              st.lists(st.one_of(LETTERS, st.integers(-2**53, 2**53), st.none()), min_size=1)),
    st.builds(lambda value: {"const": value}, st.dictionaries(NAMES, LETTERS, max_size=2)),
    st.sampled_from([{"type": "string", "pattern": "^[A-Z]{2}[0-9é]{1,3}$"}, {"type": "string", "format": "date"},
                     {"$ref": "#/$defs/shared"}]))
SCHEMAS = st.recursive(LEAVES, lambda inner: st.one_of(
    objects(inner), arrays(inner), st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1,
                                                                                          max_size=3))),
    max_leaves=6)
SHARED = {"type": "object", "properties": {"中": {"type": "string", "maxLength": 2}}, "required": ["中"],
          "additionalProperties": False}


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    with GrammarCompiler(tokenizer().pieces) as made:
        yield made


def check(text: str, schema: Any) -> Any:
    value = json.loads(text)
    jsonschema.Draft202012Validator(schema).validate(value)
    return value


@settings(max_examples=60)
@given(schema=SCHEMAS, seed=st.integers(0, 1000), compact=st.booleans())
def test_random_texts_fit_random_schemas(compiler: GrammarCompiler, schema: dict[str, Any], seed: int,
                                         compact: bool) -> None:
    whole = {"$defs": {"shared": SHARED}, **schema}
    state = compiler.compile(Grammar(json_schema=whole, compact=compact), [end_id()])
    check(write(state, np.random.default_rng(seed)), whole)


@settings(max_examples=40)
@given(schema=SCHEMAS, seed=st.integers(0, 1000))
def test_what_fits_can_be_written_the_tokenizers_way(compiler: GrammarCompiler, schema: dict[str, Any],
                                                     seed: int) -> None:
    whole = {"$defs": {"shared": SHARED}, **schema}
    text = write(compiler.compile(Grammar(json_schema=whole, compact=True), [end_id()]), np.random.default_rng(seed))
    state = compiler.compile(Grammar(json_schema=whole, compact=True), [end_id()])
    taken = feed(state, text)
    assert state.complete
    state.rollback(taken)
    feed(state, text)


@settings(max_examples=40)
@given(pattern=st.from_regex(r"\A(\([ab]\|[é中]{1,2}\)|[a-c]\{1,3\}|x\?|\[^a-y\]|\[0-7\]|é)(\([ab]\|中\)|[a-c]\{2\}|\[0-7\])?\Z"),
       seed=st.integers(0, 1000))
def test_random_texts_match_random_patterns(compiler: GrammarCompiler, pattern: str, seed: int) -> None:
    text = write(compiler.compile(Grammar(regex=pattern), [end_id()]), np.random.default_rng(seed))
    assert re.fullmatch(pattern, text), (pattern, text)


PEOPLE = {"type": "array", "minItems": 2, "maxItems": 4, "items": {
    "type": "object", "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 8},
                                     "stars": {"type": "integer", "minimum": 0, "maximum": 50},
                                     "kind": {"enum": ["pub", "café", "天地"]}},
    "required": ["name", "stars", "kind"], "additionalProperties": False}}


def random_program(pages: int) -> FakeProgram:
    """Logits that depend on the last two tokens, so that guesses come true now and then."""
    vocab = tokenizer().vocab_size
    return FakeProgram(vocab=vocab, positions=512, pages=pages, max_rows=48,
                       logits=lambda history: fake_logits(history, vocab, order=2))


@pytest.mark.parametrize("speculation", [None, Speculation(ngram=1, draft_tokens=5, min_acceptance=0.0)])
def test_an_engine_of_random_logits_answers_by_the_schema(compiler: GrammarCompiler,
                                                          speculation: Speculation | None) -> None:
    """Together with requests that have no grammar, with few pages, so that answers are preempted."""
    engine = Engine(random_program(120), EngineSettings(speculation=speculation, max_batch=8), stop_ids=[end_id()])
    prompt = tokenizer().encode('[{"name": "Zoë", "stars": 12, "kind": "pub"},')
    tickets = []
    for number in range(10):
        decoding = Decoding(max_new_tokens=400, temperature=1.0 if number % 3 else 0.0, seed=number)
        state = compiler.compile(Grammar(json_schema=PEOPLE, compact=True), [end_id()]) if number % 2 else None
        tickets.append(engine.submit(Request([*prompt, number], decoding, grammar=state)))
    while not engine.idle:
        engine.turn()
    for number, ticket in enumerate(tickets):
        answer = ticket.result()[0]
        if number % 2:
            assert ticket.finishes == ["stop"]
            assert len(check(tokenizer().decode(answer.ids), PEOPLE)) in (2, 3, 4)
    assert engine.stats.failed == 0
    assert engine.stats.preemptions > 0
    assert (engine.stats.accepted > 0) == (speculation is not None)
    assert engine.stats.pages_held == 0


def test_speculation_changes_no_answer(compiler: GrammarCompiler) -> None:
    answers = []
    for speculation in (None, Speculation(ngram=1, draft_tokens=5, min_acceptance=0.0)):
        engine = Engine(random_program(200), EngineSettings(speculation=speculation), stop_ids=[end_id()])
        tickets = [engine.submit(Request(tokenizer().encode("go"), Decoding(max_new_tokens=300, temperature=1.0,
                                                                            seed=seed),
                                         grammar=compiler.compile(Grammar(json_schema=PEOPLE), [end_id()])))
                   for seed in range(3)]
        while not engine.idle:
            engine.turn()
        answers.append([ticket.result()[0].ids for ticket in tickets])
    assert answers[0] == answers[1]
