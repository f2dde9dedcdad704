"""Whether the interpreter and the packages of the verbs are there, import, and fit in version."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator

from openautoglm.core.errors import MissingExtraError
from openautoglm.core.extras import installed, require
from openautoglm.core.needs import EXTRAS, NEEDS, OPTIONAL, Finding

OLDEST_PYTHON = (3, 11)
INSTALL = "pip install -e '.[train]' -c constraints.txt"


def python() -> Finding:
    """The interpreter's version."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("Python", "failure", version, "install CPython 3.11 or later", tuple(NEEDS))
    return Finding("Python", "ok", f"{version} ({sys.implementation.name})")


def modules(needed: tuple[str, ...]) -> Iterator[Finding]:
    """Every module that some verb needs; those in `needed` are imported for real."""
    modules = dict.fromkeys(module for need in NEEDS.values() for module in need.modules)
    for module in modules:
        users = tuple(verb for verb, need in NEEDS.items() if module in need.modules)
        broken = _import_fault(module) if module in needed else None
        if not installed(module):
            remedy = MissingExtraError(module, EXTRAS.get(module, "train")).remedy or ""
            yield Finding(module, "failure", "not installed", remedy, users)
        elif broken:
            remedy = f"pip install --force-reinstall {module} -c constraints.txt"
            yield Finding(module, "failure", broken, remedy, users)
        else:
            yield Finding(module, "ok", _version(module))
    for module, use in OPTIONAL.items():
        if installed(module):
            yield Finding(module, "ok", _version(module))
        else:
            remedy = MissingExtraError(module, "train").remedy or ""
            yield Finding(module, "warning", f"not installed; {use} is not available", remedy)


def _import_fault(module: str) -> str | None:
    """Import a module for real; return what is wrong with it, None where nothing is."""
    try:
        require(module, EXTRAS.get(module, "train"))
    except (MissingExtraError, ImportError, OSError, RuntimeError) as error:
        return f"does not import: {str(error).splitlines()[0]}"
    return None


def _version(module: str) -> str:
    try:
        return importlib.metadata.version(module.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "installed"


def versions() -> Finding:
    """Our own metadata against what is installed."""
    try:
        requirements = importlib.metadata.requires("openautoglm") or []
    except importlib.metadata.PackageNotFoundError:
        return Finding("versions", "unknown", "openautoglm is not installed as a package",
                       INSTALL)
    if not installed("packaging"):
        return Finding("versions", "unknown", "the package `packaging` is needed to compare versions")
    wrong = list(_outside(requirements))
    if wrong:
        return Finding("versions", "warning", "; ".join(wrong), INSTALL)
    return Finding("versions", "ok", "all inside the ranges of the package")


def _outside(requirements: list[str]) -> Iterator[str]:
    from packaging.requirements import Requirement

    for requirement in map(Requirement, requirements):
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": "train"}) or (
            requirement.marker.evaluate({"extra": "serve"}))
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # told as a module of its own, or not needed by any verb
        if wanted and not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} {version}, needed {requirement.specifier}"
