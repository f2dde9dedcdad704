"""Options of the server itself."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from openautoglm.core.settings import Settings

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class RestSettings(Settings):
    """Where the server listens, and how it ends.

    Attributes:
        host, port: address; port 0 takes any that is free.
        tls_cert, tls_key: PEM files; both for HTTPS.
        tls_clients: PEM file of the authorities whose certificates clients must show.
        shutdown_timeout_s: running requests may finish for so long after the first signal.
        hosts: names that the Host header may have; any when None. Without keys only those of loopback.
        connections: at once; further ones get 503.
        header_s: seconds in which a request's head must have come.
        keep_alive_s: an idle connection is closed after so many seconds.
        log_prompts: write prompts into the log.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_clients: Path | None = None
    shutdown_timeout_s: float = Field(default=30.0, ge=0)
    hosts: tuple[str, ...] | None = None
    connections: int = Field(default=4096, ge=1)
    header_s: float = Field(default=10.0, gt=0)
    keep_alive_s: int = Field(default=30, ge=1)
    log_prompts: bool = False

    @model_validator(mode="after")
    def _whole(self) -> RestSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("give both tls_cert and tls_key, or none of them")
        if self.tls_clients is not None and self.tls_cert is None:
            raise ValueError("tls_clients needs tls_cert and tls_key")
        return self
