"""The text service over gRPC as a client: `Generate` and `Chat` of `protos/text.proto`, streamed."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from openautoglm.bench.client import FailedError, Mark, Pulse
from openautoglm.bench.plan import Ask
from openautoglm.bench.rest import ROLES, Server
from openautoglm.bench.settings import Prompts
from openautoglm.core.errors import LoadError
from openautoglm.core.extras import require

METHODS = {"grpc": "Generate", "grpc-chat": "Chat"}
_SERVICE = "/autoglm.v1.TextService/"
_SCHEMES = {"grpc": 8081, "grpcs": 443}
_SLICE = 16
_DETAIL = 300
_OPEN_S = 30.0
_AT_ONCE = 64


class RpcClient:
    """See `openautoglm.bench.client.Client`. A connection carries up to 64 requests, as servers bound that number.

    Args:
        server: its `base_url` is ``grpc://host:port``, or ``grpcs://host:port`` with TLS; `headers` become metadata.

    Raises:
        LoadError: the address is none, or there are options that only REST has.
        MissingExtraError: grpcio is not installed.
    """

    def __init__(self, server: Server, prompts: Prompts, pulse: Pulse, now: Callable[[], float] = time.monotonic
                 ) -> None:
        self._grpc: Any = require("grpc", "serve")
        require("google.protobuf", "serve")
        from openautoglm.protos import text_pb2

        self._pb: Any = text_pb2
        url = urlsplit(server.base_url)
        if url.scheme not in _SCHEMES or not url.hostname:
            raise LoadError(f"{server.base_url!r} is no address of a gRPC server", where="--base-url",
                            remedy="write grpc://host:port, or grpcs://host:port for TLS")
        if server.extra_body or server.endpoint:
            raise LoadError("there are no paths and no further fields over gRPC", where="--backend",
                            remedy="leave --endpoint and --extra-body out")
        self.host, self.port = url.hostname, url.port or _SCHEMES[url.scheme]
        self._tls = url.scheme == "grpcs"
        self._server, self._prompts, self._pulse, self._now = server, prompts, pulse, now
        self._metadata = [(name.lower(), value) for name, value in server.headers.items()]
        self._model = server.model or ""
        self._lines: list[_Line] = []

    @property
    def model(self) -> str:
        """The name of the model that is asked for."""
        return self._model

    async def open(self) -> None:
        """Connect, and ask for the model's name where it was not given.

        Raises:
            LoadError: nobody answers, or there is no model.
        """
        line = self._line()
        if self._model:
            return
        listed = line.channel.unary_unary(f"{_SERVICE}Models", response_deserializer=self._pb.ModelsReply.FromString)
        try:
            found = await listed(b"", metadata=self._metadata, timeout=_OPEN_S)
        except self._grpc.aio.AioRpcError as error:
            raise LoadError(f"does not answer: {error.code().name}: {error.details()}", where=self._server.base_url,
                            remedy="start the server with --grpc-port, and give its address with --base-url, and "
                                   "--api-key where it asks for one") from error
        if not found.models:
            raise LoadError("has no model", where=self._server.base_url, remedy="register one, or give --model")
        self._model = found.models[0].name

    async def close(self) -> None:
        """Cut the connections."""
        while self._lines:
            await self._lines.pop().channel.close()

    def prepare(self, ask: Ask) -> bytes:
        """The bytes of the request."""
        prompts, prompt, pb = self._prompts, ask.prompt, self._pb
        options = pb.Options(max_tokens=ask.max_tokens, temperature=prompts.temperature)
        if prompts.temperature > 0:
            options.top_p, options.seed = prompts.top_p, ask.seed
        if prompts.ignores_eos:
            options.ignore_eos = True
        if self._server.backend == "grpc-chat":
            turns = [(turn.role, turn.text) for turn in prompt.turns] or [("user", prompt.text)]
            request = pb.ChatRequest(model=self._model, options=options, messages=[
                pb.Message(role=ROLES.get(role, role), content=text) for role, text in turns])
        else:
            request = pb.GenerateRequest(model=self._model, options=options, prompts=[pb.Prompt(text=prompt.text)])
        made: bytes = request.SerializeToString()
        return made

    async def send(self, mark: Mark) -> None:
        """Send it; replies are kept as bytes with their times.

        Raises:
            FailedError: ``grpc_CODE`` for a call that did not end well.
        """
        line = self._line()
        line.under_way += 1
        mark.sent_s = self._now()
        call = line.ask(mark.payload, metadata=self._metadata)
        try:
            async for reply in call:
                at_s = self._pulse.at_s = self._now()
                mark.raw.append((at_s, reply))
        except self._grpc.aio.AioRpcError as error:
            raise FailedError(f"grpc_{error.code().name.lower()}", (error.details() or "")[:_DETAIL]) from error
        finally:
            line.under_way -= 1
            call.cancel()  # of no effect on one that has ended

    def digest(self, mark: Mark) -> Iterator[None]:
        """Read the replies.

        Raises:
            FailedError: ``cut`` where the end is missing.
        """
        raw, mark.raw = mark.raw, []
        ended = False
        for count, (at_s, piece) in enumerate(raw):
            reply = self._pb.Reply.FromString(piece)
            if reply.text:
                mark.token_s.append(at_s)
            if reply.HasField("usage"):
                mark.prompt_tokens, mark.output_tokens = reply.usage.prompt_tokens, reply.usage.completion_tokens
                ended = True
            if count % _SLICE == _SLICE - 1:
                yield
        if not ended:
            raise FailedError("cut", "the stream ended without its last reply")
        mark.output_tokens = mark.output_tokens or len(mark.token_s)

    def _line(self) -> _Line:
        """The connection that has the least to carry, or a new one where all carry as many as they should."""
        least = min(self._lines, key=lambda line: line.under_way, default=None)
        if least is not None and least.under_way < _AT_ONCE:
            return least
        aio = self._grpc.aio
        where = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        channel = aio.secure_channel(where, _credentials(self._grpc), options=options) if self._tls else \
            aio.insecure_channel(where, options=options)
        made = _Line(channel, channel.unary_stream(_SERVICE + METHODS[self._server.backend]))
        self._lines.append(made)
        return made


@dataclass(slots=True, eq=False)
class _Line:
    """A connection: what asks on it, and how many requests are under way."""

    channel: Any
    ask: Any
    under_way: int = 0


def _credentials(grpc: Any) -> Any:
    """Of TLS, with the authorities that this machine trusts."""
    authorities = ssl.create_default_context().get_ca_certs(binary_form=True)
    return grpc.ssl_channel_credentials("".join(map(ssl.DER_cert_to_PEM_cert, authorities)).encode() or None)
