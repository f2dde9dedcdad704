"""Versions, aliases, stages, routes and what is in memory, for administrators. Nothing here takes a path on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse

from openautoglm.serve.guard.rights import NOBODY, Who
from openautoglm.serve.hosting.hosted import Hosted
from openautoglm.serve.registry.names import Reference, parse
from openautoglm.serve.registry.records import Model, Version
from openautoglm.serve.rest import replies_registry as replies
from openautoglm.serve.rest.document import asks, faults
from openautoglm.serve.rest.line import read_body
from openautoglm.serve.rest.serving import Serving
from openautoglm.serve.service.models import Held
from openautoglm.serve.wire.changes import AliasAsk, LoadAsk, RouteAsk, StageAsk, UnloadAsk

_CHANGED: dict[int | str, dict[str, Any]] = faults(400, 404, 409, 507)
_LOAD = {"newest": {"summary": "What answers for the plain name", "value": {}},
         "pinned": {"summary": "Version 3, to stay", "value": {"version": 3, "pin": True}}}
_UNLOAD = {"out": {"summary": "Version 3", "value": {"version": 3}}}
_ROUTE = {"canary": {"summary": "A tenth to version 4", "value": {"weights": {"3": 90, "4": 10}}}}


def actor(request: Request) -> str:
    """Who calls, for the audit log."""
    who: Who = request.scope.get("who", NOBODY)
    return who.actor


def routes(serving: Serving, hosted: Hosted) -> APIRouter:
    """The routes of this file."""
    router = APIRouter(tags=["administration"])
    for add in (_reading, _labels, _traffic, _memory):
        add(router, serving, hosted)
    return router


async def _change(hosted: Hosted, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Change the registry, and see the change in the catalog."""
    changed = await hosted.catalog.registry.run(call, *arguments, **options)
    await hosted.catalog.refresh()
    return changed


def _reading(router: APIRouter, serving: Serving, hosted: Hosted) -> None:
    @router.get("/v1/models/{model}/versions", operation_id="versions", summary="All versions of a model",
                response_model=None,
                responses={200: {"model": replies.Versions, "description": "Its versions."}, **faults(404)})
    async def versions(model: str) -> JSONResponse:
        entry = hosted.catalog.snapshot.model(model)
        held = {one.version: one for one in await hosted.index() if one.name == model}
        return JSONResponse({"object": "list", "data": [
            _version(entry, version, held[str(version.number)]) for version in entry.versions.values()]})

    @router.get("/v1/models/{model}/audit", operation_id="audit", summary="Who changed a model, and when",
                response_model=None,
                responses={200: {"model": replies.Audit, "description": "Changes, newest first."}, **faults(400, 404)})
    async def audit(model: str, limit: int = Query(100, ge=1, le=1000),
                    before: int = Query(2**62, ge=1, le=2**62)) -> JSONResponse:
        parse(model)
        registry = hosted.catalog.registry
        lines = await registry.run(registry.audit.list, subject=model, limit=limit, before=before)
        return JSONResponse({"object": "list", "data": [
            {"id": line.id, "at": line.at_s, "by": line.by, "action": line.action, "subject": line.subject,
             "detail": line.detail} for line in lines]})


def _labels(router: APIRouter, serving: Serving, hosted: Hosted) -> None:
    labels = hosted.catalog.registry.labels

    @router.put("/v1/models/{model}/aliases/{alias}", operation_id="set_alias", summary="Let an alias point at a "
                "version", response_model=None,
                openapi_extra=asks(AliasAsk, {"three": {"value": {"version": 3}}}),
                responses={200: {"model": replies.Alias, "description": "It does."}, **_CHANGED})
    async def set_alias(request: Request, model: str, alias: str) -> JSONResponse:
        ask = await read_body(request, AliasAsk, serving.limits)
        before = await _change(hosted, labels.set_alias, model, alias, ask.version, by=actor(request))
        return JSONResponse({"alias": alias, "version": ask.version, "before": before})

    @router.delete("/v1/models/{model}/aliases/{alias}", operation_id="drop_alias", summary="Take an alias away",
                   response_model=None,
                   responses={200: {"model": replies.Alias, "description": "It is gone."}, **_CHANGED})
    async def drop_alias(request: Request, model: str, alias: str) -> JSONResponse:
        await _change(hosted, labels.drop_alias, model, alias, by=actor(request))
        return JSONResponse({"alias": alias, "version": None})

    @router.put("/v1/models/{model}/{number:int}/stage", operation_id="set_stage", summary="Move a version to another "
                "stage", response_model=None,
                openapi_extra=asks(StageAsk, {"production": {"value": {"stage": "production"}}}),
                responses={200: {"model": replies.Done, "description": "It has it."}, **_CHANGED})
    async def set_stage(request: Request, model: str, number: int) -> JSONResponse:
        ask = await read_body(request, StageAsk, serving.limits)
        wanted = parse(f"{model}/{number}")
        await _change(hosted, labels.set_stage, wanted, ask.stage, by=actor(request))
        return JSONResponse({"status": f"{wanted} is {ask.stage}"})


