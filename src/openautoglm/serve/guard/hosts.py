"""What stands for a key where keys are off: the server is bound to loopback, and asked for under a name of loopback.

A page of another site can send requests to this machine, or let its own name point here (DNS rebinding); its name
stands in ``Host`` or ``Origin`` all the same.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from openautoglm.core.errors import ResourceError
from openautoglm.serve.faults import Forbidden


def is_loopback(host: str) -> bool:
    """Whether `host`, an address or ``localhost``, can be reached from this machine only."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def refuse_open(bind: str) -> None:
    """Refuse to serve without keys where others can reach the server.

    Raises:
        ResourceError: `bind` is not loopback.
    """
    if not is_loopback(bind):
        raise ResourceError(f"without keys the server serves this machine only, and {bind} is more", where="--host",
                            remedy="make a key with `autoglm keys create`, or bind to 127.0.0.1")


def check_local(host: str | None, origin: str | None = None) -> None:
    """Let a request in where keys are off: both headers, as far as they are there, must name loopback.

    Raises:
        Forbidden: another name, none at all, or an opaque origin.
    """
    if host is None or not is_loopback(_name(f"//{host}")):
        raise Forbidden("this server answers requests to its own machine only", where="Host",
                        remedy="ask for 127.0.0.1 or localhost")
    if origin is not None and not is_loopback(_name(origin)):
        raise Forbidden("pages of other sites may not use this server", where="Origin")


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
