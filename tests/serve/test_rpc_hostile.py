"""Whatever is sent to a method, random bytes or messages that fit its form: no fault of ours, and the server lives on.

More cases: ``HOSTILE_CASES=500 pytest tests/serve/test_rpc_hostile.py``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_tools import MODEL
from rpc_tools import INFERENCE, RunningRpc, Stub, asked, connected, embedding_backend

from openautoglm.protos import inference_pb2, text_pb2
from openautoglm.serve.service.language import Language

CASES = int(os.environ.get("HOSTILE_CASES", "10"))
OURS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.DEADLINE_EXCEEDED}
FILES = (inference_pb2, text_pb2, health_pb2, reflection_pb2)
METHODS = {f"{service.full_name}/{method.name}": (file, method) for file in FILES
           for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods}
_LATE_S = 60
_WHOLE = {FieldDescriptor.CPPTYPE_INT32: (-2**31, 2**31 - 1), FieldDescriptor.CPPTYPE_INT64: (-2**63, 2**63 - 1),
          FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1), FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1)}
_TEXTS = st.one_of(st.text(max_size=12), st.sampled_from([
    MODEL, "text_input", "record", "messages", "BYTES", "embedding", "text_output", "user", "{}", "[]", "\0", "\u202e",
    '{"a": 1e999}', "[" * 200, '[{"role": "user", "content": "x"}]', "models:/x/1", "../../etc/passwd", "(a+)+$",
    '{"type": "object"}', "{{ 7 * 7 }}", "turns", "auto", "text.proto", "autoglm.v1.TextService", "options", "n"]))


@pytest.fixture(scope="module")
def running(language: Language) -> Iterator[RunningRpc]:
    options = {"limits": {"max_tokens": 4, "timeout_s": 30}, "max_tokens": 2}
    with RunningRpc(language, lambda: embedding_backend(language), options=options) as running:
        yield running


@pytest.fixture(scope="module")
def stub(running: RunningRpc) -> Iterator[Stub]:
    with connected(running.address) as stub:
        yield stub


def values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    """Values of one field, without its repetition."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return fields(field.message_type, depth - 1)
    if kind in _WHOLE:
        low, high = _WHOLE[kind]
        return st.one_of(st.integers(low, high), st.integers(max(low, -2), 5))
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return st.floats(width=32)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.one_of(st.binary(max_size=12), _TEXTS.map(str.encode))
    return _TEXTS


@st.composite
def fields(draw: Any, message: Descriptor, depth: int) -> dict[str, Any]:
    """The fields of a message; deeper ones are left out at the end of `depth`."""
    made: dict[str, Any] = {}
    for field in message.fields:
        is_message = field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
        if (is_message and depth == 0) or not draw(st.booleans()):
            continue
        if field.containing_oneof is not None and any(
                other.name in made for other in field.containing_oneof.fields):
            continue
        if field.name in ("model", "model_name") and draw(st.integers(0, 3)):
            made[field.name] = MODEL
        elif is_message and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields
            made[field.name] = draw(st.dictionaries(values(key, 0), values(value, depth), max_size=2))
        elif field.is_repeated:
            made[field.name] = draw(st.lists(values(field, depth), max_size=3))
        else:
            made[field.name] = draw(values(field, depth))
    return made


def ended(stub: Stub, path: str, messages: list[bytes]) -> grpc.StatusCode:
    """How a call ends; one that goes on for ever is left after its first reply."""
    call = stub.channel.stream_stream(f"/{path}")(iter(messages), timeout=_LATE_S)
    try:
        for _ in call:
            if path.endswith("/Watch"):
                call.cancel()
                return grpc.StatusCode.OK
        return call.code()
    except grpc.RpcError as error:
        refused = error
    assert refused.code() not in OURS, (path, refused.code(), refused.details())
    return refused.code()


def alive(stub: Stub) -> None:
    assert stub.call(INFERENCE, "ServerReady").ready
    assert stub.texts(asked(options={"max_tokens": 2}))[0]


def tried(cases: int) -> settings:
    return settings(max_examples=cases, database=None, derandomize=True, deadline=None,
                    suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@pytest.mark.parametrize("path", METHODS)
def test_random_bytes(stub: Stub, path: str) -> None:
    found: Counter[str] = Counter()

    @tried(CASES)
    @given(st.lists(st.binary(max_size=40), max_size=2))
    def send(messages: list[bytes]) -> None:
        found[ended(stub, path, messages).name] += 1

    send()
    assert sum(found.values()) >= CASES
    alive(stub)


@pytest.mark.slow
@pytest.mark.parametrize("path", METHODS)
def test_messages_of_its_form(stub: Stub, path: str) -> None:
    file, method = METHODS[path]
    kind = getattr(file, method.input_type.name)
    found: Counter[str] = Counter()

    @tried(3 * CASES if method.input_type.fields else 1)
    @given(fields(method.input_type, 4))
    def send(made: dict[str, Any]) -> None:
        found[ended(stub, path, [kind(**made).SerializeToString()]).name] += 1

    send()
    assert found
    alive(stub)


def test_cut_messages(stub: Stub) -> None:
    """Every beginning of a message that is right, and every one with a byte turned over."""
    whole = asked(options={"max_tokens": 1}).SerializeToString()
    path = "autoglm.v1.TextService/Generate"
    for at in range(len(whole)):
        ended(stub, path, [whole[:at]])
        ended(stub, path, [whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1:]])
    alive(stub)
