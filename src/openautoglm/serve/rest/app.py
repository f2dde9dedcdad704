"""The application: all routes behind the outermost layer."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp

from openautoglm.core.version import __version__
from openautoglm.serve.rest import (
    administration,
    console,
    conversations,
    embeddings,
    generate,
    listing,
    repository,
    status,
    tokens,
)
from openautoglm.serve.rest.document import document
from openautoglm.serve.rest.errors import handle_errors
from openautoglm.serve.rest.front import Front
from openautoglm.serve.rest.serving import Serving

_ABOUT = """Texts, chats and embeddings of GLM models, in the form of OpenAI's interface. Errors have its form, too:
`{"error": {"message", "type", "param", "code"}}`. Every reply carries `X-Request-Id`."""


def make_routes(serving: Serving) -> FastAPI:
    """The routes without the outermost layer; further ones may be added before they are wrapped by `make_app`."""
    app = FastAPI(title="Open-AutoGLM", version=__version__, description=_ABOUT, docs_url=None, redoc_url=None,
                  redirect_slashes=False)
    for part in (generate, embeddings, tokens, listing, status, console):
        app.include_router(part.routes(serving))
    if serving.hosted is not None:
        app.include_router(listing.version_routes(serving))
        app.include_router(conversations.routes(serving.hosted.catalog.registry))
        app.include_router(administration.routes(serving, serving.hosted))
        app.include_router(repository.routes(serving, serving.hosted))
    handle_errors(app)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app


def make_app(serving: Serving, routes: FastAPI | None = None) -> ASGIApp:
    """The application that a server runs."""
    return Front(routes or make_routes(serving), serving.guard, serving.settings, serving.limits, serving.metrics)
