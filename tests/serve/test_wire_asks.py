"""Asks: what may be said, in which forms, and that a fault names its field."""

from __future__ import annotations

from typing import Any

import pytest

from openautoglm.serve.faults import BadRequest, Unsupported
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk, DetokenizeAsk, EmbeddingAsk, TokenizeAsk
from openautoglm.serve.wire.limits import Limits
from openautoglm.serve.wire.validate import read_ask

LIMITS = Limits()
USER = {"role": "user", "content": "hello"}


def completion(**fields: Any) -> CompletionAsk:
    return read_ask(CompletionAsk, {"model": "m", "prompt": "x", **fields}, LIMITS)


def chat(**fields: Any) -> ChatAsk:
    return read_ask(ChatAsk, {"model": "m", "messages": [USER], **fields}, LIMITS)


@pytest.mark.parametrize(("prompt", "read"), [
    ("a", ("a",)), ("", ("",)), ([1, 2], ((1, 2),)), (["a", "b"], ("a", "b")), ([[1], [2, 3]], ((1,), (2, 3))),
    ({"name": "x"}, ({"name": "x"},)), ([{"name": "x"}, "b", [4]], ({"name": "x"}, "b", (4,))), ([5.0], ((5,),)),
], ids=["text", "empty", "ids", "texts", "lists", "record", "mixed", "whole"])
def test_prompts_have_many_forms(prompt: Any, read: Any) -> None:
    assert completion(prompt=prompt).prompt == read


@pytest.mark.parametrize("prompt", [[], [[]], 3, None, True, [1, "a"], [-1], [2**31], [True], [None], {}, [[1.5]]],
                         ids=str)
def test_what_is_no_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        completion(prompt=prompt)
    assert caught.value.field == "prompt"


@pytest.mark.parametrize(("field", "value"), [
    ("max_tokens", "5"), ("max_tokens", 0), ("max_tokens", 1.5), ("max_tokens", True), ("temperature", -0.1),
    ("temperature", "1"), ("temperature", 101), ("top_p", 0), ("top_p", 1.1), ("n", 0), ("n", "2"), ("seed", 2**63),
    ("stop", ""), ("stop", ["a", ""]), ("stop", [1]), ("stop", 1), ("stream", 1), ("logprobs", -1), ("min_p", 2),
    ("presence_penalty", 2.5), ("frequency_penalty", -3), ("repetition_penalty", 0), ("logit_bias", {"1": 200}),
    ("logit_bias", {"-1": 1}), ("logit_bias", []), ("top_k", -2), ("stop_token_ids", [-1]), ("stop_token_ids", "a"),
    ("user", 7), ("timeout_s", 0), ("truncate", "middle"), ("nonsense", 1), ("num_beams", 0), ("raw", "yes"),
    ("response_format", {"type": "xml"}), ("structured_outputs", {"grammar": "x"}), ("stream_options", True),
    ("metadata", {"a": 1}), ("ignore_eos", "no"), ("min_tokens", -1),
], ids=lambda value: str(value)[:20])
def test_a_wrong_value_is_told_by_its_field(field: str, value: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        completion(**{field: value})
    fault = caught.value
    assert fault.field is not None
    assert fault.field.startswith(field)
    assert fault.remedy
    assert str(value) not in fault.public or not isinstance(value, str) or len(value) < 4 or value == "middle"


def test_all_faults_are_told_at_once_and_a_slip_of_the_pen_is_seen() -> None:
    with pytest.raises(BadRequest) as caught:
        completion(max_tokns=3, top_p=7, n="x")
    text = caught.value.public
    assert all(word in text for word in ("top_p", "n", "max_tokns"))
    with pytest.raises(BadRequest, match="unknown") as caught:
        completion(max_tokns=3)
    assert caught.value.remedy == "write max_tokens, or leave it out"


def test_null_is_the_same_as_nothing() -> None:
    names = [name for name in CompletionAsk.model_fields if name not in ("model", "prompt")]
    assert completion(**dict.fromkeys(names)) == completion()
    names = [name for name in ChatAsk.model_fields if name not in ("model", "messages")]
    assert chat(**dict.fromkeys(names)) == chat()


def test_what_has_no_effect_is_taken() -> None:
    chat(user="u", metadata={"a": "b"}, store=True, service_tier="auto", parallel_tool_calls=False, verbosity="low",
         modalities=["text"], safety_identifier="s", prompt_cache_key="k", tool_choice="none")
    completion(echo=False, best_of=1, suffix="")


@pytest.mark.parametrize(("fields", "field"), [
    ({"echo": True}, "echo"), ({"suffix": "end"}, "suffix"), ({"best_of": 3}, "best_of"),
], ids=["echo", "suffix", "best_of"])
def test_what_is_not_done_is_refused_plainly(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Unsupported) as caught:
        completion(**fields)
    assert caught.value.field == field


@pytest.mark.parametrize(("fields", "field"), [
    ({"stream_options": {"include_usage": True}}, "stream_options"), ({"top_logprobs": 2}, "top_logprobs"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"), ({"tool_choice": "auto"}, "tool_choice"),
    ({"num_beams": 2, "temperature": 1.0}, "temperature"), ({"num_beams": 2, "stop": "x"}, "stop"),
    ({"num_beams": 2, "logprobs": True}, "logprobs"), ({"num_beams": 2, "n": 3}, "n"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    ({"response_format": {"type": "text", "json_schema": {"name": "x"}}}, "response_format.json_schema"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"), ({"messages": []}, "messages"),
    ({"structured_outputs": {}}, "structured_outputs"), ({"structured_outputs": {"choice": [""]}},
                                                         "structured_outputs.choice"),
    ({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}, "structured_outputs"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a"}}]}]},
     "messages.0.content"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "x", "audio": {}}]}, "messages.0.audio"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}] * 2}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}],
      "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice.function.name"),
], ids=range(23))
def test_what_does_not_fit_together_is_told_by_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        chat(**fields)
    assert caught.value.field == field


def test_text_parts_are_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert chat(messages=[{"role": "user", "content": parts}]).messages[0].content == "ab"


def test_an_answer_can_be_sent_back_as_clients_keep_it() -> None:
    kept = {"role": "assistant", "content": "hi", "refusal": None, "annotations": [], "audio": None,
            "function_call": None, "tool_calls": None}
    assert chat(messages=[USER, kept, USER]).messages[1].content == "hi"


def test_other_asks() -> None:
    assert read_ask(EmbeddingAsk, {"model": "m", "input": ["a", [1]]}, LIMITS).input == ("a", (1,))
    with pytest.raises(BadRequest):
        read_ask(EmbeddingAsk, {"model": "m", "input": {"a": 1}}, LIMITS)
    assert read_ask(DetokenizeAsk, {"tokens": [1, 2]}, LIMITS).tokens == (1, 2)
    for wrong in ({}, {"prompt": "a", "messages": [USER]}):
        with pytest.raises(BadRequest, match="either"):
            read_ask(TokenizeAsk, wrong, LIMITS)
