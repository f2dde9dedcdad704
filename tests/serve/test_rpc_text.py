"""The text service over gRPC: the same answers as over REST, streamed."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import httpx
import pytest
from rest_tools import MODEL
from rpc_tools import TEXT, RunningRpc, Stub, asked, connected, embedding_backend

from openautoglm.protos import text_pb2 as pb
from openautoglm.serve.service.language import Language
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk, EmbeddingAsk


@pytest.fixture(scope="module")
def running(language: Language) -> Iterator[RunningRpc]:
    with RunningRpc(language, lambda: embedding_backend(language)) as running:
        yield running


@pytest.fixture(scope="module")
def stub(running: RunningRpc) -> Iterator[Stub]:
    with connected(running.address) as stub:
        yield stub


def refused(call: object) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        list(call) if hasattr(call, "__next__") else call()  # type: ignore[operator,call-overload]
    return caught.value


def test_a_text_is_answered_as_over_rest(running: RunningRpc, stub: Stub) -> None:
    rest = httpx.post(f"{running.url}/v1/completions", json={
        "model": MODEL, "prompt": ["The Punter", "Café"], "n": 2, "max_tokens": 12, "seed": 7,
        "temperature": 1.5}).json()
    texts, last = stub.texts(asked(prompts=[pb.Prompt(text="The Punter"), pb.Prompt(text="Café")],
                                   options={"n": 2, "max_tokens": 12, "seed": 7, "temperature": 1.5}))
    assert texts == {choice["index"]: choice["text"] for choice in rest["choices"]}
    assert len(set(texts.values())) == 4
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (
        rest["usage"]["prompt_tokens"], rest["usage"]["completion_tokens"])
    assert last.fingerprint == rest["system_fingerprint"]


def test_pieces_come_one_by_one_and_say_why_they_end(stub: Stub) -> None:
    replies = list(stub.call(TEXT, "Generate", asked(options={"max_tokens": 5, "min_tokens": 5})))
    assert [reply.finish_reason for reply in replies if reply.finish_reason] == ["length"]
    assert len([reply for reply in replies if reply.text]) > 1
    assert [reply.HasField("usage") for reply in replies] == [False] * (len(replies) - 1) + [True]


def test_records_and_ids_are_prompts(running: RunningRpc, stub: Stub) -> None:
    record = '{"name": "Alimentum", "price": 1.50}'
    rest = httpx.post(f"{running.url}/v1/completions", headers={"content-type": "application/json"},
                      content=f'{{"model": "pubs", "prompt": {record}, "max_tokens": 8, "seed": 1}}').json()
    texts, _ = stub.texts(asked(prompts=[pb.Prompt(record=record)]))
    assert texts[0] == rest["choices"][0]["text"]
    ids, last = stub.texts(asked(prompts=[pb.Prompt(ids=pb.Ids(ids=[5, 6, 7]))]))
    assert ids[0]
    assert last.usage.prompt_tokens == 3


def test_a_chat_is_answered_as_over_rest(running: RunningRpc, stub: Stub) -> None:
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Where?"}]
    rest = httpx.post(f"{running.url}/v1/chat/completions", json={
        "model": MODEL, "messages": messages, "max_tokens": 9, "seed": 3, "logprobs": True, "top_logprobs": 2}).json()
    request = pb.ChatRequest(model=MODEL, messages=[pb.Message(**message) for message in messages], logprobs=True,
                             top_logprobs=2, options=pb.Options(max_tokens=9, seed=3))
    replies = list(stub.call(TEXT, "Chat", request))
    assert "".join(reply.text for reply in replies) == rest["choices"][0]["message"]["content"]
    told = [token for reply in replies for token in reply.logprobs]
    assert [token.text for token in told] == [token["token"] for token in rest["choices"][0]["logprobs"]["content"]]
    assert all(len(token.top) == 2 and token.logprob <= 0 for token in told)


def test_a_forced_function_is_called(stub: Stub) -> None:
    tool = pb.Tool(name="find", description="finds", parameters='{"type": "object", "properties": {}}')
    request = pb.ChatRequest(model=MODEL, messages=[pb.Message(role="user", content="Find it")], tools=[tool],
                             tool_name="find", options=pb.Options(max_tokens=8))
    texts, last = stub.texts(request, chat=True)
    assert texts[0].startswith("{")
    assert last.tool == "find"
    request.tool_name = "other"
    error = refused(stub.call(TEXT, "Chat", request))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "tool_choice.function.name" in error.details()


def test_an_answer_keeps_to_a_form(stub: Stub) -> None:
    texts, _ = stub.texts(asked(options={"form": pb.Form(choice=pb.Choice(texts=["cheap", "dear"]))}))
    assert texts[0] in ("cheap", "dear")
    error = refused(stub.call(TEXT, "Generate", asked(options={"form": pb.Form(json_schema="[1]")})))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "form.json_schema" in error.details()


def test_embeddings_are_those_of_rest(running: RunningRpc, stub: Stub) -> None:
    inputs = [pb.Prompt(text="The Punter"), pb.Prompt(ids=pb.Ids(ids=[3, 4]))]
    reply = stub.call(TEXT, "Embed", model=MODEL, inputs=inputs)
    rest = httpx.post(f"{running.url}/v1/embeddings", json={"model": MODEL, "input": "The Punter"}).json()
    assert list(reply.embeddings[0].values) == pytest.approx(rest["data"][0]["embedding"])
    assert len(reply.embeddings) == 2
    assert reply.usage.prompt_tokens > 2


def test_texts_become_ids_and_back(running: RunningRpc, stub: Stub) -> None:
    rest = httpx.post(f"{running.url}/tokenize", json={"prompt": "The Punter", "add_special_tokens": False}).json()
    made = stub.call(TEXT, "Tokenize", prompt=pb.Prompt(text="The Punter"), add_special_tokens=False, texts=True)
    assert list(made.tokens) == rest["tokens"]
    assert "".join(made.texts) == "The Punter"
    assert made.max_tokens == rest["max_model_len"]
    assert stub.call(TEXT, "Detokenize", tokens=made.tokens).text == "The Punter"
    chat = stub.call(TEXT, "Tokenize", messages=[pb.Message(role="user", content="Hi")])
    assert len(chat.tokens) > 2


def test_models_are_listed(stub: Stub) -> None:
    models = stub.call(TEXT, "Models").models
    assert [(model.name, model.max_tokens) for model in models] == [(MODEL, 512)]


@pytest.mark.parametrize(("request_", "says"), [
    (pb.GenerateRequest(), "model"), (pb.GenerateRequest(model=MODEL), "prompt"),
    (pb.GenerateRequest(model=MODEL, prompts=[pb.Prompt()]), "prompt.0"),
    (pb.GenerateRequest(model=MODEL, prompts=[pb.Prompt(record="[]")]), "prompt.0"),
    (asked(options={"temperature": float("nan")}), "temperature"),
    (asked(options={"timeout_s": float("inf")}), "timeout_s"),
    (asked(options={"logit_bias": {1: float("nan")}}), "logit_bias"),
    (asked(options={"max_tokens": -1}), "max_tokens"), (asked(options={"truncate": "x"}), "truncate"),
], ids=["empty", "no-prompt", "no-kind", "no-record", "nan", "infinite", "nan-bias", "negative", "truncate"])
def test_what_is_wrong_is_named(stub: Stub, request_: pb.GenerateRequest, says: str) -> None:
    error = refused(stub.call(TEXT, "Generate", request_))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in error.details()


def test_unknown_models_are_told(stub: Stub) -> None:
    error = refused(stub.call(TEXT, "Generate", asked(model="none")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


def test_every_option_is_a_field_that_the_validator_knows() -> None:
    names = {field.name for field in pb.Options.DESCRIPTOR.fields} - {"form"}
    assert names <= set(CompletionAsk.model_fields) & set(ChatAsk.model_fields)
    own = {"prompts", "options", "inputs", "messages", "tools", "tool_mode", "tool_name"}
    for message, ask in ((pb.GenerateRequest, CompletionAsk), (pb.ChatRequest, ChatAsk),
                         (pb.EmbedRequest, EmbeddingAsk)):
        assert {field.name for field in message.DESCRIPTOR.fields} - own <= set(ask.model_fields)
