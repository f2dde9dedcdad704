"""The Open Inference Protocol over gRPC: metadata, inference in both forms of tensors, the repository."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence

import grpc
import httpx
import numpy as np
import pytest
from rest_tools import MODEL, engine_backend
from rpc_tools import INFERENCE, RunningRpc, Stub, connected, embedding_backend

from openautoglm.core.version import __version__
from openautoglm.protos import inference_pb2 as pb
from openautoglm.serve.faults import NotFound
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.models import Held

Request = pb.ModelInferRequest


class Shelf:
    """A repository that notes what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str | None, str]] = []

    async def index(self) -> Sequence[Held]:
        return [Held(MODEL, "3", "READY"), Held("other", "1", "UNAVAILABLE", "not loaded")]

    async def load(self, name: str, version: str | None, by: str) -> None:
        if name != "other":
            raise NotFound("there is no such model", where="model_name")
        self.calls.append(("load", name, version, by))

    async def unload(self, name: str, version: str | None, by: str) -> None:
        self.calls.append(("unload", name, version, by))


@pytest.fixture(scope="module")
def running(language: Language) -> Iterator[RunningRpc]:
    with RunningRpc(language, lambda: embedding_backend(language)) as running:
        yield running


@pytest.fixture(scope="module")
def stub(running: RunningRpc) -> Iterator[Stub]:
    with connected(running.address) as stub:
        yield stub


def tensor(name: str, *elements: bytes, **more: object) -> pb.ModelInferRequest.InferInputTensor:
    fields = {"datatype": "BYTES", "shape": [len(elements)],
              "contents": pb.InferTensorContents(bytes_contents=elements), **more}
    return Request.InferInputTensor(name=name, **fields)


def parameters(**values: object) -> dict[str, pb.InferParameter]:
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    return {name: pb.InferParameter(**{kinds[type(value)]: value}) for name, value in values.items()}


def request(*inputs: object, **more: object) -> pb.ModelInferRequest:
    return Request(**{"model_name": MODEL, "inputs": inputs, "parameters": parameters(max_tokens=8, seed=1), **more})


def outputs(reply: pb.ModelInferResponse) -> dict[str, object]:
    return {output.name: output for output in reply.outputs}


def refused(stub: Stub, name: str, made: object = None, /, **fields: object) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        stub.call(INFERENCE, name, made, **fields)
    return caught.value


def test_the_server_and_its_model_are_described(stub: Stub) -> None:
    assert stub.call(INFERENCE, "ServerLive").live
    assert stub.call(INFERENCE, "ServerReady").ready
    assert stub.call(INFERENCE, "ModelReady", name=MODEL).ready
    assert stub.call(INFERENCE, "ModelReady", name=MODEL, version="1").ready
    server = stub.call(INFERENCE, "ServerMetadata")
    assert (server.name, server.version) == ("autoglm", __version__)
    model = stub.call(INFERENCE, "ModelMetadata", name=MODEL)
    assert (model.name, list(model.versions)) == (MODEL, ["1"])
    assert [(one.name, one.datatype) for one in model.inputs] == [
        ("text_input", "BYTES"), ("record", "BYTES"), ("messages", "BYTES")]
    assert {one.name for one in model.outputs} == {"text_output", "finish_reason", "prompt_tokens",
                                                   "completion_tokens", "embedding"}


@pytest.mark.parametrize("name", ["ModelReady", "ModelMetadata"])
def test_models_that_there_are_not(stub: Stub, name: str) -> None:
    assert refused(stub, name, name="none").code() is grpc.StatusCode.NOT_FOUND
    assert refused(stub, name, name=MODEL, version="2").code() is grpc.StatusCode.NOT_FOUND
    assert refused(stub, name).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_texts_are_answered_as_over_rest(running: RunningRpc, stub: Stub) -> None:
    rest = httpx.post(f"{running.url}/v1/completions", json={
        "model": MODEL, "prompt": ["The Punter", "Café"], "n": 2, "max_tokens": 8, "seed": 1,
        "temperature": 1.5, "stop": "Q"}).json()
    reply = stub.call(INFERENCE, "ModelInfer", request(
        tensor("text_input", b"The Punter", "Café".encode()), id="r1",
        parameters=parameters(max_tokens=8, seed=1, n=2, temperature=1.5, stop="Q")))
    assert (reply.model_name, reply.id) == (MODEL, "r1")
    found = outputs(reply)
    assert list(found) == ["text_output", "finish_reason", "prompt_tokens", "completion_tokens"]
    assert [text.decode() for text in found["text_output"].contents.bytes_contents] == [
        choice["text"] for choice in rest["choices"]]
    assert [text.decode() for text in found["finish_reason"].contents.bytes_contents] == [
        choice["finish_reason"] for choice in rest["choices"]]
    assert list(found["text_output"].shape) == [4]
    assert list(found["prompt_tokens"].contents.int64_contents) == [rest["usage"]["prompt_tokens"]]
    assert list(found["completion_tokens"].contents.int64_contents) == [rest["usage"]["completion_tokens"]]


