"""For probes and Prometheus: is the process alive, can it serve, what are its figures, which version is it."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from openautoglm.core.version import __version__
from openautoglm.serve.metrics.prometheus import CONTENT_TYPE
from openautoglm.serve.rest import replies
from openautoglm.serve.rest.document import faults
from openautoglm.serve.rest.serving import Serving

_MOST_NAMES = 256


def routes(serving: Serving) -> APIRouter:
    """The routes of this file."""
    router = APIRouter(tags=["status"])

    @router.get("/healthz", operation_id="healthz", summary="Whether the process is alive", response_model=None,
                responses={200: {"model": replies.Status, "description": "It is."}})
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @router.get("/ready", operation_id="ready", summary="Whether requests can be served: a token was generated lately, "
                "or one can be generated now", response_model=None,
                responses={200: {"model": replies.Status, "description": "They can."},
                           503: {"model": replies.Status, "description": "They cannot; says why."}})
    async def ready() -> JSONResponse:
        why = await serving.models.unready()
        if why is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "reason": why}, 503, {"retry-after": "1"})

    @router.get("/version", operation_id="version", summary="The version", response_model=None,
                responses={200: {"model": replies.Version, "description": "The version."}})
    async def version() -> JSONResponse:
        return JSONResponse({"version": __version__})

    @router.get("/metrics", operation_id="metrics", summary="Figures for Prometheus", response_model=None,
                responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}},
                                 "description": "In Prometheus's text form."}, **faults(400)})
    async def metrics(names: Annotated[list[str], Query(alias="name[]", max_length=_MOST_NAMES, description="Names of "
                                                        "samples, to have these alone")] = []) -> Response:  # noqa: B006
        page = await asyncio.to_thread(serving.metrics.page, names)
        return Response(page, headers={"content-type": CONTENT_TYPE})

    return router
