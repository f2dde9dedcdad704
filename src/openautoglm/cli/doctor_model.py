"""``autoglm doctor --model``: a model held against the machine, and what can be done without root."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from openautoglm.core.errors import BundleError, TaskError
from openautoglm.core.hardware import Machine
from openautoglm.core.kernel import look
from openautoglm.core.needs import Demand, Finding

_SCHEME = "models:/"


@dataclass(frozen=True)
class Wishes:
    """How one will serve: for which verb, with which priority and which options of loading (None: left out)."""

    verb: str
    nice: int | None
    program: Mapping[str, Any]


@dataclass(frozen=True)
class CheckUp:
    """What was found of a model on a machine, and the launch profile that follows."""

    demand: Demand
    findings: Sequence[Finding]
    profile: Mapping[str, Mapping[str, Any]]

    @property
    def facts(self) -> dict[str, Any]:
        """All of it, for JSON."""
        demand = {**asdict(self.demand), "cache_bytes": self.demand.cache_bytes,
                  "process_bytes": self.demand.process_bytes}
        return {"demand": demand, "findings": [asdict(finding) for finding in self.findings], "profile": self.profile}


def check_up(model: str, machine: Machine, wishes: Wishes) -> CheckUp:
    """Account for a model as the engine does, and hold it against the machine.

    Raises:
        BundleError, SpecError, GraphError, ResourceError, MissingExtraError, GenerationError: it cannot be served so.
    """
    from openautoglm.core.care import examine_model, profile_of
    from openautoglm.engine.demand import demand_of
    from openautoglm.pipeline.engines import program_settings

    program = program_settings(wishes.program)
    with _folder(model) as folder:
        demand = demand_of(folder, program, name=None if model.startswith(_SCHEME) else model, machine=machine,
                           connections=_connections(wishes.verb), nice=wishes.nice)
    findings = examine_model(demand, machine, look())
    asked = program.model_dump(mode="json", include={"quantise", "cache", "load"}, exclude_unset=True)
    made = profile_of(findings, demand)
    return CheckUp(demand, findings, {**made, "program": {**asked, "target": demand.target, **made["program"]}})


@contextmanager
def _folder(model: str) -> Iterator[Path]:
    """The folder of a bundle, of an archive of one, of a checkpoint, or of a version in the registry."""
    from openautoglm.models.bundle import open_bundle
    from openautoglm.models.card import CARD_NAME, read_card

    if model.startswith(_SCHEME):
        from openautoglm.cli.registry import opened
        from openautoglm.serve.registry.names import parse

        with opened(None) as use:
            yield use.store.path(use.versions.get(parse(model)))
        return
    path = Path(model)
    if path.is_file():
        bundle = open_bundle(path)  # what it was unpacked to lives as long as this
        yield bundle.path
        return
    if not path.is_dir():
        raise BundleError("does not exist", where=model, remedy="give a bundle (folder, .zip or .pkl), the folder of a "
                          "checkpoint, or models:/NAME of the registry")
    if (path / CARD_NAME).is_file():
        read_card(path)
    yield path


def _connections(verb: str) -> int:
    """Connections that a server takes at once; other verbs take none."""
    if verb != "serve":
        return 0
    from openautoglm.serve.rest.settings import RestSettings

    return RestSettings().connections


def apply(checked: CheckUp, path: Path, start: Sequence[str]) -> None:
    """Write the launch profile; where there is a command, set this process so and become the command.

    Raises:
        ResourceError: the system refuses a setting; then nothing is started.
        TaskError: the command cannot be started.
    """
    from openautoglm.core.process import apply as set_process
    from openautoglm.pipeline.profile import VARIABLE, write_profile

    written = write_profile(path, checked.profile, f"how to serve {checked.demand.model}: written by autoglm doctor")
    typer.echo(f"wrote {path}; it holds for: autoglm serve {checked.demand.model} --profile {path}", err=True)
    if not start:
        return
    done = set_process(written.process)
    os.environ[VARIABLE] = str(path.resolve())
    typer.echo(f"{', '.join(done) or 'nothing was to be set'}; starting {' '.join(start)}", err=True)
    sys.stdout.flush()
    try:
        os.execvp(start[0], list(start))  # nosec B606  # the user's own command, no shell
    except OSError as error:
        raise TaskError(f"cannot be started: {error.strerror}", where=start[0],
                        remedy="write the command behind --, e.g. -- autoglm serve MODEL") from error
