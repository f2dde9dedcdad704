"""Where calls arrive over gRPC: keys and scopes of every method, rates, bounds, deadlines, clients that leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from rest_tools import MODEL, engine_backend
from rpc_tools import INFERENCE, TEXT, RunningRpc, asked, connected, trailing

from openautoglm.protos import inference_pb2, text_pb2
from openautoglm.serve.guard import secret
from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.guard.settings import GuardSettings
from openautoglm.serve.registry.keys import KeyRecord
from openautoglm.serve.rpc.desk import client_of
from openautoglm.serve.service.language import Language

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
OPEN = {"/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady",
        "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/List"}
ADMIN = {f"/inference.GRPCInferenceService/{name}" for name in
         ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")}
PATHS = sorted({f"/{service.full_name}/{method.name}" for file in (inference_pb2, text_pb2, health_pb2, reflection_pb2)
                for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods}
               | {REFLECTION.replace("v1alpha", "v1"), "/none.Such/Method", "/x", "/autoglm.v1.TextService/generate",
                  "/autoglm.v1.TextService/Generate/", "/inference.GRPCInferenceService/ModelConfig"})
LONG = {"max_tokens": 400, "ignore_eos": True}


class Keys:
    """Keys in memory, one for each scope."""

    def __init__(self, **rates: int) -> None:
        self.metadata: dict[str, list[tuple[str, str]]] = {}
        self._records: dict[str, KeyRecord] = {}
        for scope in ("infer", "admin", "metrics"):
            key_id, token, hashed = secret.mint()
            self.metadata[scope] = [("authorization", f"Bearer {token}")]
            self._records[key_id] = KeyRecord(key_id, scope, hashed, frozenset({scope}), **rates)

    def get(self, key_id: str) -> KeyRecord | None:
        return self._records.get(key_id)

    def touch(self, key_id: str) -> None:
        """Of no interest here."""


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="module")
def keyed(language: Language, keys: Keys) -> Iterator[RunningRpc]:
    guard = Guard(keys, GuardSettings(failures_per_min=10_000))
    with RunningRpc(language, lambda: engine_backend(language), guard=guard) as running:
        yield running


@pytest.fixture(scope="module")
def plain(language: Language) -> Iterator[RunningRpc]:
    with RunningRpc(language, lambda: engine_backend(language)) as running:
        yield running


def code_of(address: str, path: str, metadata: list[tuple[str, str]], body: bytes = b"") -> grpc.StatusCode:
    """How a call of any method ends; a stream is left after its first reply."""
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(path)(iter([body]), metadata=metadata, timeout=20)
        try:
            for _ in call:
                call.cancel()
                return grpc.StatusCode.OK
            return call.code()
        except grpc.RpcError as error:
            return error.code()


@pytest.mark.parametrize("path", PATHS)
def test_every_method_needs_a_key_and_its_scope(keyed: RunningRpc, keys: Keys, path: str) -> None:
    refusal, needed = grpc.StatusCode.UNAUTHENTICATED, "admin" if path in ADMIN else "infer"
    wrong = [("authorization", "Bearer autoglm_aaaaaaaaaaaa_" + "x" * 43)]
    for metadata in ([], wrong, [("authorization", "Bearer x")], [*keys.metadata[needed] * 2]):
        code = code_of(keyed.address, path, metadata)
        assert code is not refusal if path in OPEN else code is refusal, (path, metadata)
    for scope, metadata in keys.metadata.items():
        code = code_of(keyed.address, path, metadata)
        if path not in OPEN:
            assert (code is grpc.StatusCode.PERMISSION_DENIED) == (scope != needed), (path, scope)
    known = path in OPEN or path in ADMIN or "Reflection" in path or path.startswith("/autoglm.v1.TextService/")
    if not known and "GRPCInferenceService" not in path:
        assert code_of(keyed.address, path, keys.metadata["infer"]) is grpc.StatusCode.UNIMPLEMENTED


def test_unknown_bytes_are_not_parsed_without_a_key(keyed: RunningRpc, keys: Keys) -> None:
    path = "/autoglm.v1.TextService/Generate"
    assert code_of(keyed.address, path, [], b"\xff\xff") is grpc.StatusCode.UNAUTHENTICATED
    assert code_of(keyed.address, path, keys.metadata["infer"], b"\xff\xff") is grpc.StatusCode.INVALID_ARGUMENT


def test_rates_are_those_of_the_key(language: Language) -> None:
    keys = Keys(requests_per_min=2)
    with RunningRpc(language, lambda: engine_backend(language), guard=Guard(keys)) as running, \
            connected(running.address) as stub:
        stub.texts(asked(), metadata=keys.metadata["infer"])
        reply = httpx.post(f"{running.url}/v1/completions", json={"model": MODEL, "prompt": "x", "max_tokens": 1},
                           headers=dict(keys.metadata["infer"]))
        assert reply.status_code == 200  # the bucket is one for both interfaces
        with pytest.raises(grpc.RpcError) as caught:
            stub.texts(asked(), metadata=keys.metadata["infer"])
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert trailing(caught.value)["x-fault"] == "rate_limited"
        assert 1 <= int(trailing(caught.value)["retry-after"]) <= 60


def test_requests_have_ids(plain: RunningRpc) -> None:
    with connected(plain.address) as stub:
        for given, kept in (("abc-1", True), ("a b", False), ("x" * 65, False)):
            call = stub.call(TEXT, "Generate", asked(), metadata=[("x-request-id", given)])
            list(call)
            found = dict(call.trailing_metadata())["x-request-id"]
            assert (found == given) == kept
            assert found


def test_calls_are_counted_by_method_and_code(language: Language) -> None:
    with RunningRpc(language, lambda: engine_backend(language)) as running, connected(running.address) as stub:
        stub.texts(asked())
        for _ in range(2):
            with pytest.raises(grpc.RpcError):
                stub.texts(asked(model="none"))
        code_of(running.address, "/made/up", [])
        page = httpx.get(f"{running.url}/metrics").text
    name = 'grpc_server_handled_total{grpc_code="%s",grpc_method="%s",grpc_service="%s"} %s'
    assert name % ("OK", "Generate", TEXT.full_name, "1.0") in page
    assert name % ("NOT_FOUND", "Generate", TEXT.full_name, "2.0") in page
    assert name % ("UNIMPLEMENTED", "other", "other", "1.0") in page
    assert "made" not in page


def test_large_and_compressed_messages_are_refused(language: Language) -> None:
    with RunningRpc(language, lambda: engine_backend(language), options={"limits": {"body_bytes": 2000}}) as running, \
            connected(running.address) as stub:
        for prompt, code in (("x" * 1900, grpc.StatusCode.INVALID_ARGUMENT), ("x" * 2100,
                                                                               grpc.StatusCode.RESOURCE_EXHAUSTED)):
            with pytest.raises(grpc.RpcError) as caught:
                stub.texts(asked(prompts=[text_pb2.Prompt(text=prompt)]))
            assert caught.value.code() is code
        method = stub.channel.unary_stream("/autoglm.v1.TextService/Generate")
        bomb = text_pb2.GenerateRequest(model=MODEL, prompts=[text_pb2.Prompt(text="x" * 100_000)])
        with pytest.raises(grpc.RpcError) as caught:
            list(method(bomb.SerializeToString(), compression=grpc.Compression.Gzip, timeout=20))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert stub.texts(asked())[0]


def test_a_message_must_come_in_time(language: Language) -> None:
    with RunningRpc(language, lambda: engine_backend(language), options={"limits": {"body_s": 0.2}}) as running, \
            connected(running.address) as stub:
        waiting = threading.Event()

        def never() -> Iterator[bytes]:
            waiting.wait(20)
            yield from ()

        call = stub.channel.stream_stream("/autoglm.v1.TextService/Generate")(never(), timeout=20)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        waiting.set()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "0.2 s" in caught.value.details()


def wait_for(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


@contextmanager
def stepping(language: Language, **options: Any) -> Iterator[tuple[RunningRpc, threading.Semaphore]]:
    """A server whose engine takes a step only when the semaphore lets it."""
    gate = threading.Semaphore(0)
    with RunningRpc(language, lambda: engine_backend(language, before=lambda step: gate.acquire() and None),
                    **options) as running:
        try:
            yield running, gate
        finally:
            gate.release(100_000)


def _infer() -> Any:
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(
        name="text_input", datatype="BYTES", shape=[1], contents=inference_pb2.InferTensorContents(
            bytes_contents=[b"x"]))
    return inference_pb2.ModelInferRequest(model_name=MODEL, inputs=[tensor], parameters={
        "max_tokens": inference_pb2.InferParameter(int64_param=400),
        "ignore_eos": inference_pb2.InferParameter(bool_param=True)})


@pytest.mark.parametrize("whole", [False, True], ids=["stream", "whole"])
def test_a_client_that_leaves_is_noticed_within_one_step(language: Language, whole: bool) -> None:
    with stepping(language) as (server, gate), grpc.insecure_channel(server.address) as channel:
        name, request = ("inference.GRPCInferenceService/ModelInfer", _infer()) if whole else (
            "autoglm.v1.TextService/Generate", asked(options=LONG))
        call = channel.unary_stream(f"/{name}")(request.SerializeToString())
        gate.release(4)
        wait_for(lambda: server.backend.stats.steps == 4)
        assert server.backend.stats.pages_held > 0
        call.cancel()
        wait_for(lambda: server.call(lambda: server.service.queue.present) == 0)
        gate.release(1)  # the step that was under way
        wait_for(lambda: server.backend.stats.pages_held == 0)
        assert server.backend.stats.steps <= 5
        assert server.backend.stats.cancelled == 1


def test_the_deadline_of_a_call_is_that_of_the_request(language: Language) -> None:
    seen: list[float] = []
    with RunningRpc(language, lambda: engine_backend(language)) as running, connected(running.address) as stub:
        stream = running.backend.stream

        def watched(order: Any) -> Any:
            seen.append(order.timeout_s)
            return stream(order)

        running.backend.stream = watched
        stub.texts(asked(), timeout=9)
        stub.texts(asked(options={"timeout_s": 5.0}), timeout=9)
        list(stub.channel.unary_stream("/autoglm.v1.TextService/Generate")(asked().SerializeToString()))
        stub.call(INFERENCE, "ModelInfer", _infer(), timeout=7)
    assert [round(value) for value in seen] == [9, 5, 600, 7]


def test_a_deadline_that_passes_frees_the_pages(language: Language) -> None:
    with stepping(language) as (server, gate), connected(server.address) as stub:
        call = stub.call(TEXT, "Generate", asked(options=LONG), timeout=0.5)
        gate.release(3)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_for(lambda: server.call(lambda: server.service.queue.present) == 0)
        gate.release(2)
        wait_for(lambda: server.backend.stats.pages_held == 0)


def test_a_full_queue_says_when_to_come_again(language: Language) -> None:
    with stepping(language, options={"queue": {"requests": 0}}) as (server, _), connected(server.address) as stub:
        slots = server.backend.facts.max_batch
        calls = [stub.call(TEXT, "Generate", asked(options=LONG)) for _ in range(slots)]
        wait_for(lambda: server.call(lambda: server.service.queue.present) == slots)
        with pytest.raises(grpc.RpcError) as caught:
            stub.texts(asked())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert trailing(caught.value)["x-fault"] == "overloaded"
        assert int(trailing(caught.value)["retry-after"]) >= 1
        for call in calls:
            call.cancel()


def test_a_client_that_does_not_read_is_left(language: Language) -> None:
    with RunningRpc(language, lambda: engine_backend(language), options={"limits": {"stall_s": 0.3}}) as server, \
            connected(server.address, **{"grpc.http2.lookahead_bytes": 1024, "grpc.http2.bdp_probe": 0}) as stub:
        options = {**LONG, "n": 16}
        call = stub.call(TEXT, "Generate", asked(options=options, logprobs=20))
        next(call)
        wait_for(lambda: server.call(lambda: server.service.queue.present) == 0, 60)
        found = httpx.get(f"{server.url}/metrics").text
        assert 'kind="client_gone"' in found
        call.cancel()


def test_what_we_did_not_foresee_tells_nothing(language: Language) -> None:
    with RunningRpc(language, lambda: engine_backend(language)) as running, connected(running.address) as stub:
        def broken(order: Any) -> Any:
            raise RuntimeError("the secret path /etc/shadow")

        running.backend.stream = broken
        with pytest.raises(grpc.RpcError) as caught:
            stub.texts(asked())
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in caught.value.details()
        assert trailing(caught.value)["x-request-id"]


@pytest.mark.parametrize(("peer", "client"), [
    ("ipv4:127.0.0.1:4711", "127.0.0.1"), ("ipv6:%5B::1%5D:4711", "::1"), ("ipv6:[fe80::1%25eth0]:1", "fe80::1%eth0"),
    ("unix:", ""), ("", "")], ids=["v4", "v6", "zone", "unix", "none"])
def test_addresses_of_peers(peer: str, client: str) -> None:
    assert client_of(peer) == client
