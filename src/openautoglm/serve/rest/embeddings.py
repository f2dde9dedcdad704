"""Embeddings: the mean of the last hidden states."""

from __future__ import annotations

import base64
import json

from fastapi import APIRouter, Request
from starlette.responses import Response

from openautoglm.serve.rest import replies
from openautoglm.serve.rest.document import asks, faults
from openautoglm.serve.rest.examples import EMBEDDING
from openautoglm.serve.rest.generation import caller_of
from openautoglm.serve.rest.line import connected, read_body
from openautoglm.serve.rest.serving import Serving
from openautoglm.serve.wire.asks import EmbeddingAsk


def routes(serving: Serving) -> APIRouter:
    """The routes of this file."""
    router = APIRouter(tags=["embeddings"])

    @router.post("/v1/embeddings", operation_id="embed", summary="Mean hidden states of texts", response_model=None,
                 openapi_extra=asks(EmbeddingAsk, EMBEDDING),
                 responses={200: {"model": replies.Embeddings, "description": "One vector for each input."},
                            **faults(404, 408, 429)})
    async def embed(request: Request) -> Response:
        ask = await read_body(request, EmbeddingAsk, serving.limits)
        caller = caller_of(request)
        async with (connected(request.scope, request.receive, _unused, serving.limits),
                    serving.models.use(ask.model, key=caller.name or None,
                                       timeout_s=serving.limits.timeout_s) as service):
            vectors, usage = await service.embed(ask, caller)
        small = vectors.astype("<f4", copy=False)
        packed = ask.encoding_format == "base64"
        found = [{"object": "embedding", "index": number,
                  "embedding": base64.b64encode(row.tobytes()).decode() if packed else row.tolist()}
                 for number, row in enumerate(small)]
        reply = {"object": "list", "data": found, "model": ask.model,
                 "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}}
        return Response(json.dumps(reply, separators=(",", ":")), media_type="application/json")

    return router


async def _unused(message: object) -> None:
    """Nothing is sent before the whole reply is there."""
