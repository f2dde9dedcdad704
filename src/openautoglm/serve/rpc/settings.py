"""Options of the gRPC server."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from openautoglm.core.settings import Settings


class RpcSettings(Settings):
    """Where the gRPC server listens, and what it bears.

    Attributes:
        host, port: address; port 0 takes any that is free.
        tls_cert, tls_key: PEM files; both for TLS.
        tls_clients: PEM file of the authorities whose certificates clients must show.
        streams: calls that are under way on one connection.
        calls: that are under way at once; further ones get RESOURCE_EXHAUSTED.
        watchers: of the health service at once.
        handshake_s: seconds in which a connection must be made.
        ping_every_s: a connection on which nothing comes for so long is asked whether it lives; one that does not
            answer within `ping_answer_s` is closed.
        ping_least_s: clients that ask more often than this are cut off.
        idle_s: a connection without calls is closed after so many seconds.
        metadata_bytes: of a call.
        last_replies_s: seconds in which the last replies must have gone at the end.
        log_prompts: write prompts into the log.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8081, ge=0, le=65535)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_clients: Path | None = None
    streams: int = Field(default=256, ge=1, le=65_535)
    calls: int = Field(default=4096, ge=1)
    watchers: int = Field(default=256, ge=1)
    handshake_s: float = Field(default=10.0, gt=0)
    ping_every_s: float = Field(default=30.0, ge=1)
    ping_answer_s: float = Field(default=10.0, gt=0)
    ping_least_s: float = Field(default=10.0, gt=0)
    idle_s: float = Field(default=300.0, ge=1)
    metadata_bytes: int = Field(default=16_384, ge=1024)
    last_replies_s: float = Field(default=2.0, ge=0)
    log_prompts: bool = False

    @model_validator(mode="after")
    def _whole(self) -> RpcSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("give both tls_cert and tls_key, or none of them")
        if self.tls_clients is not None and self.tls_cert is None:
            raise ValueError("tls_clients needs tls_cert and tls_key")
        return self
