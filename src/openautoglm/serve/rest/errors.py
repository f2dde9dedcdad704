"""Faults as clients of OpenAI's interface know them."""

from __future__ import annotations

import json
import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from openautoglm.serve.faults import BadRequest, Fault, Internal, MethodNotAllowed, NotFound, as_fault


def error_object(fault: Fault) -> dict[str, object]:
    """OpenAI's error object."""
    return {"message": fault.public, "type": fault.row.type, "param": fault.field if not fault.row.says else None,
            "code": "model_not_found" if fault.kind == "not_found" and fault.field == "model" else fault.row.code}


def error_bytes(fault: Fault) -> bytes:
    """The body of a reply."""
    return json.dumps({"error": error_object(fault)}).encode()


def error_headers(fault: Fault) -> dict[str, str]:
    """When to try again, and how to show who one is."""
    headers = {"x-should-retry": "true" if fault.row.retryable and fault.kind != "timed_out" else "false"}
    if fault.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(fault.retry_after_s)))
    if fault.kind == "unauthorised":
        headers["www-authenticate"] = "Bearer"
    if fault.kind in ("too_large", "unavailable"):
        headers["connection"] = "close"
    return headers


def error_response(fault: Fault) -> Response:
    """The reply that tells a fault."""
    return Response(error_bytes(fault), fault.row.status, error_headers(fault), "application/json")


def handle_errors(app: FastAPI) -> None:
    """Let an application tell all its errors in OpenAI's form."""
    async def ours(request: Request, error: Exception) -> Response:
        return error_response(as_fault(error, request.scope.get("request_id", "")))

    async def http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400
        if status == 405:
            fault = MethodNotAllowed(f"{request.method[:20]} is not allowed here", remedy="see /openapi.json")
            reply = error_response(fault)
            reply.headers.update(getattr(error, "headers", None) or {})
            return reply
        if status == 404:
            return error_response(NotFound("there is nothing here", remedy="see /openapi.json for what there is"))
        return error_response(BadRequest(str(getattr(error, "detail", "the request is wrong"))[:200]))

    async def form(request: Request, error: Exception) -> Response:
        first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": "is wrong"}
        where = ".".join(str(part) for part in first["loc"][1:]) or None
        return error_response(BadRequest(str(first["msg"]), where=where, remedy="correct it"))

    async def unforeseen(request: Request, error: Exception) -> Response:
        return error_response(Internal("the server failed"))  # it is raised again, and told to the log further out

    app.add_exception_handler(Fault, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, form)
    app.add_exception_handler(Exception, unforeseen)
