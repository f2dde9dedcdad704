"""Environment variables in the paths of a task file: ``${NAME}`` and ``${NAME:-default}``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openautoglm.core.errors import Fault
from openautoglm.pipeline.positions import Document, KeyPath, key_text

PATH_KEYS: tuple[KeyPath, ...] = (
    ("data", "train"), ("data", "valid"), ("data", "test"), ("tokenizer", "path"), ("model", "checkpoint"),
    ("distill", "teacher"), ("search", "storage"), ("export", "to"), ("output",))
"""Where variables are expanded; elsewhere (templates, expressions) a dollar sign is an ordinary character."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def expand(document: Document, environment: Mapping[str, str]) -> list[Fault]:
    """Expand variables in the document's paths, in place; return a fault for each that is not set."""
    faults: list[Fault] = []
    for path in PATH_KEYS:
        parent: Any = document.value
        for part in path[:-1]:
            parent = parent.get(part) if isinstance(parent, dict) else None
        if isinstance(parent, dict) and path[-1] in parent:
            parent[path[-1]] = _expanded(parent[path[-1]], path, document, environment, faults)
    return faults


def _expanded(value: Any, path: KeyPath, document: Document, environment: Mapping[str, str],
              faults: list[Fault]) -> Any:
    if isinstance(value, list):
        return [_expanded(item, (*path, index), document, environment, faults) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(found: re.Match[str]) -> str:
        name, default = found.groups()
        known = environment.get(name) or default
        if known is None:
            faults.append(Fault(key_text(path), *document.mark(path), f"the environment variable {name} is not set",
                                f"export {name}=..., or write ${{{name}:-default}}"))
        return known or ""

    return _VARIABLE.sub(replace, value)
