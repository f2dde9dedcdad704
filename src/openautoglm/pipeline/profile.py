"""Launch profiles: how a model shall be served on a machine, written by the doctor and read by ``autoglm serve``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from openautoglm.core.errors import TaskError
from openautoglm.core.files import atomic_write
from openautoglm.core.process import ProcessSettings
from openautoglm.core.settings import Settings
from openautoglm.engine.open import ProgramSettings

VARIABLE = "OPENAUTOGLM_PROFILE"
"""Names the profile of servers that are given none."""


class Profile(Settings):
    """How a model shall be served on a machine.

    Attributes:
        program: how it is loaded; options of the command line go before.
        process: how the server and all that it starts run.
    """

    program: ProgramSettings = ProgramSettings()
    process: ProcessSettings = ProcessSettings()


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        TaskError: it cannot be read, or holds what a profile does not.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Profile.model_validate({} if content is None else content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ")
                           for item in error.errors())
        raise TaskError(faults.replace("Value error, ", ""), where=str(path),
                        remedy="write it again: autoglm doctor --for serve --model MODEL --apply") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise TaskError(f"cannot be read: {error}", where=str(path), remedy="give a profile that `autoglm doctor --for "
                        "serve --model MODEL --apply` wrote") from error


def write_profile(path: Path, settings: Mapping[str, Mapping[str, Any]], heading: str) -> Profile:
    """Write a profile, whole or not at all, and return it.

    Args:
        settings: of ``program`` and of ``process``.
        heading: what it is for, one line.

    Raises:
        OSError: it cannot be written.
    """
    profile = Profile.model_validate(settings)
    content = profile.model_dump(mode="json", exclude_unset=True)
    with atomic_write(path) as file:
        file.write(f"# {heading}\n" + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100))
    return profile


def with_profile(given: ProgramSettings, profile: Profile) -> ProgramSettings:
    """What was given on the command line, and for all else what the profile says."""
    chosen = {name: getattr(given, name) for name in given.model_fields_set if (name, getattr(given, name)) !=
              ("target", "auto")}
    return profile.program.model_copy(update=chosen)