def test_raw_tensors_are_answered_with_raw_tensors(stub: Stub) -> None:
    typed = stub.call(INFERENCE, "ModelInfer", request(tensor("text_input", b"a", b"bc")))
    packed = b"\x01\0\0\0a\x02\0\0\0bc"
    raw = stub.call(INFERENCE, "ModelInfer", request(
        Request.InferInputTensor(name="text_input", datatype="BYTES", shape=[2, 1]), raw_input_contents=[packed]))
    assert not any(output.HasField("contents") for output in raw.outputs)
    texts = b"".join(struct.pack("<I", len(text)) + text for text in typed.outputs[0].contents.bytes_contents)
    assert raw.raw_output_contents[0] == texts
    assert np.frombuffer(raw.raw_output_contents[2], "<i8").tolist() == list(
        typed.outputs[2].contents.int64_contents)


def test_records_and_conversations(running: RunningRpc, stub: Stub) -> None:
    record = {"name": "Alimentum", "price": "cheap"}
    rest = httpx.post(f"{running.url}/v1/completions", json={
        "model": MODEL, "prompt": record, "max_tokens": 8, "seed": 1}).json()
    reply = stub.call(INFERENCE, "ModelInfer", request(tensor("record", json.dumps(record).encode())))
    assert reply.outputs[0].contents.bytes_contents[0].decode() == rest["choices"][0]["text"]
    messages = [{"role": "user", "content": "Where?"}]
    rest = httpx.post(f"{running.url}/v1/chat/completions", json={
        "model": MODEL, "messages": messages, "max_tokens": 8, "seed": 1}).json()
    reply = stub.call(INFERENCE, "ModelInfer", request(tensor("messages", json.dumps(messages).encode())))
    assert reply.outputs[0].contents.bytes_contents[0].decode() == rest["choices"][0]["message"]["content"]


def test_only_the_outputs_that_are_asked_for(stub: Stub) -> None:
    wanted = [Request.InferRequestedOutputTensor(name="completion_tokens")]
    reply = stub.call(INFERENCE, "ModelInfer", request(tensor("text_input", b"a"), outputs=wanted))
    assert list(outputs(reply)) == ["completion_tokens"]


def test_embeddings(running: RunningRpc, stub: Stub) -> None:
    rest = httpx.post(f"{running.url}/v1/embeddings", json={"model": MODEL, "input": ["a b", "c"]}).json()
    wanted = [Request.InferRequestedOutputTensor(name="embedding")]
    reply = stub.call(INFERENCE, "ModelInfer", request(tensor("text_input", b"a b", b"c"), outputs=wanted,
                                                       parameters={}))
    output, = reply.outputs
    assert (output.datatype, list(output.shape)) == ("FP32", [2, 3])
    assert list(output.contents.fp32_contents) == pytest.approx(
        [value for one in rest["data"] for value in one["embedding"]])


def test_options_hold_what_no_parameter_can(stub: Stub) -> None:
    options = json.dumps({"structured_outputs": {"choice": ["cheap"]}, "stop_token_ids": [1]})
    reply = stub.call(INFERENCE, "ModelInfer", request(
        tensor("text_input", b"a"), parameters=parameters(max_tokens=8, options=options)))
    assert list(reply.outputs[0].contents.bytes_contents) == [b"cheap"]


