"""The official client, unmodified: completions, chats, streams, async calls, embeddings, errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from rest_tools import MODEL, Running, engine_backend
from serve_tools import FACTS, FakeBackend

from openautoglm.serve.faults import EngineLost, Overloaded
from openautoglm.serve.service.language import Language

USER: Any = [{"role": "user", "content": "Where is The Punter?"}]


def client_of(server: Running, **more: Any) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30, **more)


@pytest.fixture
def client(server: Running) -> Iterator[OpenAI]:
    with client_of(server) as made:
        yield made


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    found = client.models.retrieve(MODEL)
    assert found.object == "model"
    assert found.max_model_len == 512  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_completions(client: OpenAI) -> None:
    found = client.completions.create(model=MODEL, prompt="The Punter", max_tokens=9)
    again = client.completions.create(model=MODEL, prompt="The Punter", max_tokens=9, stream=True,
                                      stream_options={"include_usage": True})
    chunks = list(again)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == found.choices[0].text
    assert found.choices[0].text
    assert found.choices[0].finish_reason in ("stop", "length")
    assert chunks[-2].choices[0].finish_reason == found.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage == found.usage
    assert found.usage is not None
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert found.object == chunks[0].object == "text_completion"


def test_many_answers(client: OpenAI) -> None:
    found = client.completions.create(model=MODEL, prompt=["a", "b"], n=2, temperature=1.0, seed=3, max_tokens=6)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    again = client.completions.create(model=MODEL, prompt=["a", "b"], n=2, temperature=1.0, seed=3, max_tokens=6,
                                      stream=True)
    texts = dict.fromkeys(range(4), "")
    for chunk in again:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == {choice.index: choice.text for choice in found.choices}
    assert len(set(texts.values())) > 2
    ids: Any = [40, 41, 42]
    assert client.completions.create(model=MODEL, prompt=ids, max_tokens=2).usage.prompt_tokens == 3  # type: ignore


def test_records(client: OpenAI, server: Running) -> None:
    record: Any = {"name": "The Punter", "price": 1.5}
    found = client.completions.create(model=MODEL, prompt=record, max_tokens=8)
    text = client.completions.create(model=MODEL, prompt="The Punter | 1.5", max_tokens=8)
    assert found.choices[0].text == text.choices[0].text
    with pytest.raises(openai.BadRequestError, match="missing_column") as caught:
        client.completions.create(model=MODEL, prompt={"name": "x"})  # type: ignore[arg-type]
    assert caught.value.param == "prompt"


def test_chats(client: OpenAI) -> None:
    found = client.chat.completions.create(model=MODEL, messages=USER, max_completion_tokens=9, stop=["zzz"])
    message = found.choices[0].message
    assert message.role == "assistant"
    assert message.content
    chunks = list(client.chat.completions.create(model=MODEL, messages=USER, max_completion_tokens=9, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == found.choices[0].finish_reason
    assert found.object == "chat.completion"
    assert chunks[0].object == "chat.completion.chunk"
    assert found.system_fingerprint == "fp_0123456789abcdef"
    later = [*USER, message.model_dump(), {"role": "user", "content": "Go on"}]  # as clients keep answers
    assert client.chat.completions.create(model=MODEL, messages=later, max_tokens=2).choices


def test_a_chat_can_be_streamed_by_the_clients_own_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=USER, max_completion_tokens=60) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in events
    assert final.choices[0].message.content


def test_log_probabilities(client: OpenAI) -> None:
    found = client.chat.completions.create(model=MODEL, messages=USER, max_tokens=5, logprobs=True, top_logprobs=3)
    told = found.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert "".join(token.token for token in told.content) == found.choices[0].message.content
    for token in told.content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)
        assert bytes(token.bytes or ()).decode() == token.token
    plain = client.completions.create(model=MODEL, prompt="The", max_tokens=5, logprobs=2)
    numbers = plain.choices[0].logprobs
    assert numbers is not None
    assert "".join(numbers.tokens or ()) == plain.choices[0].text
    assert numbers.text_offset is not None
    assert numbers.text_offset[0] == 0
    assert len(numbers.token_logprobs or ()) == len(numbers.top_logprobs or ()) == len(numbers.tokens or ())
    streamed = client.completions.create(model=MODEL, prompt="The", max_tokens=5, logprobs=2, stream=True)
    offsets = [offset for chunk in streamed if (part := chunk.choices[0].logprobs) for offset in part.text_offset or ()]
    assert offsets == numbers.text_offset


def test_json_by_a_schema(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"stars": {"type": "integer", "minimum": 0, "maximum": 5}},
              "required": ["stars"], "additionalProperties": False}
    found = client.chat.completions.create(
        model=MODEL, messages=USER, max_tokens=40, temperature=1.0,
        response_format={"type": "json_schema", "json_schema": {"name": "rating", "schema": schema}})
    stars = json.loads(found.choices[0].message.content or "")["stars"]
    assert 0 <= stars <= 5
    choice = client.completions.create(model=MODEL, prompt="x", max_tokens=20,
                                       extra_body={"structured_outputs": {"choice": ["near", "far"]}})
    assert choice.choices[0].text in ("near", "far")
    assert choice.choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match="uniqueItems"):
        client.chat.completions.create(model=MODEL, messages=USER, response_format={
            "type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "uniqueItems": True}}})


def test_a_function_that_must_be_called(client: OpenAI) -> None:
    parameters = {"type": "object", "properties": {"far": {"type": "boolean"}}, "required": ["far"],
                  "additionalProperties": False}
    tool: Any = {"type": "function", "function": {"name": "find", "parameters": parameters}}
    call: Any = {"type": "function", "function": {"name": "find"}}
    found = client.chat.completions.create(model=MODEL, messages=USER, tools=[tool], tool_choice=call, max_tokens=40)
    assert found.choices[0].finish_reason == "tool_calls"
    made = found.choices[0].message.tool_calls
    assert made
    assert made[0].function.name == "find"  # type: ignore[union-attr]
    assert json.loads(made[0].function.arguments)["far"] in (True, False)  # type: ignore[union-attr]
    chunks = list(client.chat.completions.create(model=MODEL, messages=USER, tools=[tool], tool_choice=call,
                                                 max_tokens=40, stream=True))
    calls = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or ()]
    assert calls[0].function is not None
    assert calls[0].function.name == "find"
    text = "".join(part.function.arguments or "" for part in calls if part.function)
    assert json.loads(text) == json.loads(made[0].function.arguments)  # type: ignore[union-attr]
    with pytest.raises(openai.BadRequestError, match="template"):
        client.chat.completions.create(model=MODEL, messages=USER, tools=[tool])


def test_async_calls(server: Running) -> None:
    async def work() -> None:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            async def streamed(number: int) -> str:
                stream = await client.chat.completions.create(model=MODEL, max_tokens=12, stream=True, messages=[
                    {"role": "user", "content": f"number {number}"}])
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            async def whole(number: int) -> str:
                found = await client.chat.completions.create(model=MODEL, max_tokens=12, messages=[
                    {"role": "user", "content": f"number {number}"}])
                return found.choices[0].message.content or ""

            parts = await asyncio.gather(*map(streamed, range(16)))
            assert parts == await asyncio.gather(*map(whole, range(16)))
            assert len(set(parts)) > 8

    asyncio.run(work())


@pytest.mark.parametrize(("fields", "kind", "param"), [
    ({"model": "other"}, openai.NotFoundError, "model"), ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
    ({"prompt": "x " * 600}, openai.BadRequestError, "prompt"), ({"n": 99}, openai.BadRequestError, "n"),
    ({"echo": True}, openai.BadRequestError, "echo"), ({"extra_body": {"x": 1}}, openai.BadRequestError, "x"),
    ({"temperature": -1}, openai.BadRequestError, "temperature"),
    ({"logit_bias": {"9999": 1}}, openai.BadRequestError, "logit_bias"),
], ids=["model", "max_tokens", "prompt", "n", "echo", "unknown", "temperature", "logit_bias"])
def test_errors_name_the_field(client: OpenAI, fields: dict[str, Any], kind: type[openai.APIStatusError],
                               param: str) -> None:
    with pytest.raises(kind) as caught:
        client.completions.create(**{"model": MODEL, "prompt": "x", **fields})
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id
    expected = {"model": "model_not_found", "prompt": "context_length_exceeded", "echo": "unsupported"}
    assert caught.value.code == expected.get(param, "invalid_value")


def test_faults_of_the_server(language: Language) -> None:
    faults: list[Exception | None] = [None]
    backend = FakeBackend(lambda order: ([], faults[0]), FACTS.__class__(**{**vars(FACTS), "vocab_size": 400}))
    with Running(language, lambda: backend) as server, client_of(server) as client:
        faults[0] = Overloaded("the queue is full", remedy="later", retry_after_s=7)
        with pytest.raises(openai.RateLimitError) as caught:
            client.completions.create(model=MODEL, prompt="x")
        assert caught.value.response.headers["retry-after"] == "7"
        faults[0] = EngineLost("killed by signal 9 at 0x7f00")
        with pytest.raises(openai.InternalServerError) as lost:
            client.completions.create(model=MODEL, prompt="x")
        assert lost.value.status_code == 503
        assert "0x7f00" not in str(lost.value)
        faults[0] = ZeroDivisionError("/home/secret")
        with pytest.raises(openai.InternalServerError) as ours:
            client.completions.create(model=MODEL, prompt="x")
        assert ours.value.status_code == 500
        assert "secret" not in str(ours.value)
        assert "request id" in str(ours.value)
        faults[0] = None
        found = client.embeddings.create(model=MODEL, input=["a", "b"])
        assert [item.embedding for item in found.data] == [[1.0, 1.0], [1.0, 1.0]]
        floats = client.embeddings.create(model=MODEL, input="a", encoding_format="float")
        assert floats.data[0].embedding == [1.0, 1.0]


def test_a_fault_under_way_reaches_the_reader_of_a_stream(language: Language) -> None:
    faults = [MemoryError("no scratch at 0x7f00")]

    def before(step: int) -> None:
        if step == 5 and faults:
            raise faults.pop()

    with Running(language, lambda: engine_backend(language, before=before)) as server, client_of(server) as client:
        stream = client.completions.create(model=MODEL, prompt="x", max_tokens=50, stream=True)
        texts = []
        with pytest.raises(openai.APIError, match="send it again") as caught:
            texts += [chunk.choices[0].text for chunk in stream]
        assert "0x7f00" not in str(caught.value)
        assert client.completions.create(model=MODEL, prompt="x", max_tokens=3).choices  # the engine goes on
