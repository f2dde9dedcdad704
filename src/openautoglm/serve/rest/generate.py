"""Completions and chats."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from openautoglm.serve.rest import replies
from openautoglm.serve.rest.document import asks, events, faults
from openautoglm.serve.rest.examples import CHAT, COMPLETION
from openautoglm.serve.rest.generation import GenerationReply, caller_of
from openautoglm.serve.rest.line import read_body
from openautoglm.serve.rest.serving import Serving
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk

_STREAMED = "The answers; `text/event-stream` where `stream` is true."


def routes(serving: Serving) -> APIRouter:
    """The routes of this file."""
    router = APIRouter(tags=["generation"])

    @router.post("/v1/completions", operation_id="complete", summary="Answer or continue texts, records and ids",
                 response_model=None, openapi_extra=asks(CompletionAsk, COMPLETION), responses={
                     200: {"model": replies.Completion, "description": _STREAMED,
                           "content": events(replies.CompletionChunk)}, **faults(404, 408, 429)})
    async def complete(request: Request) -> Response:
        ask = await read_body(request, CompletionAsk, serving.limits)
        return GenerationReply(serving, ask, caller_of(request))

    @router.post("/v1/chat/completions", operation_id="chat", summary="Go on with a conversation",
                 response_model=None, openapi_extra=asks(ChatAsk, CHAT), responses={
                     200: {"model": replies.Chat, "description": _STREAMED,
                           "content": events(replies.ChatChunk)}, **faults(404, 408, 429)})
    async def chat(request: Request) -> Response:
        ask = await read_body(request, ChatAsk, serving.limits)
        return GenerationReply(serving, ask, caller_of(request))

    return router
