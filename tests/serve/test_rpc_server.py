"""The gRPC server's life: it starts and ends with the one for HTTP; TLS, health, reflection."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from rest_tools import engine_backend
from rpc_tools import INFERENCE, TEXT, RunningRpc, Stub, asked, connected
from test_rest_server import Verb, verb

from openautoglm.core.errors import ResourceError
from openautoglm.protos import text_pb2
from openautoglm.serve.rpc.settings import RpcSettings
from openautoglm.serve.service.language import Language

SERVING, NOT_SERVING, UNKNOWN = (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING,
                                 health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)


@pytest.fixture(scope="module")
def running(language: Language) -> Iterator[RunningRpc]:
    with RunningRpc(language, lambda: engine_backend(language)) as running:
        yield running


def health(stub: Stub, name: str, service: str = "") -> Any:
    kind = stub.channel.unary_stream if name == "Watch" else stub.channel.unary_unary
    reply = health_pb2.HealthListResponse if name == "List" else health_pb2.HealthCheckResponse
    request = health_pb2.HealthListRequest() if name == "List" else health_pb2.HealthCheckRequest(service=service)
    return kind(f"/grpc.health.v1.Health/{name}", request_serializer=type(request).SerializeToString,
                response_deserializer=reply.FromString)(request, timeout=30)


def test_health_is_told_of_every_service(running: RunningRpc) -> None:
    with connected(running.address) as stub:
        for service in ("", TEXT.full_name, INFERENCE.full_name):
            assert health(stub, "Check", service).status == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health(stub, "Check", "none")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert {one.status for one in health(stub, "List").statuses.values()} == {SERVING}
        assert next(health(stub, "Watch", "none")).status == UNKNOWN


def test_health_follows_readiness(language: Language) -> None:
    with RunningRpc(language, lambda: engine_backend(language)) as running, connected(running.address) as stub:
        watched = health(stub, "Watch")
        assert next(watched).status == SERVING
        why: list[str | None] = ["the engine is gone"]

        async def unready() -> str | None:
            return why[0]

        known = running.serving.models.unready
        running.serving.models.unready = unready
        assert next(watched).status == NOT_SERVING
        assert health(stub, "Check").status == NOT_SERVING
        assert not stub.call(INFERENCE, "ServerReady").ready
        assert stub.call(INFERENCE, "ServerLive").live
        running.serving.models.unready = known
        assert next(watched).status == SERVING


def test_watchers_are_bounded(language: Language) -> None:
    with RunningRpc(language, lambda: engine_backend(language), rpc={"watchers": 1}) as running, \
            connected(running.address) as stub:
        first = health(stub, "Watch")
        next(first)
        with pytest.raises(grpc.RpcError) as caught:
            next(health(stub, "Watch"))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        first.cancel()


def test_calls_at_once_are_bounded(language: Language) -> None:
    with RunningRpc(language, lambda: engine_backend(language), rpc={"calls": 1}) as running, \
            connected(running.address) as stub:
        watched = health(stub, "Watch")
        next(watched)
        with pytest.raises(grpc.RpcError) as caught:
            stub.texts(asked())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        watched.cancel()


def test_the_end_finishes_what_runs_and_tells_watchers(language: Language) -> None:
    gate = threading.Semaphore(0)
    running = RunningRpc(language, lambda: engine_backend(language, before=lambda step: gate.acquire() and None))
    with running, connected(running.address) as stub:
        gate.release(50)
        watched = health(stub, "Watch")
        assert next(watched).status == SERVING
        wait = stub.call(TEXT, "Generate", asked(options={"max_tokens": 400, "ignore_eos": True}))
        next(wait)
        running.tell()
        assert next(watched).status == NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.texts(asked())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert dict(caught.value.trailing_metadata())["retry-after"] == "1"
        gate.release(100_000)
        replies = list(wait)
        assert replies[-1].usage.completion_tokens == 400
        assert list(watched) == []
        running.join()
        assert running.well


def test_reflection_knows_our_files_and_no_others(running: RunningRpc) -> None:
    def replies(version: str, **asks: str) -> Any:
        request = reflection_pb2.ServerReflectionRequest(**asks)
        with connected(running.address) as stub:
            call = stub.channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString)
            return next(call(iter([request]), timeout=20))

    for version in ("v1", "v1alpha"):
        names = {one.name for one in replies(version, list_services="").list_services_response.service}
        assert {INFERENCE.full_name, TEXT.full_name, "grpc.health.v1.Health"} <= names
        found = replies(version, file_containing_symbol=TEXT.full_name).file_descriptor_response
        proto = FileDescriptorProto.FromString(found.file_descriptor_proto[0])
        assert proto.name == text_pb2.DESCRIPTOR.name
    other = replies("v1", file_by_filename="google/protobuf/descriptor.proto")
    assert other.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_tls(language: Language, certificates: Path) -> None:
    rpc = {"tls_cert": certificates / "server.pem", "tls_key": certificates / "server.key"}
    authority = (certificates / "ca.pem").read_bytes()
    with RunningRpc(language, lambda: engine_backend(language), rpc=rpc) as running:
        with connected(running.address, grpc.ssl_channel_credentials(authority)) as stub:
            assert stub.texts(asked())[0]
        with connected(running.address) as stub, pytest.raises(grpc.RpcError):
            stub.texts(asked(), timeout=5)


def test_clients_must_show_certificates_where_that_is_asked_for(language: Language, certificates: Path) -> None:
    rpc = {"tls_cert": certificates / "server.pem", "tls_key": certificates / "server.key",
           "tls_clients": certificates / "ca.pem"}
    authority, key, chain = (
        (certificates / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem"))
    with RunningRpc(language, lambda: engine_backend(language), rpc=rpc) as running:
        with connected(running.address, grpc.ssl_channel_credentials(authority, key, chain)) as stub:
            assert stub.texts(asked())[0]
        with connected(running.address, grpc.ssl_channel_credentials(authority)) as stub, \
                pytest.raises(grpc.RpcError) as caught:
            stub.texts(asked(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("rpc", [
    {"tls_cert": "server.pem", "tls_key": "client.key"}, {"tls_cert": "none.pem", "tls_key": "server.key"},
    {"tls_cert": "server.pem", "tls_key": "server.key", "tls_clients": "server.key"}],
    ids=["other-key", "no-file", "no-authority"])
def test_a_wrong_certificate_is_told(language: Language, certificates: Path, rpc: dict[str, str]) -> None:
    files = {name: certificates / file for name, file in rpc.items()}
    with pytest.raises(ResourceError, match="certificate"), \
            RunningRpc(language, lambda: engine_backend(language), rpc=files):
        pass


def test_an_address_that_is_taken_is_told(language: Language, running: RunningRpc) -> None:
    port = int(running.address.rpartition(":")[2])
    with pytest.raises(ResourceError) as caught, RunningRpc(language, lambda: engine_backend(language),
                                                            rpc={"port": port}):
        pass
    assert "--grpc-port" in str(caught.value.remedy)


@pytest.mark.parametrize("given", [{"tls_cert": "a.pem"}, {"tls_clients": "a.pem"}, {"port": 70_000}, {"calls": 0}],
                         ids=["cert", "clients", "port", "calls"])
def test_wrong_settings_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RpcSettings.model_validate(given)


def grpc_address(server: Verb) -> str:
    end = time.monotonic() + 20
    while not (found := re.search(r"serving gRPC on (\S+)", "".join(server.log))):
        assert time.monotonic() < end, server.log
        time.sleep(0.01)
    return found[1]


@pytest.mark.slow
def test_an_engine_that_is_killed_is_told_and_comes_back(bundle_path: Path) -> None:
    with verb(str(bundle_path), "--grpc-port", "0") as server, connected(grpc_address(server)) as stub:
        watched = health(stub, "Watch")
        assert next(watched).status == SERVING
        call = stub.call(TEXT, "Generate", asked(model="tiny", options={"max_tokens": 4000, "ignore_eos": True}))
        next(call)
        engine, = psutil.Process(server.process.pid).children()
        engine.kill()
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert dict(caught.value.trailing_metadata())["x-fault"] == "engine_lost"
        end = time.monotonic() + 60
        while health(stub, "Check").status != SERVING or not psutil.Process(server.process.pid).children():
            assert time.monotonic() < end, server.log
            time.sleep(0.05)
        assert stub.texts(asked(model="tiny"))[1].usage.completion_tokens > 0
        server.tell()
        assert server.end() == 0


@pytest.mark.slow
def test_the_verb_serves_both_and_ends_both(bundle_path: Path) -> None:
    with verb(str(bundle_path), "--grpc-port", "0") as server:
        with connected(grpc_address(server)) as stub:
            assert stub.texts(asked(model="tiny"))[1].usage.completion_tokens > 0
            call = stub.call(TEXT, "Generate", asked(model="tiny", options={"max_tokens": 1500, "ignore_eos": True}))
            next(call)
            server.tell()
            assert list(call)[-1].usage.completion_tokens == 1500
        assert server.end() == 0
