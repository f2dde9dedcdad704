"""``autoglm serve BUNDLE``, or ``--registry``: models behind OpenAI's interface."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from openautoglm.cli.serve_places import (
    Budget,
    Cache,
    Folder,
    Keys,
    Models,
    NoKeys,
    Places,
    Preload,
    Profile,
    Stall,
    budget,
    check,
    open_places,
    profiled,
)
from openautoglm.core.errors import TaskError

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_PEM = "PEM file."
_USUAL = ""
_MAY_STAND_ALONE = ("--registry", "--keys")


class _Serve(TyperCommand):
    """A command with options that may stand without a value: then they mean the usual place."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the usual place where such an option has no value."""
        filled = list[str]()
        for word, after in zip(args, [*args, "-"][1:], strict=True):
            filled += (word, _USUAL) if word in _MAY_STAND_ALONE and after.startswith("-") else (word,)
        return super().parse_args(ctx, filled)


@app.command(cls=_Serve)
def serve(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle (folder, .zip or .pkl), or the folder of a released "
                                                  "GLM checkpoint.", metavar="[BUNDLE]")] = None,
    registry: Models = None, store: Folder = None, memory_budget: Budget = None, preload: Preload = None,
    response_cache: Cache = False, keys: Keys = None, no_keys: NoKeys = False, profile: Profile = None,
    name: Annotated[str | None, typer.Option(help="The model's name for clients; left out, the bundle's own.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any.")] = 8080,
    grpc_port: Annotated[int | None, typer.Option(help="Serve gRPC on this port, too, e.g. 8081; 0: any.")] = None,
    target: Annotated[str, typer.Option(help="What runs the model: auto, native, torch:cpu or torch:cuda.")] = "auto",
    quantise: Annotated[str | None, typer.Option(help="Round the weights when loading: int8 or int4.")] = None,
    group: Annotated[int | None, typer.Option(help="Weights that share a scale: 32, 64, 128; 0: a row.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; left out, the cores of use.")] = None,
    memory_limit: Annotated[str | None, typer.Option(help="Most memory for the model, e.g. 2GiB.")] = None,
    cache_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens that the cache holds.")] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Sequences that run together.")] = None,
    max_batch_tokens: Annotated[int | None, typer.Option(min=1, help="Token rows of a step.")] = None,
    max_wait: Annotated[float | None, typer.Option(min=0, help="Seconds to wait for company; see --min-batch.")] = None,
    min_batch: Annotated[int | None, typer.Option(min=1, help="Sequences worth starting for at once.")] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Engines, each in a process of its own.")] = 1,
    stall_timeout: Stall = None,
    in_process: Annotated[bool, typer.Option("--in-process", help="The engine in the server's own process.")] = False,
    queue: Annotated[int | None, typer.Option(min=0, help="Prompts that may wait; more get 429.")] = None,
    queue_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens that may wait; more get 429.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that a request may take.")] = None,
    limits: Annotated[Path | None, typer.Option(help="YAML file of further bounds on requests.")] = None,
    shutdown_timeout: Annotated[float, typer.Option(min=0, help="Seconds that running requests may take to finish "
                                                    "after SIGTERM.")] = 30.0,
    allowed_host: Annotated[list[str] | None, typer.Option(help="A name that clients may call the server by.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help=f"Certificate, for HTTPS. {_PEM}")] = None,
    tls_key: Annotated[Path | None, typer.Option(help=f"Key of the certificate. {_PEM}")] = None,
    tls_clients: Annotated[Path | None, typer.Option(help="Authorities whose certificates clients must show. "
                                                     + _PEM)] = None,
    otlp: Annotated[str | None, typer.Option(help="Send traces there, e.g. http://127.0.0.1:4318/v1/traces.")] = None,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write prompts into the log.")] = False,
) -> None:
    """Serve a bundle, or the models of a registry, over HTTP until a signal comes.

    The routes are OpenAI's: /v1/completions, /v1/chat/completions, /v1/embeddings, /v1/models; besides /tokenize,
    /detokenize, /healthz, /ready, /metrics, /version and /openapi.json. The first SIGTERM or Ctrl+C lets running
    requests finish, the second one ends at once.
    """
    from openautoglm.pipeline.engines import program_settings

    _need_extra(grpc=grpc_port is not None)
    program = profiled(profile, program_settings({"target": target, "quantise": quantise, "group": group,
        "threads": threads, "memory_limit": memory_limit, "cache_tokens": cache_tokens}))
    engine = _given(max_batch=max_batch, max_batch_tokens=max_batch_tokens, max_wait=max_wait, min_batch=min_batch)
    rest = {"host": host, "port": port, "tls_cert": tls_cert, "tls_key": tls_key, "tls_clients": tls_clients,
            "shutdown_timeout_s": shutdown_timeout, "log_prompts": log_prompts,
            "hosts": tuple(allowed_host) if allowed_host else None}
    doors = ("host", "tls_cert", "tls_key", "tls_clients", "log_prompts")
    rpc = None if grpc_port is None else {"port": grpc_port, **{name: rest[name] for name in doors}}
    bounds = {**_read(limits), **_given(timeout_s=timeout)}
    given = {"name": name, "in_process": in_process, "replicas": replicas, "otlp": otlp, "rest": rest, "rpc": rpc,
             "service": {"limits": bounds, "queue": _given(requests=queue, tokens=queue_tokens)}}
    places = Places(bundle, registry, store, keys, no_keys)
    more = _given(memory_budget=memory_budget, preload=preload, response_cache=response_cache or None, name=name)
    check(places, more)
    raise typer.Exit(0 if _run(places, given, more, program, engine, _given(stall_s=stall_timeout)) else 1)


def _need_extra(*, grpc: bool) -> None:
    from openautoglm.core.extras import require
    from openautoglm.core.needs import EXTRAS, NEEDS, RPC

    for module in (*NEEDS["serve"].modules, *(RPC if grpc else ())):
        require(module, EXTRAS[module])


def _run(places: Places, given: Mapping[str, Any], more: Mapping[str, Any], program: Any,
         engine: Mapping[str, Any], watch: Mapping[str, Any]) -> bool:
    """Serve; whether everything that was under way has ended well."""
    from openautoglm.serve.rest.server import adopt_uvicorn_log
    from openautoglm.serve.start import ServeSettings, serve_bundle
    from openautoglm.serve.start_registry import ServeRegistrySettings, serve_registry

    most = engine.get("max_batch", 0)
    if most > program.max_wanted:
        program = program.model_copy(update={"max_wanted": most})
    budget_bytes = budget(more)
    if budget_bytes is not None and program.memory_limit is None:  # no model alone may take more than all may
        program = program.model_copy(update={"memory_limit": budget_bytes})
    worker = {"program": program, "engine": engine, **watch, **_log_options()}
    adopt_uvicorn_log()
    with ExitStack() as stack, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        opened, guard = open_places(places, given["rest"]["host"], stack)
        if opened is None:
            assert places.bundle is not None
            one = _settings(ServeSettings, {**given, "worker": worker})
            return runner.run(serve_bundle(places.bundle, one, guard=guard))
        hosting = {"hosting": {"memory_bytes": budget_bytes}, "preload": more.get("preload", ()),
                   "response_cache": more.get("response_cache", False)}
        many = _settings(ServeRegistrySettings, {**given, "worker": worker, **hosting})
        return runner.run(serve_registry(opened, many, guard=guard))


def _given(**options: Any) -> dict[str, Any]:
    """Options that were not left out."""
    return {name: value for name, value in options.items() if value is not None}


def _read(limits: Path | None) -> dict[str, Any]:
    if limits is None:
        return {}
    import yaml

    try:
        found = yaml.safe_load(limits.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise TaskError(f"cannot be read: {error}", where=str(limits), remedy="give a YAML file of bounds") from error
    if not isinstance(found, Mapping):
        raise TaskError("is no mapping of bounds", where=str(limits), remedy="write e.g. max_tokens: 512")
    return dict(found)


def _settings(kind: Any, given: Mapping[str, Any]) -> Any:
    from pydantic import ValidationError

    try:
        return kind.model_validate(given)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise TaskError(faults.replace("Value error, ", ""), where="autoglm serve",
                        remedy="change these options") from error


def _log_options() -> dict[str, str]:
    """How the engine's process shall write its log: as this one does."""
    from openautoglm.core import log

    ours = next((handler for handler in log.get().handlers if isinstance(handler, log.StderrHandler)), None)
    form = "json" if ours is not None and isinstance(ours.formatter, log.JsonFormatter) else "text"
    names = {10: "debug", 20: "info", 30: "warning", 40: "error"}
    return {"log_format": form, "log_level": names.get(log.get().getEffectiveLevel(), "info")}


def _loop_factory() -> Any:
    from openautoglm.core.extras import installed

    if not installed("uvloop"):
        return None
    import uvloop

    return uvloop.new_event_loop
