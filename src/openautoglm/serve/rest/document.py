"""The OpenAPI document: asks from their own models, faults in one form, keys."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from openautoglm.serve.rest import replies
from openautoglm.serve.wire import asks as forms
from openautoglm.serve.wire import changes
from openautoglm.serve.wire.fields import Ask

_REFERENCE = "#/components/schemas/{model}"
_ASKS: tuple[type[Ask], ...] = (forms.CompletionAsk, forms.ChatAsk, forms.EmbeddingAsk, forms.TokenizeAsk,
                                forms.DetokenizeAsk)
_CHANGES: tuple[type[Ask], ...] = (changes.AliasAsk, changes.StageAsk, changes.RouteAsk, changes.LoadAsk,
                                   changes.UnloadAsk, changes.IndexAsk, changes.RepositoryAsk)
_CHUNKS: tuple[type[replies.Reply], ...] = (replies.CompletionChunk, replies.ChatChunk)
_WHY = {400: "The request is wrong; `param` names the field.", 401: "No key, or none that is known.",
        403: "The key lacks the scope, or the call comes from another site.", 404: "There is no such thing.",
        405: "The route knows other methods.", 408: "The time was over.", 409: "It does not fit the state of things.",
        413: "The body is too large.", 415: "The body is no JSON.",
        429: "The queue is full, or the key's share is used up; see `Retry-After`.",
        500: "A fault of the server.", 503: "The model is starting, restarting or ending; see `Retry-After`.",
        507: "There is no room to store anything."}
_ALWAYS = (401, 403, 500, 503)
_OF_BODIES = (400, 413, 415)
_OPEN = ("/healthz", "/ready", "/version")


def asks(kind: type[Ask], examples: dict[str, Any], *, empty: bool = False) -> dict[str, Any]:
    """The body of a route, by the model of its ask; it may be left out where `empty`."""
    schema = {"$ref": _REFERENCE.format(model=kind.__name__)}
    return {"requestBody": {"required": not empty, "content": {"application/json": {"schema": schema,
                                                                                   "examples": examples}}}}


def events(kind: type[replies.Reply]) -> dict[str, Any]:
    """What a streamed answer is made of: server-sent events whose data are JSON, and `[DONE]` at the end."""
    told = [{"$ref": _REFERENCE.format(model=name)} for name in (kind.__name__, replies.Error.__name__)]
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"anyOf": told}}
    item = {"type": "object", "required": ["data"], "properties": {"data": {"anyOf": [{"const": "[DONE]"}, data]}}}
    return {"text/event-stream": {"itemSchema": item}}


def faults(*more: int) -> dict[int | str, dict[str, Any]]:
    """The faults of a route: those that every route has, those of bodies where it takes one, and `more`."""
    return {status: {"model": replies.Error, "description": _WHY[status]} for status in sorted({*_ALWAYS, *more})}


def document(app: FastAPI) -> dict[str, Any]:
    """Write the document; once, then it is kept."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes,
                           openapi_version=app.openapi_version)
        used = json.dumps(made["paths"])
        kinds = [*_ASKS, *(kind for kind in _CHANGES if f"/{kind.__name__}\"" in used)]
        _, found = models_json_schema([(kind, "validation") for kind in kinds], ref_template=_REFERENCE)
        _, streamed = models_json_schema([(kind, "serialization") for kind in _CHUNKS], ref_template=_REFERENCE)
        parts = made.setdefault("components", {})
        parts["schemas"] = {**parts.get("schemas", {}), **streamed.get("$defs", {}), **found.get("$defs", {})}
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in made["paths"].items():
            for route in methods.values():
                if path not in _OPEN:
                    route["security"] = [{}, {"key": []}]
                if "requestBody" in route:
                    error = route["responses"]["500"]["content"]
                    route["responses"] |= {str(status): {"description": _WHY[status], "content": error}
                                           for status in _OF_BODIES if str(status) not in route["responses"]}
                route["responses"].pop("422", None)  # what cannot be read is 400 here
        app.openapi_schema = made
    return app.openapi_schema
