"""The console's files, each at a route of its own; open to all, as they hold nothing but the page itself."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from openautoglm.serve.console.files import NAMES, POLICY, file, unchanged
from openautoglm.serve.rest.serving import Serving


def routes(serving: Serving) -> APIRouter:
    """The routes of this file; they stand in no document."""
    router = APIRouter()
    for path in NAMES:
        router.add_api_route(path, _sender(path), methods=["GET", "HEAD"], include_in_schema=False)
    return router


def _sender(path: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def send(request: Request) -> Response:
        found = file(path)
        headers = {"etag": found.etag, "cache-control": "no-cache", "content-security-policy": POLICY}
        if unchanged(request.headers.get("if-none-match", ""), found.etag):
            return Response(None, 304, headers)
        return Response(found.body, 200, {**headers, "content-type": found.media_type})

    return send
