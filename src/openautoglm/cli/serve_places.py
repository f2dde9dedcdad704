"""What ``autoglm serve`` serves: one bundle, or a registry; and whose keys it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openautoglm.core import log
from openautoglm.core.errors import TaskError

if TYPE_CHECKING:
    from openautoglm.engine.open import ProgramSettings
    from openautoglm.serve.guard.guard import Guard
    from openautoglm.serve.registry.registry import Registry

Models = Annotated[str | None, typer.Option(
    "--registry", metavar="[FILE|URL]", help="Serve the models of a registry in place of a bundle; by default the one "
    "that `autoglm models` uses.")]
Folder = Annotated[Path | None, typer.Option("--store", metavar="FOLDER", help="Where the registry keeps copied "
                                             "bundles.")]
Budget = Annotated[str | None, typer.Option("--memory-budget", help="Most memory for weights and caches of all models "
                                            "of the registry together, e.g. 8GiB.")]
Preload = Annotated[list[str] | None, typer.Option("--preload", metavar="MODEL", help="A model of the registry that is "
                                                   "loaded before the server listens; can be given again.")]
Cache = Annotated[bool, typer.Option("--response-cache", help="Answer the same request of the same key from the "
                                     "registry's cache.")]
Keys = Annotated[str | None, typer.Option("--keys", metavar="[FILE|URL]", help="Ask for keys, those of this registry; "
                                          "with --registry they are asked for anyway.")]
NoKeys = Annotated[bool, typer.Option("--no-keys", help="Ask for no keys; on loopback only.")]
Profile = Annotated[Path | None, typer.Option("--profile", envvar="OPENAUTOGLM_PROFILE", help="Launch profile that "
                                              "`autoglm doctor --model --apply` wrote; options given here go before.")]
Stall = Annotated[float | None, typer.Option("--stall-timeout", min=1, help="Seconds without a step, with work to do, "
                                             "after which an engine counts as hung and is started again [60].")]
_VERB = "autoglm serve"
_WITH_REGISTRY = {"memory_budget": "--memory-budget", "preload": "--preload", "response_cache": "--response-cache"}


@dataclass(frozen=True)
class Places:
    """Where models and keys are; an empty text is the usual place, None none."""

    bundle: Path | None
    registry: str | None
    store: Path | None
    keys: str | None
    no_keys: bool


def check(places: Places, more: Mapping[str, Any]) -> None:
    """See that the options go together.

    Args:
        more: further options that were given.

    Raises:
        TaskError: they do not; names the options and what to do.
    """
    if places.bundle is not None and places.registry is not None:
        raise TaskError(f"the bundle {places.bundle} and --registry do not go together", where=_VERB,
                        remedy="serve one of them: register the bundle with `autoglm models register`, or leave "
                               "--registry out (keys for one bundle: --keys)")
    if places.bundle is None and places.registry is None:
        raise TaskError("there is nothing to serve", where=_VERB,
                        remedy="give a bundle, before options that may stand without a value, or --registry")
    if places.no_keys and places.keys is not None:
        raise TaskError("--keys and --no-keys do not go together", where=_VERB, remedy="leave one of them out")
    wrong = [flag for name, flag in _WITH_REGISTRY.items() if name in more]
    if places.store is not None:
        wrong.append("--store")
    if places.registry is None and wrong:
        raise TaskError("is for the models of a registry", where=wrong[0], remedy="leave it out, or add --registry")
    if places.registry is not None and "name" in more:
        raise TaskError("is for one bundle; models of a registry have their names", where="--name",
                        remedy="leave it out")


def budget(more: Mapping[str, Any]) -> int | None:
    """The memory budget in bytes.

    Raises:
        TaskError: it cannot be read.
    """
    from openautoglm.pipeline.units import parse_bytes

    if "memory_budget" not in more:
        return None
    try:
        return int(parse_bytes(more["memory_budget"]))
    except ValueError as error:
        raise TaskError(str(error), where="--memory-budget", remedy="write a size such as 8GiB") from error


def profiled(path: Path | None, program: ProgramSettings) -> ProgramSettings:
    """Set this process as a launch profile says; returns how models are loaded then.

    Args:
        path: of the profile; None: there is none.
        program: options of the command line, which go before the profile's.

    Raises:
        TaskError: the profile cannot be read.
        ResourceError: the system refuses something that it says.
    """
    if path is None:
        return program
    from openautoglm.core.process import apply
    from openautoglm.pipeline.profile import read_profile, with_profile

    profile = read_profile(path)
    done = apply(profile.process)
    log.get(__name__).info("profile %s: %s", path, ", ".join(done) or "nothing of the process is set")
    return with_profile(program, profile)


def open_places(places: Places, host: str, stack: ExitStack) -> tuple[Registry | None, Guard]:
    """Open the registry that is served, None where a bundle is; and make the guard.

    Args:
        host: that the server listens on.
        stack: closes what was opened.

    Raises:
        BadRequest, Conflict, StoreLost, DiskFull: a registry cannot be opened.
        ResourceError: without keys, on an address that others can reach.
    """
    from openautoglm.serve.guard.guard import Guard
    from openautoglm.serve.registry.registry import open_registry

    served = None
    if places.registry is not None:
        served = stack.enter_context(open_registry(places.registry or None, places.store))
    if places.no_keys or (served is None and places.keys is None):
        return served, Guard(None, bind=host)
    keyed = served
    if places.keys is not None or served is None:
        keyed = stack.enter_context(open_registry(places.keys or None))
    assert keyed is not None
    if not any(record.live(keyed.database.now()) for record in keyed.keys.list()):
        log.get(__name__).warning("no key opens anything yet: make one with `autoglm keys create --scope infer --name "
                                  "NAME`, in %s", keyed.place)
    return served, Guard(keyed.keys, bind=host)
