"""What stands for a key where keys are off: the server is bound to loopback."""

from __future__ import annotations

import ipaddress

from openautoglm.core.errors import TaskError


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
        TaskError: `bind` is not loopback.
    """
    if not is_loopback(bind):
        raise TaskError(f"without keys the server serves this machine only, and {bind} is more", where="--host",
                        remedy="make a key with `autoglm keys create` and add --keys, or bind to 127.0.0.1")
