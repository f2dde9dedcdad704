"""Walks the stages of a run: skips what is finished for the same inputs and settings, and says so."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from openautoglm.core import log
from openautoglm.core.errors import TaskError
from openautoglm.core.files import fingerprint
from openautoglm.pipeline.context import Run
from openautoglm.pipeline.state import RunState, locked

_log = log.get(__name__)


class Stage(Protocol):
    """One step of a run. Its work is atomic or resumes itself, so that a killed run can be started again."""

    @property
    def name(self) -> str:
        """One word."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Stages whose results this one reads."""

    @property
    def format(self) -> int:
        """Raised when the stage's results change their form, so that older ones are made again."""

    def inputs(self, run: Run) -> Any:
        """Everything besides `needs` that the result depends on, JSON-like."""

    def results(self, run: Run) -> Sequence[Path]:
        """The paths that must exist when the stage is finished."""

    def run(self, run: Run) -> dict[str, Any]:
        """Do the work; return facts for the state and the report, JSON-like."""

    def wipe(self, run: Run, *, fresh: bool) -> Sequence[Path]:
        """The paths to be removed before the stage begins again: on a user's wish (`fresh`), or for new inputs."""


@dataclass
class Walk:
    """How to walk: `until` ends after that stage, `from_` runs it and all later ones again."""

    until: str | None = None
    from_: str | None = None
    fresh: bool = False
    done: dict[str, str] = field(default_factory=dict)
    """What happened to each stage: ``ran``, ``skipped`` or ``off``."""


def walk(run: Run, stages: Sequence[Stage], how: Walk, *,
         say: Callable[[str], None] = _log.info) -> dict[str, str]:
    """Run the stages in order under the lock of the run folder; return what happened to each.

    Raises:
        TaskError: an unknown stage name.
        ResourceError: another process works in the run folder.
        AutoGLMError: whatever a stage raises; finished stages stay finished.
    """
    names = [stage.name for stage in stages]
    for option, name in (("--from", how.from_), ("--until", how.until)):
        if name is not None and name not in names:
            raise TaskError(f"there is no stage {name!r}", where=option, remedy=f"use one of {', '.join(names)}")
    with locked(run.folder):
        if how.fresh:
            (run.folder / "state.json").unlink(missing_ok=True)
        _sweep(run.folder)
        run.state = RunState(run.folder)
        _forget(run, stages, names if how.fresh else names[names.index(how.from_):] if how.from_ else [])
        prints: dict[str, str] = {}
        for number, stage in enumerate(stages, 1):
            how.done[stage.name] = _step(run, stage, prints, f"[{number}/{len(stages)}] {stage.name}", say)
            if stage.name == how.until:
                break
    return how.done


def _forget(run: Run, stages: Sequence[Stage], names: Sequence[str]) -> None:
    run.state.forget(names)
    for stage in stages:
        if stage.name in names:
            _wipe(stage.wipe(run, fresh=True))


def _sweep(folder: Path) -> None:
    """Remove the unfinished parts that a killed run left behind; the lock is ours, so nobody writes them."""
    _wipe([path for pattern in (".*.part", ".*.old") for path in folder.rglob(pattern)])


def _wipe(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _step(run: Run, stage: Stage, prints: dict[str, str], label: str, say: Callable[[str], None]) -> str:
    own = fingerprint({"format": stage.format, "inputs": stage.inputs(run),
                       "needs": {name: prints[name] for name in stage.needs}})
    prints[stage.name] = own
    begun, finished = run.state.begun(stage.name), run.state.finished(stage.name) is not None
    if finished and begun == own and all(path.exists() for path in stage.results(run)):
        say(f"{label}: skipped, finished before with the same inputs and settings")
        return "skipped"
    if begun is None:
        say(f"{label}: running")
    elif begun != own:
        say(f"{label}: inputs or settings have changed, running again")
        _wipe(stage.wipe(run, fresh=False))
    else:
        say(f"{label}: " + ("its results are gone, running again" if finished else "going on where it stopped"))
    run.state.begin(stage.name, own)
    started = time.monotonic()
    facts = stage.run(run)
    run.state.finish(stage.name, time.monotonic() - started, facts)
    return "ran"
