"""Optional dependencies: imported where they are used, and named with their extra where they are absent."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from openautoglm.core.errors import MissingExtraError


def require(module: str, extra: str) -> ModuleType:
    """Import a module of an optional extra.

    Raises:
        MissingExtraError: the package is not installed; the remedy names the extra.
        ImportError: the package is installed but is broken itself.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(package, extra) from error


def installed(module: str) -> bool:
    """Whether a top-level module can be found, without importing it."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None
