"""A server that speaks gRPC beside REST, and calls to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from rest_tools import MODEL, Running, engine_backend

from openautoglm.protos import inference_pb2, text_pb2
from openautoglm.serve.backend import Embeddings, InProcess
from openautoglm.serve.rpc.server import RpcServer
from openautoglm.serve.rpc.serving import Serving
from openautoglm.serve.rpc.settings import RpcSettings
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.models import Repository

INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
TEXT = text_pb2.DESCRIPTOR.services_by_name["TextService"]
_FILES = {INFERENCE.full_name: inference_pb2, TEXT.full_name: text_pb2}


def embedding_backend(language: Language) -> InProcess:
    """An engine that gives vectors, too: of the length and the sum of what is to be read."""
    made = engine_backend(language)

    async def embed(prompts: Sequence[Sequence[int]]) -> Embeddings:
        return np.array([[len(prompt), sum(prompt), 0.5] for prompt in prompts], np.float32)

    made.embed = embed  # type: ignore[method-assign]
    return made


@dataclass
class RunningRpc(Running):
    """A server of both interfaces; `address` is the gRPC one's."""

    rpc: dict[str, Any] = field(default_factory=dict)
    repository: Repository | None = None
    address: str = ""

    def beside(self) -> AbstractAsyncContextManager[Any]:
        return self._beside()

    @asynccontextmanager
    async def _beside(self) -> Any:
        settings = RpcSettings.model_validate({"port": 0, **self.rpc})
        rest = self.serving
        async with RpcServer(Serving(rest.models, self.metrics, self.guard, settings, rest.limits,
                                     self.repository)) as server:
            self.address = server.address
            yield


class Stub:
    """Calls of one connection, by the descriptors of the methods."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def call(self, service: Any, name: str, request: Any = None, /, *, metadata: Sequence[tuple[str, str]] = (),
             timeout: float = 30, **fields: Any) -> Any:
        """A whole reply, or the iterator of a stream; fields make the request."""
        method, file = service.methods_by_name[name], _FILES[service.full_name]
        kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        request = request if request is not None else getattr(file, method.input_type.name)(**fields)
        made = kind(f"/{service.full_name}/{name}", request_serializer=type(request).SerializeToString,
                    response_deserializer=getattr(file, method.output_type.name).FromString)
        return made(request, metadata=list(metadata), timeout=timeout)

    def read(self, service: Any, name: str, request: Any) -> None:
        """Read all replies."""
        call = self.call(service, name, request)
        list(call if service.methods_by_name[name].server_streaming else ())

    def texts(self, request: Any = None, *, chat: bool = False, **more: Any) -> tuple[dict[int, str], Any]:
        """The answers by number, and the last reply."""
        found: dict[int, str] = {}
        last = None
        for reply in self.call(TEXT, "Chat" if chat else "Generate", request, **more):
            if not reply.HasField("usage"):
                found[reply.choice] = found.get(reply.choice, "") + reply.text
            last = reply
        return found, last


@contextmanager
def connected(address: str, credentials: Any = None, **options: Any) -> Iterator[Stub]:
    """A connection of its own."""
    arguments = [("grpc.use_local_subchannel_pool", 1), *options.items()]
    made = grpc.insecure_channel(address, options=arguments) if credentials is None else \
        grpc.secure_channel(address, credentials, options=arguments)
    with made as channel:
        yield Stub(channel)


def asked(**more: Any) -> Any:
    """A request for a short text."""
    options = text_pb2.Options(**{"max_tokens": 8, "seed": 1, **more.pop("options", {})})
    fields: dict[str, Any] = {"model": MODEL, "prompts": [text_pb2.Prompt(text="The Punter")], **more}
    return text_pb2.GenerateRequest(options=options, **fields)


def trailing(error: grpc.RpcError) -> dict[str, str]:
    """The metadata after a refusal."""
    return dict(error.trailing_metadata() or ())
