"""What a process can set for itself and for all that it starts, without root: priority, processors, limits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from pydantic import Field

from openautoglm.core.errors import ResourceError
from openautoglm.core.settings import Settings


class ProcessSettings(Settings):
    """How a process shall run; what is left out stays as it is.

    Attributes:
        nice: its priority, -20 (first) to 19 (last); a higher one than it has needs root or CAP_SYS_NICE.
        cpus: processors that it may use.
        open_files: descriptors that it may have.
        data_bytes: memory of its own that it may ask for (RLIMIT_DATA: files that are mapped do not count).
    """

    nice: int | None = Field(default=None, ge=-20, le=19)
    cpus: tuple[int, ...] | None = Field(default=None, min_length=1)
    open_files: int | None = Field(default=None, ge=64)
    data_bytes: int | None = Field(default=None, gt=0)


def apply(settings: ProcessSettings) -> list[str]:
    """Set this process so; returns what was done, a phrase each.

    Raises:
        ResourceError: the system refuses something; nothing that came before is taken back.
    """
    return list(_applied(settings))


def _applied(settings: ProcessSettings) -> Iterator[str]:
    import resource

    if settings.open_files is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        _limit(resource.RLIMIT_NOFILE, settings.open_files, hard, "open_files",
               "lower it, or raise the hard limit: sudo prlimit --pid $$ --nofile")
        yield f"open files {settings.open_files}"
    if settings.cpus is not None:
        if not hasattr(os, "sched_setaffinity"):
            raise ResourceError(f"{sys.platform} lets no process choose its processors", where="process.cpus",
                                remedy="leave it out")
        try:
            os.sched_setaffinity(0, settings.cpus)
        except OSError as error:
            raise ResourceError(f"processors {','.join(map(str, settings.cpus))} cannot be had: {error.strerror}",
                                where="process.cpus", remedy="choose among those of /proc/self/status") from error
        yield f"processors {','.join(map(str, settings.cpus))}"
    if settings.nice is not None and settings.nice != os.getpriority(os.PRIO_PROCESS, 0):
        try:
            os.setpriority(os.PRIO_PROCESS, 0, settings.nice)
        except OSError as error:
            raise ResourceError(f"nice {settings.nice} cannot be had: {error.strerror}", where="process.nice",
                                remedy="raising a priority needs root or CAP_SYS_NICE; leave it out, or start with "
                                       f"sudo nice -n {settings.nice}") from error
        yield f"nice {settings.nice}"
    if settings.data_bytes is not None:
        _limit(resource.RLIMIT_DATA, settings.data_bytes, None, "data_bytes", "lower it")
        yield f"data limit {settings.data_bytes} bytes"


def _limit(kind: int, soft: int, hard: int | None, name: str, remedy: str) -> None:
    import resource

    try:
        resource.setrlimit(kind, (soft, soft if hard is None else hard))
    except (OSError, ValueError) as error:
        raise ResourceError(f"{soft} cannot be had: {error}", where=f"process.{name}", remedy=remedy) from error
