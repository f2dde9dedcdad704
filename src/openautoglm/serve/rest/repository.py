"""The model repository of the Open Inference Protocol: which versions there are, load and unload."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from openautoglm.serve.rest import replies_registry as replies
from openautoglm.serve.rest.administration import actor
from openautoglm.serve.rest.document import asks, faults
from openautoglm.serve.rest.line import read_body
from openautoglm.serve.rest.serving import Serving
from openautoglm.serve.service.models import Repository
from openautoglm.serve.wire.changes import IndexAsk, RepositoryAsk

_NOTHING: dict[str, Any] = {"nothing": {"value": {}}}


def routes(serving: Serving, repository: Repository) -> APIRouter:
    """The routes of this file."""
    router = APIRouter(tags=["repository"])

    @router.post("/v2/repository/index", operation_id="repository_index", summary="All versions, and whether they are "
                 "in memory", response_model=None,
                 openapi_extra=asks(IndexAsk, {"ready": {"value": {"ready": True}}}, empty=True),
                 responses={200: {"model": list[replies.Held], "description": "The versions."}, **faults()})
    async def index(request: Request) -> JSONResponse:
        ask = await read_body(request, IndexAsk, serving.limits, empty=True)
        return JSONResponse([{"name": one.name, "version": one.version, "state": one.state, "reason": one.reason}
                             for one in await repository.index() if not ask.ready or one.state == "READY"])

    @router.post("/v2/repository/models/{model}/load", operation_id="repository_load", summary="Load a model",
                 response_model=None, openapi_extra=asks(RepositoryAsk, _NOTHING, empty=True),
                 responses={200: {"model": replies.Done, "description": "It is ready."}, **faults(404, 409, 507)})
    async def load(request: Request, model: str) -> JSONResponse:
        await read_body(request, RepositoryAsk, serving.limits, empty=True)
        await repository.load(model, None, actor(request))
        return JSONResponse({"status": "loaded"})

    @router.post("/v2/repository/models/{model}/unload", operation_id="repository_unload", summary="Unload a model",
                 response_model=None, openapi_extra=asks(RepositoryAsk, _NOTHING, empty=True),
                 responses={200: {"model": replies.Done, "description": "It is not in memory any more."},
                            **faults(404, 409, 507)})
    async def unload(request: Request, model: str) -> JSONResponse:
        await read_body(request, RepositoryAsk, serving.limits, empty=True)
        await repository.unload(model, None, actor(request))
        return JSONResponse({"status": "unloaded"})

    return router
