"""Every bound of the table: what is just within passes, what is just beyond is refused and names its field."""

from __future__ import annotations

from typing import Any

import pytest

from openautoglm.serve.faults import BadRequest, Fault, TooLarge, TooLong
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk, DetokenizeAsk, EmbeddingAsk, TokenizeAsk
from openautoglm.serve.wire.fields import Ask
from openautoglm.serve.wire.limits import Limits
from openautoglm.serve.wire.validate import check_body, check_length, read_ask

LIMITS = Limits(text_chars=40, prompt_tokens=30, max_tokens=50, n=4, batch=3, answers=6, messages=3, stops=2,
                stop_chars=5, stop_ids=2, logit_bias=2, logprobs=3, beams=4, tools=2, grammar_bytes=160,
                grammar_depth=4, name_chars=16, ids=6, timeout_s=9.0)
P: dict[str, Any] = {"model": "m", "prompt": "x"}
C: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
MESSAGE = C["messages"][0]


def tool(number: int, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": f"f{number}", **more}}


def deep(levels: int) -> dict[str, Any]:
    return {} if levels == 0 else {"not": deep(levels - 1)}


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": value}}}


CASES: list[tuple[str, type[Ask], dict[str, Any], dict[str, Any], str]] = [
    ("text_chars", CompletionAsk, {**P, "prompt": "x" * 40}, {**P, "prompt": "x" * 41}, "prompt"),
    ("text_chars", CompletionAsk, {**P, "prompt": {"a": "x" * 31}}, {**P, "prompt": {"a": "x" * 32}}, "prompt"),
    ("text_chars", ChatAsk, {**C, "messages": [{**MESSAGE, "content": "x" * 40}]},
     {**C, "messages": [MESSAGE, {**MESSAGE, "content": "x" * 41}]}, "messages.1.content"),
    ("text_chars", EmbeddingAsk, {"model": "m", "input": "x" * 40}, {"model": "m", "input": ["a", "x" * 41]}, "input"),
    ("text_chars", TokenizeAsk, {"prompt": "x" * 40}, {"prompt": "x" * 41}, "prompt"),
    ("text_chars", TokenizeAsk, {"messages": [MESSAGE]}, {"messages": [{**MESSAGE, "content": "x" * 41}]},
     "messages.0.content"),
    ("ids", CompletionAsk, {**P, "prompt": [1] * 6}, {**P, "prompt": [1] * 7}, "prompt"),
    ("ids", EmbeddingAsk, {"model": "m", "input": [1] * 6}, {"model": "m", "input": [1] * 7}, "input"),
    ("ids", DetokenizeAsk, {"tokens": [1] * 6}, {"tokens": [1] * 7}, "tokens"),
    ("max_tokens", CompletionAsk, {**P, "max_tokens": 50}, {**P, "max_tokens": 51}, "max_tokens"),
    ("max_tokens", ChatAsk, {**C, "max_completion_tokens": 50}, {**C, "max_completion_tokens": 51},
     "max_completion_tokens"),
    ("max_tokens", CompletionAsk, {**P, "min_tokens": 50}, {**P, "min_tokens": 51}, "min_tokens"),
    ("n", CompletionAsk, {**P, "n": 4}, {**P, "n": 5}, "n"),
    ("batch", CompletionAsk, {**P, "prompt": ["x"] * 3}, {**P, "prompt": ["x"] * 4}, "prompt"),
    ("batch", EmbeddingAsk, {"model": "m", "input": ["x"] * 3}, {"model": "m", "input": ["x"] * 4}, "input"),
    ("answers", CompletionAsk, {**P, "prompt": ["x"] * 2, "n": 3}, {**P, "prompt": ["x"] * 2, "n": 4}, "n"),
    ("messages", ChatAsk, {**C, "messages": [MESSAGE] * 3}, {**C, "messages": [MESSAGE] * 4}, "messages"),
    ("messages", TokenizeAsk, {"messages": [MESSAGE] * 3}, {"messages": [MESSAGE] * 4}, "messages"),
    ("stops", CompletionAsk, {**P, "stop": ["a", "b"]}, {**P, "stop": ["a", "b", "c"]}, "stop"),
    ("stop_chars", CompletionAsk, {**P, "stop": "abcde"}, {**P, "stop": ["a", "abcdef"]}, "stop.1"),
    ("stop_ids", CompletionAsk, {**P, "stop_token_ids": [1, 2]}, {**P, "stop_token_ids": [1, 2, 3]}, "stop_token_ids"),
    ("logit_bias", CompletionAsk, {**P, "logit_bias": {"1": 1, "2": 1}},
     {**P, "logit_bias": {"1": 1, "2": 1, "3": 1}}, "logit_bias"),
    ("logprobs", CompletionAsk, {**P, "logprobs": 3}, {**P, "logprobs": 4}, "logprobs"),
    ("logprobs", ChatAsk, {**C, "logprobs": True, "top_logprobs": 3}, {**C, "logprobs": True, "top_logprobs": 4},
     "top_logprobs"),
    ("beams", CompletionAsk, {**P, "num_beams": 4}, {**P, "num_beams": 5}, "num_beams"),
    ("tools", ChatAsk, {**C, "tools": [tool(1), tool(2)]}, {**C, "tools": [tool(1), tool(2), tool(3)]}, "tools"),
    ("grammar_bytes", ChatAsk, {**C, "tools": [tool(1)]}, {**C, "tools": [tool(1, description="x" * 160)]}, "tools"),
    ("grammar_bytes", ChatAsk, {**C, **schema({"title": "x" * 148})}, {**C, **schema({"title": "x" * 149})},
     "response_format.json_schema.schema"),
    ("grammar_bytes", CompletionAsk, {**P, "structured_outputs": {"regex": "x" * 160}},
     {**P, "structured_outputs": {"regex": "é" * 81}}, "structured_outputs.regex"),
    ("grammar_bytes", CompletionAsk, {**P, "structured_outputs": {"choice": ["x" * 80, "y" * 80]}},
     {**P, "structured_outputs": {"choice": ["x" * 81, "y" * 80]}}, "structured_outputs.choice"),
    ("grammar_bytes", CompletionAsk, {**P, "structured_outputs": {"json": {"title": "x" * 148}}},
     {**P, "structured_outputs": {"json": {"title": "x" * 149}}}, "structured_outputs.json"),
    ("grammar_depth", ChatAsk, {**C, **schema(deep(4))}, {**C, **schema(deep(5))},
     "response_format.json_schema.schema"),
    ("name_chars", CompletionAsk, {**P, "model": "m" * 16}, {**P, "model": "m" * 17}, "model"),
    ("name_chars", ChatAsk, {**C, "conversation": "m" * 16}, {**C, "conversation": "m" * 17}, "conversation"),
    ("timeout_s", CompletionAsk, {**P, "timeout_s": 9.0}, {**P, "timeout_s": 9.5}, "timeout_s"),
]
ELSEWHERE = {"body_bytes", "body_s", "json_depth", "stall_s", "prompt_tokens"}
"""Bounds that concern bytes, time and ids: see below, and test_rest_limits.py."""


@pytest.mark.parametrize(("bound", "kind", "within", "beyond", "field"), CASES,
                         ids=[f"{case[0]}-{number}" for number, case in enumerate(CASES)])
def test_bounds(bound: str, kind: type[Ask], within: dict[str, Any], beyond: dict[str, Any], field: str) -> None:
    read_ask(kind, within, LIMITS)
    with pytest.raises(Fault) as caught:
        read_ask(kind, beyond, LIMITS)
    assert isinstance(caught.value, BadRequest)
    assert caught.value.field == field
    assert caught.value.remedy
    raised = LIMITS.model_copy(update={bound: getattr(LIMITS, bound) * 4})
    read_ask(kind, beyond, raised)  # it is this bound and no other


def test_no_bound_is_forgotten() -> None:
    assert {case[0] for case in CASES} | ELSEWHERE == set(Limits.model_fields)


def test_bodies_are_bounded() -> None:
    check_body(LIMITS.body_bytes, LIMITS)
    with pytest.raises(TooLarge):
        check_body(LIMITS.body_bytes + 1, LIMITS)


@pytest.mark.parametrize(("prompt", "asked", "room"), [
    (30, None, 34), (30, 34, 34), (1, None, 50), (31, None, None), (30, 35, None),
], ids=["rest", "exact", "bound", "prompt", "answer"])
def test_prompt_and_answer_share_the_model(prompt: int, asked: int | None, room: int | None) -> None:
    if room is not None:
        assert check_length(prompt, asked, 64, LIMITS, "prompt") == room
        return
    with pytest.raises(TooLong) as caught:
        check_length(prompt, asked, 64, LIMITS, "messages")
    assert caught.value.field == "messages"
    assert "truncate" in caught.value.public


def test_a_prompt_as_long_as_the_model_leaves_no_room() -> None:
    with pytest.raises(TooLong):
        check_length(20, None, 20, LIMITS, "prompt")
