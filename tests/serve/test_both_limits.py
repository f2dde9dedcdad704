"""One validator and one table of bounds for both interfaces: what is beyond a bound is refused by both alike."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from rest_tools import MODEL, engine_backend
from rpc_tools import INFERENCE, TEXT, RunningRpc, asked, connected, trailing

from openautoglm.protos import inference_pb2
from openautoglm.protos import text_pb2 as pb
from openautoglm.serve.faults import TABLE
from openautoglm.serve.service.language import Language
from openautoglm.serve.wire.limits import Limits

LIMITS = {"body_bytes": 4096, "body_s": 0.5, "json_depth": 8, "text_chars": 60, "prompt_tokens": 30, "max_tokens": 50,
          "n": 4, "batch": 3, "answers": 6, "messages": 3, "stops": 2, "stop_chars": 5, "stop_ids": 2, "logit_bias": 2,
          "logprobs": 3, "beams": 4, "tools": 2, "grammar_bytes": 160, "grammar_depth": 3, "name_chars": 16, "ids": 40,
          "timeout_s": 9.0, "stall_s": 5.0}
IN_TIME = {"body_s", "stall_s"}
"""Bounds on time: `body_s` has a test of its own below, `stall_s` those of test_rest_stream and test_rpc_desk."""


class Pair(NamedTuple):
    """The same thing asked of both, and the kind of fault that refuses it."""

    path: str
    body: dict[str, Any]
    method: str
    request: Any
    kind: str = "bad_request"


def text(kind: str = "bad_request", prompts: list[Any] | None = None, options: dict[str, Any] | None = None,
         **fields: Any) -> Pair:
    """A completion with fields (of `options`, in the same words)."""
    given = prompts if prompts is not None else ["x"]
    made = [pb.Prompt(text=one) if isinstance(one, str) else pb.Prompt(record=json.dumps(one))
            if isinstance(one, dict) else pb.Prompt(ids=pb.Ids(ids=one)) for one in given]
    body = {"model": MODEL, "prompt": given, "max_tokens": 2, **(options or {}), **fields}
    return Pair("/v1/completions", body, "Generate", asked(prompts=made, options={"max_tokens": 2, **(options or {})},
                                                           **fields), kind)


def chat(messages: list[dict[str, Any]], **fields: Any) -> Pair:
    tools = [pb.Tool(name=tool["function"]["name"]) for tool in fields.get("tools", ())]
    mine = {name: value for name, value in fields.items() if name != "tools"}
    return Pair("/v1/chat/completions", {"model": MODEL, "messages": messages, **fields}, "Chat",
                pb.ChatRequest(model=MODEL, messages=[pb.Message(**one) for one in messages], tools=tools, **mine))


def deep(levels: int) -> dict[str, Any]:
    return {} if levels == 0 else {"not": deep(levels - 1)}


def schema(value: dict[str, Any]) -> Pair:
    made = asked(options={"form": pb.Form(json_schema=json.dumps(value))})
    body = {"model": MODEL, "prompt": "x", "structured_outputs": {"json": value}}
    return Pair("/v1/completions", body, "Generate", made)


SAID = {"role": "user", "content": "x"}
FUNCTION = {"type": "function", "function": {"name": "f"}}
PAIRS: dict[str, list[Pair]] = {
    "body_bytes": [text("too_large", prompts=["x" * 5000])],
    "json_depth": [text(prompts=[{"a": [[[[[[[[1]]]]]]]]}])],
    "text_chars": [text(prompts=["x" * 61]), text(prompts=[{"a": "x" * 60}]), chat([{**SAID, "content": "x" * 61}]),
                   Pair("/v1/embeddings", {"model": MODEL, "input": "x" * 61}, "Embed",
                        pb.EmbedRequest(model=MODEL, inputs=[pb.Prompt(text="x" * 61)])),
                   Pair("/tokenize", {"prompt": "x" * 61}, "Tokenize",
                        pb.TokenizeRequest(prompt=pb.Prompt(text="x" * 61)))],
    "prompt_tokens": [text("too_long", prompts=[[5] * 31])],
    "max_tokens": [text(options={"max_tokens": 51}), text(options={"min_tokens": 51})],
    "n": [text(options={"n": 5})],
    "batch": [text(prompts=["x"] * 4),
              Pair("/v1/embeddings", {"model": MODEL, "input": ["x"] * 4}, "Embed",
                   pb.EmbedRequest(model=MODEL, inputs=[pb.Prompt(text="x")] * 4))],
    "answers": [text(prompts=["x"] * 3, options={"n": 3})],
    "messages": [chat([SAID] * 4),
                 Pair("/tokenize", {"messages": [SAID] * 4}, "Tokenize",
                      pb.TokenizeRequest(messages=[pb.Message(**SAID)] * 4))],
    "stops": [text(options={"stop": ["a", "b", "c"]})],
    "stop_chars": [text(options={"stop": ["abcdef"]})],
    "stop_ids": [text(options={"stop_token_ids": [1, 2, 3]})],
    "logit_bias": [text(options={"logit_bias": dict.fromkeys(range(3), 1.0)})],
    "logprobs": [text(logprobs=4), chat([SAID], logprobs=True, top_logprobs=4)],
    "beams": [text(options={"num_beams": 5})],
    "tools": [chat([SAID], tools=[FUNCTION] * 3)],
    "grammar_bytes": [schema({"description": "x" * 160}),
                      Pair("/v1/completions", {"model": MODEL, "prompt": "x", "structured_outputs": {
                          "regex": "a" * 161}}, "Generate", asked(options={"form": pb.Form(regex="a" * 161)})),
                      Pair("/v1/completions", {"model": MODEL, "prompt": "x", "structured_outputs": {
                          "choice": ["a" * 161]}}, "Generate",
                          asked(options={"form": pb.Form(choice=pb.Choice(texts=["a" * 161]))}))],
    "grammar_depth": [schema(deep(4))],
    "name_chars": [text(options={"user": "x" * 17}), chat([SAID], conversation="x" * 17),
                   Pair("/v1/completions", {"model": "x" * 17, "prompt": "x"}, "Generate", asked(model="x" * 17))],
    "ids": [text(prompts=[[5] * 41]),
            Pair("/detokenize", {"tokens": [5] * 41}, "Detokenize", pb.DetokenizeRequest(tokens=[5] * 41))],
    "timeout_s": [text(options={"timeout_s": 9.5})],
}
CASES = [(name, number) for name, pairs in PAIRS.items() for number in range(len(pairs))]
OF_TENSORS = [(name, number) for name, number in CASES if PAIRS[name][number].path == "/v1/completions" and not
              isinstance(PAIRS[name][number].body["prompt"][0], list)]
"""Tensors hold no ids."""


@pytest.fixture(scope="module")
def running(language: Language) -> Iterator[RunningRpc]:
    with RunningRpc(language, lambda: engine_backend(language), options={"limits": LIMITS}) as running:
        yield running


def refused_by_rest(running: RunningRpc, pair: Pair) -> str:
    body = {name: {str(key): item for key, item in value.items()} if name == "logit_bias" else value
            for name, value in pair.body.items()}
    reply = httpx.post(running.url + pair.path, json=body)
    row = TABLE[pair.kind]
    assert (reply.status_code, reply.json()["error"]["code"]) == (row.status, row.code), reply.text
    return str(reply.json()["error"]["message"])


def refused_by_rpc(running: RunningRpc, service: Any, method: str, request: Any, kind: str) -> str:
    with connected(running.address) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.read(service, method, request)
    assert caught.value.code() is grpc.StatusCode[TABLE[kind].grpc], caught.value.details()
    if kind != "too_large":  # that is said by gRPC itself, before the message is ours
        assert trailing(caught.value)["x-fault"] == kind
    return str(caught.value.details())


def test_no_bound_is_left_out() -> None:
    assert set(PAIRS) | IN_TIME == set(Limits.model_fields) == set(LIMITS)


@pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{name}-{number}" for name, number in CASES])
def test_both_refuse_what_is_beyond_a_bound(running: RunningRpc, name: str, number: int) -> None:
    pair = PAIRS[name][number]
    rest = refused_by_rest(running, pair)
    rpc = refused_by_rpc(running, TEXT, pair.method, pair.request, pair.kind)
    if name not in ("body_bytes", "json_depth"):  # which name the body and the record
        assert rest == rpc


@pytest.mark.parametrize(("name", "number"), OF_TENSORS, ids=[f"{name}-{number}" for name, number in OF_TENSORS])
def test_inference_refuses_it_too(running: RunningRpc, name: str, number: int) -> None:
    pair = PAIRS[name][number]
    fields = {key: value for key, value in pair.body.items() if key not in ("model", "prompt")}
    prompts = pair.body["prompt"] if isinstance(pair.body["prompt"], list) else [pair.body["prompt"]]
    kind = "record" if isinstance(prompts[0], dict) else "text_input"
    elements = [json.dumps(one).encode() if isinstance(one, dict) else one.encode() for one in prompts]
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(
        name=kind, datatype="BYTES", shape=[len(elements)],
        contents=inference_pb2.InferTensorContents(bytes_contents=elements))
    options = inference_pb2.InferParameter(string_param=json.dumps(fields))
    request = inference_pb2.ModelInferRequest(model_name=pair.body["model"], inputs=[tensor],
                                              parameters={"options": options})
    refused_by_rpc(running, INFERENCE, "ModelInfer", request, pair.kind)


def test_what_is_just_within_passes_both(running: RunningRpc) -> None:
    pair = text(prompts=["x" * 20] * 3, options={"n": 2, "stop": ["a", "b"], "timeout_s": 9.0}, logprobs=3)
    assert httpx.post(running.url + pair.path, json=pair.body).status_code == 200
    with connected(running.address) as stub:
        assert len(stub.texts(pair.request)[0]) == 6


def test_both_wait_so_long_for_a_body(running: RunningRpc) -> None:
    url = urlsplit(running.url)
    with socket.create_connection((url.hostname, url.port), timeout=20) as line:
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
                     b"Content-Length: 20\r\n\r\n" % url.netloc.encode())
        assert b" 408 " in line.recv(4096).splitlines()[0]
    end = threading.Event()

    def never() -> Iterator[bytes]:
        end.wait(20)
        yield from ()

    with connected(running.address) as stub, pytest.raises(grpc.RpcError) as caught:
        list(stub.channel.stream_stream("/autoglm.v1.TextService/Generate")(never(), timeout=20))
    end.set()
    assert caught.value.code() is grpc.StatusCode[TABLE["timed_out"].grpc]
