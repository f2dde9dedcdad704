"""Who may go where: every path needs a scope, unless it stands among the few that are open."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from openautoglm.serve.console.files import NAMES
from openautoglm.serve.faults import Forbidden
from openautoglm.serve.guard.rights import Scope

OPEN: frozenset[str] = frozenset({"/healthz", "/ready", "/version"})
"""Paths that need no key: what probes and balancers ask."""
PAGES: frozenset[str] = frozenset(NAMES)
"""Paths that need no key to be read: the files of the console, which hold no secret."""
SCOPES: Mapping[str, Scope] = {"/metrics": "metrics"}
"""Paths that need another scope than `infer`."""
_LISTING = re.compile(r"/v1/models(/[^/]*(/[0-9]+)?)?")
ADMIN: tuple[str, ...] = ("/v2/repository/", "/v1/admin/")
"""Beginnings of paths that need `admin`, whatever the method."""


def scope_of(path: str, method: str) -> Scope | None:
    """The scope that a path needs; None for none. A path that is not known needs `infer`.

    Below ``/v1/models`` everything is the administrator's but reading what there is.
    """
    if path in OPEN or (path in PAGES and method in ("GET", "HEAD")):
        return None
    if path in SCOPES:
        return SCOPES[path]
    if path.startswith("/v1/models") and (method not in ("GET", "HEAD") or not _LISTING.fullmatch(path)):
        return "admin"
    return "admin" if path.startswith(ADMIN) else "infer"


def check_host(host: str, allowed: Collection[str] | None) -> None:
    """See that a request was meant for this server and not led here by a name that somebody else gave it.

    Raises:
        Forbidden: the Host header is missing, or none of the allowed names.
    """
    if allowed is not None and host_name(host) not in allowed:
        raise Forbidden("the Host header names another server", where="Host",
                        remedy="call the server by its own name, e.g. 127.0.0.1, or allow the name with --allowed-host")


def check_origin(origin: str | None, host: str) -> None:
    """See that a page of another site does not call.

    Raises:
        Forbidden: it does.
    """
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise Forbidden("pages of other sites may not call this server", where="Origin",
                        remedy="call it from a program, or from a page that it serves itself")


def host_name(host: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    name = host.lower().strip()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0] if name.count(":") == 1 else name
