"""Texts to ids and back."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from openautoglm.serve.rest import replies
from openautoglm.serve.rest.document import asks, faults
from openautoglm.serve.rest.examples import DETOKENIZE, TOKENIZE
from openautoglm.serve.rest.generation import caller_of
from openautoglm.serve.rest.line import read_body
from openautoglm.serve.rest.serving import Serving
from openautoglm.serve.wire.asks import DetokenizeAsk, TokenizeAsk


def routes(serving: Serving) -> APIRouter:
    """The routes of this file."""
    router = APIRouter(tags=["tokens"])

    @router.post("/tokenize", operation_id="tokenize", summary="The ids of a text, a record or a conversation",
                 response_model=None, openapi_extra=asks(TokenizeAsk, TOKENIZE),
                 responses={200: {"model": replies.Tokens, "description": "The ids."}, **faults(404, 408, 429)})
    async def tokenize(request: Request) -> JSONResponse:
        ask = await read_body(request, TokenizeAsk, serving.limits)
        caller = caller_of(request)
        caller.admit(0)
        async with serving.models.use(ask.model, key=caller.name or None,
                                      timeout_s=serving.limits.timeout_s) as service:
            ids = await service.tokenize(ask)
            told: dict[str, Any] = {"count": len(ids), "max_model_len": service.backend.facts.max_tokens, "tokens": ids}
            if ask.return_token_strs:
                told["token_strs"] = [service.token_text(token) for token in ids]
        return JSONResponse(told)

    @router.post("/detokenize", operation_id="detokenize", summary="The text of ids", response_model=None,
                 openapi_extra=asks(DetokenizeAsk, DETOKENIZE),
                 responses={200: {"model": replies.Text, "description": "The text."}, **faults(404, 408, 429)})
    async def detokenize(request: Request) -> JSONResponse:
        ask = await read_body(request, DetokenizeAsk, serving.limits)
        caller = caller_of(request)
        caller.admit(0)
        async with serving.models.use(ask.model, key=caller.name or None,
                                      timeout_s=serving.limits.timeout_s) as service:
            return JSONResponse({"prompt": await service.detokenize(ask)})

    return router
