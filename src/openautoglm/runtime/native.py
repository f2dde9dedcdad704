"""The native extension: whether it is there, and if not, why. Nothing else imports it by name."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

NAME = "openautoglm.runtime._native"
INTERFACE = 3
"""What these Python files and the extension agree on; `interface` of an extension of another version differs."""
REMEDY = "install g++ and install the package again (pip install -e . or make native), or use the target torch:cpu"


def native_module() -> ModuleType | None:
    """The extension, or None where it was not built or does not load."""
    return _found()[0]


def why_not() -> str:
    """Why there is no extension, one sentence; empty where there is one."""
    return _found()[1]


@cache
def _found() -> tuple[ModuleType | None, str]:
    try:
        module = importlib.import_module(NAME)
    except ModuleNotFoundError:
        return None, "the native extension was not built (there was no C++ compiler when the package was installed)"
    except ImportError as error:
        return None, f"the native extension does not load: {error}"
    if getattr(module, "interface", None) != INTERFACE:
        return None, "the native extension is of another version than the package: install the package again"
    return module, ""
