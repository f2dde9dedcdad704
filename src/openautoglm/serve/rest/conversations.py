"""Conversations that the server keeps: each key sees and removes its own."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse

from openautoglm.serve.registry.conversations import Conversation
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.rest import replies_registry as replies
from openautoglm.serve.rest.document import faults
from openautoglm.serve.rest.generation import caller_of


def routes(registry: Registry) -> APIRouter:
    """The routes of this file."""
    router, kept = APIRouter(tags=["conversations"]), registry.conversations

    @router.get("/v1/conversations", operation_id="conversations", summary="The key's conversations",
                response_model=None, responses={200: {"model": replies.Conversations, "description": "Without their "
                                                      "messages, newest first."}, **faults(400)})
    async def listed(request: Request, limit: int = Query(100, ge=1, le=1000)) -> JSONResponse:
        found = await registry.run(kept.list, caller_of(request).name, limit)
        return JSONResponse({"object": "list", "data": [_told(one) for one in found]})

    @router.delete("/v1/conversations", operation_id="forget_conversations", summary="Remove all of them",
                   response_model=None, responses={200: {"model": replies.Deleted, "description": "They are gone."},
                                                   **faults(507)})
    async def clear(request: Request) -> JSONResponse:
        return JSONResponse({"deleted": await registry.run(kept.clear, caller_of(request).name)})

    @router.get("/v1/conversations/{name}", operation_id="conversation", summary="One conversation with its messages",
                response_model=None, responses={200: {"model": replies.Conversation, "description": "It."},
                                                **faults(400, 404)})
    async def one(request: Request, name: str) -> JSONResponse:
        found = await registry.run(kept.read, caller_of(request).name, name)
        return JSONResponse({**_told(found), "messages": list(found.messages)})

    @router.delete("/v1/conversations/{name}", operation_id="forget_conversation", summary="Remove one",
                   response_model=None, responses={200: {"model": replies.Deleted, "description": "It is gone."},
                                                   **faults(400, 404, 507)})
    async def forget(request: Request, name: str) -> JSONResponse:
        await registry.run(kept.forget, caller_of(request).name, name)
        return JSONResponse({"deleted": 1})

    return router


def _told(one: Conversation) -> dict[str, Any]:
    return {"name": one.name, "model": one.model, "turns": one.turns, "size_bytes": one.size_bytes,
            "created": int(one.created_s), "updated": int(one.updated_s), "expires": int(one.expires_s)}
