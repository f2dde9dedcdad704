"""Which models there are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from openautoglm.serve.faults import NotFound
from openautoglm.serve.rest import replies
from openautoglm.serve.rest.document import faults
from openautoglm.serve.rest.serving import Serving
from openautoglm.serve.service.models import Model


def routes(serving: Serving) -> APIRouter:
    """The routes of this file."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", operation_id="models", summary="All models", response_model=None,
                responses={200: {"model": replies.Models, "description": "All models."}, **faults()})
    async def models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [_told(model) for model in await serving.models.listed()]})

    @router.get("/v1/models/{model}", operation_id="model", summary="One model", response_model=None,
                responses={200: {"model": replies.Model, "description": "The model."}, **faults(404)})
    async def one(model: str) -> JSONResponse:
        return await _named(serving, model)

    return router


def version_routes(serving: Serving) -> APIRouter:
    """The routes of a server whose models have versions."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models/{model}/{number:int}", operation_id="version_of_model", summary="One version of a model",
                response_model=None,
                responses={200: {"model": replies.Model, "description": "The version."}, **faults(404)})
    async def version(model: str, number: int) -> JSONResponse:
        return await _named(serving, f"{model}/{number}")

    return router


async def _named(serving: Serving, name: str) -> JSONResponse:
    for known in await serving.models.listed():
        if known.name == name:
            return JSONResponse(_told(known))
    raise NotFound(f"there is no model {name[:100]!r}", where="model", remedy="/v1/models lists what there is")


def _told(model: Model) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "autoglm",
            "max_model_len": model.max_tokens, "fingerprint": model.fingerprint}
