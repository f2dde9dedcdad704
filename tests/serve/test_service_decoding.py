"""Options: the client's first, the card's for what it left out, and the form of the answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openautoglm.serve.faults import BadRequest, Unsupported
from openautoglm.serve.orders import GrammarText
from openautoglm.serve.service.decoding import Way, way_of
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk

CARD = {"max_new_tokens": 40}
BEAMS = {"max_new_tokens": 40, "num_beams": 4, "n": 4, "length_penalty": 0.6, "choose": "coverage+consensus"}
SAMPLES = {"temperature": 0.7, "top_p": 0.9, "n": 8, "choose": "consensus"}
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}},
         {"type": "function", "function": {"name": "tell"}}]


def way(card: dict[str, Any] | None = None, **fields: Any) -> Way:
    return way_of(CompletionAsk.model_validate({"model": "m", "prompt": "x", **fields}), card or CARD)


def chat(**fields: Any) -> Way:
    return way_of(ChatAsk.model_validate({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}),
                  CARD)


def test_every_option_reaches_the_engine() -> None:
    made = way(max_tokens=7, temperature=0.5, top_p=0.8, top_k=5, min_p=0.1, n=3, seed=9, stop_token_ids=[4],
               ignore_eos=True, min_tokens=2, presence_penalty=0.1, frequency_penalty=0.2, repetition_penalty=1.1,
               logit_bias={"7": -3.5}, logprobs=2)
    told = made.decoding.model_dump(exclude_defaults=True)
    assert told == {"max_new_tokens": 7, "temperature": 0.5, "top_p": 0.8, "top_k": 5, "min_p": 0.1, "n": 3, "seed": 9,
                    "stop_ids": (4,), "ignore_stop": True, "min_tokens": 2, "presence_penalty": 0.1,
                    "frequency_penalty": 0.2, "repetition_penalty": 1.1, "logit_bias": ((7, -3.5),), "logprobs": 2}
    assert (made.max_tokens, made.copies, made.rerank) == (7, 1, None)
    assert way(top_k=-1).decoding.top_k == 0


def test_what_is_left_out_is_the_cards() -> None:
    assert way().decoding.max_new_tokens == 40
    assert way().max_tokens is None
    beams = way(BEAMS)
    assert (beams.decoding.num_beams, beams.decoding.n, beams.decoding.length_penalty) == (4, 4, 0.6)
    assert beams.rerank is not None
    assert beams.rerank.choose == "coverage+consensus"
    samples = way(SAMPLES)
    assert (samples.decoding.temperature, samples.decoding.n) == (0.7, 8)


@pytest.mark.parametrize("fields", [{"stream": True}, {"stop": "x"}, {"n": 1}, {"logprobs": 1}],
                         ids=["stream", "stop", "n", "logprobs"])
def test_answers_that_must_grow_have_no_beams_and_no_choice(fields: dict[str, Any]) -> None:
    for card in (BEAMS, SAMPLES):
        made = way(card, **fields)
        assert (made.decoding.num_beams, made.decoding.n, made.rerank) == (1, 1, None)
    assert way(SAMPLES, **fields).decoding.temperature == 0.7


def test_a_temperature_or_beams_take_the_place_of_the_cards_way() -> None:
    warm = way(BEAMS, temperature=0.5)
    assert (warm.decoding.num_beams, warm.decoding.n, warm.rerank, warm.decoding.max_new_tokens) == (1, 1, None, 40)
    wide = way(SAMPLES, num_beams=3, n=2)
    assert (wide.decoding.num_beams, wide.decoding.n, wide.decoding.temperature) == (3, 2, 0)


def test_greedy_answers_are_generated_once() -> None:
    greedy = way(n=3)
    assert (greedy.decoding.n, greedy.copies) == (1, 3)
    warm = way(n=3, temperature=1.0)
    assert (warm.decoding.n, warm.copies) == (3, 1)


def test_seeds() -> None:
    assert way(seed=5).decoding.seed == way(seed=5).decoding.seed == 5
    assert way(seed=-1).decoding.seed == 2**63 - 1
    assert way().decoding.seed != way().decoding.seed


@pytest.mark.parametrize(("fields", "expected"), [
    ({"response_format": {"type": "text"}}, None),
    ({"response_format": {"type": "json_object"}}, GrammarText("json_object")),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}},
     GrammarText("json_schema", '{"type": "object"}')),
    ({"structured_outputs": {"json": {"type": "null"}}}, GrammarText("json_schema", '{"type": "null"}')),
    ({"structured_outputs": {"json_object": True}}, GrammarText("json_object")),
    ({"structured_outputs": {"regex": "a+"}}, GrammarText("regex", "a+")),
    ({"structured_outputs": {"choice": ["a", "b"]}}, GrammarText("choice", '["a", "b"]')),
], ids=["text", "object", "schema", "json", "json-object", "regex", "choice"])
def test_forms(fields: dict[str, Any], expected: GrammarText | None) -> None:
    assert way(**fields).grammar == expected


def test_a_function_can_be_forced_and_none_can_be_chosen() -> None:
    named = chat(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "tell"}})
    assert (named.tool, named.grammar) == ("tell", GrammarText("json_schema", '{"type": "object"}'))
    only = chat(tools=TOOLS[:1], tool_choice="required")
    assert only.tool == "find"
    assert only.grammar is not None
    assert json.loads(only.grammar.text) == {"type": "object", "properties": {}}
    assert chat(tools=TOOLS, tool_choice="none").tool is None
    for choice in (None, "auto", "required"):
        with pytest.raises(Unsupported, match="template") as caught:
            chat(tools=TOOLS, **({} if choice is None else {"tool_choice": choice}))
        assert caught.value.field == "tools"
    with pytest.raises(BadRequest, match="function"):
        chat(tools=TOOLS[:1], tool_choice="required", response_format={"type": "json_object"})


def test_what_does_not_fit_together_is_told() -> None:
    with pytest.raises(BadRequest, match="twice"):
        way(logit_bias={"1": 1, "01": 2})
    assert chat(logprobs=True).decoding.logprobs == 0
    assert chat(logprobs=True, top_logprobs=3).decoding.logprobs == 3
    assert chat(logprobs=False).decoding.logprobs is None
    assert chat(max_completion_tokens=3).max_tokens == 3
