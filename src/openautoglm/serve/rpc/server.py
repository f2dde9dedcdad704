"""The gRPC server: it listens beside the one for HTTP, and ends with it."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from openautoglm.core.errors import ResourceError
from openautoglm.protos import inference_pb2, text_pb2
from openautoglm.serve.rpc.desk import Desk
from openautoglm.serve.rpc.health import Health
from openautoglm.serve.rpc.inference import Inference
from openautoglm.serve.rpc.reflection import reflection
from openautoglm.serve.rpc.serving import Serving
from openautoglm.serve.rpc.settings import RpcSettings
from openautoglm.serve.rpc.text import TextService
from openautoglm.serve.wire.limits import Limits

_NO_COMPRESSION = 1
_MS = 1000


class RpcServer:
    """Serves within ``async with``. What is under way at its end has `last_replies_s` to go out.

    Args:
        serving: what it is made of; its models are drained by whoever ends the process.
    """

    def __init__(self, serving: Serving) -> None:
        self._settings = serving.settings
        services = ("inference.GRPCInferenceService", "autoglm.v1.TextService")
        self._health = Health(serving, services)
        methods = [*TextService(serving).methods(), *Inference(serving).methods(), *self._health.methods(),
                   *reflection((*services, "grpc.health.v1.Health"),
                               (inference_pb2.DESCRIPTOR, text_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR))]
        self._server = grpc.aio.server(options=list(_options(self._settings, serving.limits).items()),
                                       maximum_concurrent_rpcs=self._settings.calls)
        self._server.add_generic_rpc_handlers((Desk(serving, methods),))
        self._port = 0

    @property
    def address(self) -> str:
        """Where clients find it, e.g. ``127.0.0.1:8081``."""
        return _address(self._settings.host, self._port)

    async def __aenter__(self) -> RpcServer:
        """Listen.

        Raises:
            ResourceError: the address is taken, or the certificate cannot be used.
        """
        settings = self._settings
        where = _address(settings.host, settings.port)
        credentials = _credentials(settings)
        try:
            self._port = self._server.add_insecure_port(where) if credentials is None else \
                self._server.add_secure_port(where, credentials)
        except RuntimeError as error:
            raise ResourceError("cannot be listened on", where=where, remedy="end the program that holds the port, or "
                                "choose another one with --grpc-port") from error
        await self._server.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        self._health.end()
        await self._server.stop(self._settings.last_replies_s)


def _options(settings: RpcSettings, limits: Limits) -> dict[str, Any]:
    """Channel arguments; a compressed message could be small and yet fill the memory, so there are none."""
    return {
        "grpc.max_receive_message_length": limits.body_bytes, "grpc.max_send_message_length": -1,
        "grpc.max_concurrent_streams": settings.streams, "grpc.max_metadata_size": settings.metadata_bytes,
        "grpc.absolute_max_metadata_size": settings.metadata_bytes,
        "grpc.compression_enabled_algorithms_bitset": _NO_COMPRESSION, "grpc.so_reuseport": 0,
        "grpc.server_handshake_timeout_ms": int(settings.handshake_s * _MS),
        "grpc.keepalive_time_ms": int(settings.ping_every_s * _MS),
        "grpc.keepalive_timeout_ms": int(settings.ping_answer_s * _MS),
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_recv_ping_interval_without_data_ms": int(settings.ping_least_s * _MS),
        "grpc.http2.max_ping_strikes": 2, "grpc.max_connection_idle_ms": int(settings.idle_s * _MS)}


def _credentials(settings: RpcSettings) -> Any:
    """Of TLS, or None."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.tls_cert, settings.tls_key)  # gRPC itself does not say what is wrong
        clients = None
        if settings.tls_clients is not None:
            context.load_verify_locations(settings.tls_clients)
            clients = settings.tls_clients.read_bytes()
        pair = settings.tls_key.read_bytes(), settings.tls_cert.read_bytes()
    except (OSError, ssl.SSLError) as error:
        raise ResourceError(f"the certificate cannot be used: {error}", where=str(settings.tls_cert),
                            remedy="give PEM files that belong together and can be read") from error
    return grpc.ssl_server_credentials([pair], root_certificates=clients, require_client_auth=clients is not None)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