def _traffic(router: APIRouter, serving: Serving, hosted: Hosted) -> None:
    registry = hosted.catalog.registry

    @router.get("/v1/models/{model}/route", operation_id="get_route", summary="How traffic is split, and how requests "
                "ended", response_model=None,
                responses={200: {"model": replies.Route, "description": "The route."}, **faults(404)})
    async def get_route(model: str) -> JSONResponse:
        return JSONResponse(await _route(hosted, model))

    @router.put("/v1/models/{model}/route", operation_id="set_route", summary="Split the traffic of a plain name",
                response_model=None, openapi_extra=asks(RouteAsk, _ROUTE),
                responses={200: {"model": replies.Route, "description": "The route."}, **_CHANGED})
    async def set_route(request: Request, model: str) -> JSONResponse:
        ask = await read_body(request, RouteAsk, serving.limits)
        weights = {int(number): weight for number, weight in ask.weights.items()}
        await _change(hosted, registry.routes.set, model, weights, baseline=ask.baseline, by=actor(request))
        return JSONResponse(await _route(hosted, model))

    @router.delete("/v1/models/{model}/route", operation_id="drop_route", summary="Take the route away",
                   response_model=None,
                   responses={200: {"model": replies.Done, "description": "It is gone."}, **_CHANGED})
    async def drop_route(request: Request, model: str) -> JSONResponse:
        await _change(hosted, registry.routes.drop, model, by=actor(request))
        return JSONResponse({"status": f"{model} has no route"})


def _memory(router: APIRouter, serving: Serving, hosted: Hosted) -> None:
    @router.post("/v1/models/{model}/load", operation_id="load", summary="Load a version here, and let other servers "
                 "load it", response_model=None, openapi_extra=asks(LoadAsk, _LOAD, empty=True),
                 responses={200: {"model": replies.Done, "description": "It is ready."}, **_CHANGED})
    async def load(request: Request, model: str) -> JSONResponse:
        ask = await read_body(request, LoadAsk, serving.limits, empty=True)
        wanted = _wanted(hosted, model, ask.version)
        await hosted.load(wanted.name, str(wanted.number), actor(request), pin=ask.pin)
        return JSONResponse({"status": f"{wanted} is loaded"})

    @router.post("/v1/models/{model}/unload", operation_id="unload", summary="Unload a version after its running "
                 "requests have ended, and let other servers do so", response_model=None,
                 openapi_extra=asks(UnloadAsk, _UNLOAD, empty=True),
                 responses={200: {"model": replies.Done, "description": "It is not in memory any more."}, **_CHANGED})
    async def unload(request: Request, model: str) -> JSONResponse:
        ask = await read_body(request, UnloadAsk, serving.limits, empty=True)
        wanted = _wanted(hosted, model, ask.version)
        if ask.lazy:
            await hosted.release(wanted.name, str(wanted.number), actor(request))
            return JSONResponse({"status": f"{wanted} is loaded on first use"})
        await hosted.unload(wanted.name, str(wanted.number), actor(request))
        return JSONResponse({"status": f"{wanted} is unloaded"})


def _wanted(hosted: Hosted, model: str, number: int | None) -> Reference:
    version = hosted.shelf.find(model, None if number is None else str(number))
    return Reference(version.model, number=version.number)


async def _route(hosted: Hosted, name: str) -> dict[str, Any]:
    registry, model = hosted.catalog.registry, hosted.catalog.snapshot.model(name)
    route = model.route
    if route is None:
        return {"model": name, "shares": []}
    ids = {share.number: model.versions[share.number].id for share in route.shares}
    totals = await registry.run(registry.outcomes.totals, ids.values(), since_s=route.since_s)
    ended = {number: totals[key] for number, key in ids.items()}
    return {"model": name, "shares": [
        {"version": share.number, "weight": share.weight, "baseline": share.baseline, "withdrawn": share.withdrawn,
         "requests": ended[share.number].requests, "errors": ended[share.number].errors,
         "p95_s": ended[share.number].quantile_s(0.95)} for share in route.shares]}


def _version(model: Model, version: Version, held: Held) -> dict[str, Any]:
    share = next((one for one in (model.route.shares if model.route else ()) if one.number == version.number), None)
    total = sum(one.weight for one in model.route.live) if model.route else 0
    return {"model": model.name, "version": version.number, "stage": version.stage,
            "aliases": list(model.named(version.number)), "traffic": share.weight / total if share else None,
            "withdrawn": share.withdrawn if share else "", "state": held.state, "reason": held.reason,
            "size_bytes": version.size_bytes, "created": int(version.created_s), "note": version.note,
            "facts": dict(version.facts)}