_RAW = Request.InferInputTensor(name="text_input", datatype="BYTES", shape=[1])
WRONG = {
    "no-model": (request(tensor("text_input", b"a"), model_name=""), "model_name"),
    "no-input": (request(), "inputs"),
    "two-inputs": (request(tensor("text_input", b"a"), tensor("record", b"{}")), "inputs"),
    "twice": (request(tensor("text_input", b"a"), tensor("text_input", b"a")), "inputs.1.name"),
    "unknown-input": (request(tensor("prompt", b"a")), "inputs.0.name"),
    "datatype": (request(tensor("text_input", b"a", datatype="INT32")), "inputs.0.datatype"),
    "shape": (request(tensor("text_input", b"a", shape=[2])), "inputs.0"),
    "negative-shape": (request(tensor("text_input", b"a", shape=[-1, -1])), "inputs.0"),
    "no-shape": (request(tensor("text_input", b"a", shape=[])), "inputs.0"),
    "huge-shape": (request(tensor("text_input", b"a", shape=[2**62] * 8)), "inputs.0"),
    "other-contents": (request(tensor("text_input", contents=pb.InferTensorContents(int_contents=[1]))), "contents"),
    "raw-cut": (request(_RAW, raw_input_contents=[b"\x09\0\0\0a"]), "inputs.0"),
    "raw-short": (request(_RAW, raw_input_contents=[b"\x01\0"]), "inputs.0"),
    "raw-count": (request(_RAW, raw_input_contents=[b"", b""]), "raw_input_contents"),
    "raw-and-typed": (request(tensor("text_input", b"a"), raw_input_contents=[b"\0\0\0\0"]), "inputs.0.contents"),
    "not-utf8": (request(tensor("text_input", b"\xff")), "text_input.0"),
    "no-record": (request(tensor("record", b"[1]")), "record.0"),
    "no-messages": (request(tensor("messages", b"{}")), "messages"),
    "two-talks": (request(tensor("messages", b"[]", b"[]")), "messages"),
    "output": (request(tensor("text_input", b"a"), outputs=[Request.InferRequestedOutputTensor(name="x")]),
               "outputs.0"),
    "mixed": (request(tensor("text_input", b"a"), outputs=[Request.InferRequestedOutputTensor(name="embedding"),
                                                           Request.InferRequestedOutputTensor(name="text_output")]),
              "outputs.1"),
    "no-value": (request(tensor("text_input", b"a"), parameters={"n": pb.InferParameter()}), "parameters.n"),
    "unknown-parameter": (request(tensor("text_input", b"a"), parameters=parameters(timeout=5)), "timeout"),
    "nan": (request(tensor("text_input", b"a"), parameters=parameters(temperature=float("nan"))), "double_param"),
    "stream": (request(tensor("text_input", b"a"), parameters=parameters(stream=True)), "parameters.stream"),
    "prompt": (request(tensor("text_input", b"a"), parameters=parameters(prompt="b")), "parameters.prompt"),
    "options": (request(tensor("text_input", b"a"), parameters=parameters(options="[]")), "parameters.options"),
    "options-kind": (request(tensor("text_input", b"a"), parameters=parameters(options=1)), "parameters.options"),
    "options-twice": (request(tensor("text_input", b"a"), parameters=parameters(n=1, options='{"n": 1}')), "options.n"),
    "options-model": (request(tensor("text_input", b"a"), parameters=parameters(options='{"prompt": "x"}')), "prompt"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(stub: Stub, case: str) -> None:
    made, says = WRONG[case]
    error = refused(stub, "ModelInfer", made)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in error.details()


def test_shared_memory_is_not_supported(stub: Stub) -> None:
    made = request(tensor("text_input", b"a", parameters=parameters(shared_memory_region="x")))
    assert refused(stub, "ModelInfer", made).code() is grpc.StatusCode.UNIMPLEMENTED
    out = Request.InferRequestedOutputTensor(name="text_output", parameters=parameters(classification=1))
    made = request(tensor("text_input", b"a"), outputs=[out])
    assert refused(stub, "ModelInfer", made).code() is grpc.StatusCode.UNIMPLEMENTED


def test_one_bundle_is_listed_and_stays(stub: Stub) -> None:
    models = stub.call(INFERENCE, "RepositoryIndex").models
    assert [(model.name, model.version, model.state) for model in models] == [(MODEL, "1", "READY")]
    for name in ("RepositoryModelLoad", "RepositoryModelUnload"):
        error = refused(stub, name, model_name=MODEL)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "registry" in error.details()


def test_a_repository_loads_and_unloads(language: Language) -> None:
    shelf = Shelf()
    with RunningRpc(language, lambda: engine_backend(language), repository=shelf) as running, \
            connected(running.address) as stub:
        assert len(stub.call(INFERENCE, "RepositoryIndex").models) == 2
        assert [model.name for model in stub.call(INFERENCE, "RepositoryIndex", ready=True).models] == [MODEL]
        assert list(stub.call(INFERENCE, "ModelMetadata", name=MODEL).versions) == ["3"]
        assert stub.call(INFERENCE, "RepositoryModelLoad", model_name="other").isLoaded
        assert stub.call(INFERENCE, "RepositoryModelUnload", triton_model_name="other/2", parameters={
            "unload_dependents": pb.ModelRepositoryParameter(bool_param=False)}).isUnloaded
        by = "anyone on this machine"
        assert shelf.calls == [("load", "other", None, by), ("unload", "other", "2", by)]
        assert refused(stub, "RepositoryModelLoad", model_name="none").code() is grpc.StatusCode.NOT_FOUND
        assert refused(stub, "RepositoryModelLoad").code() is grpc.StatusCode.INVALID_ARGUMENT
        files = {"file:1/model.py": pb.ModelRepositoryParameter(bytes_param=b"import os")}
        error = refused(stub, "RepositoryModelLoad", model_name="other", parameters=files)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        error = refused(stub, "RepositoryModelLoad", model_name="shelf", triton_model_name="other")
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert len(shelf.calls) == 2
