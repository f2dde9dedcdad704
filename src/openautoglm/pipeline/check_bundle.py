"""Looks at a bundle: its files against its card, and packed weights from end to end, whatever their size."""

from __future__ import annotations

from pathlib import Path

from openautoglm.core.errors import BundleError
from openautoglm.core.files import sha256_file
from openautoglm.models.bundle import Bundle, is_packed, open_bundle
from openautoglm.pipeline.check import Check
from openautoglm.pipeline.units import bytes_text
from openautoglm.runtime.packed_files import verify

_AGAIN = "copy the bundle again, or remove the file: weights are converted at start then"


def is_bundle(path: Path) -> bool:
    """Whether a path is that of a bundle rather than of a task file."""
    return path.is_dir() or path.suffix in (".zip", ".pkl")


def check_bundle(path: Path) -> Check:
    """Check a bundle. Faults are lines of the result, nothing is raised for them."""
    found = Check()
    try:
        bundle = open_bundle(path)
    except BundleError as error:
        found.add("bundle", error.message, "fault", error.remedy or "")
        return found
    for name in bundle.card.files:
        if not is_packed(name):
            found.add(name, bytes_text((bundle.path / name).stat().st_size))
    here = {file.name for file in bundle.path.iterdir() if is_packed(file.name)}
    for name in sorted(here.union(filter(is_packed, bundle.card.files))):
        _packed(bundle, name, found)
    return found


def _packed(bundle: Bundle, name: str, found: Check) -> None:
    file = bundle.path / name
    if not file.is_file():
        found.add(name, "is not there: weights are converted at start", "warning", "export or copy the bundle again")
        return
    try:
        verify(file)
    except BundleError as error:
        found.add(name, error.message, "fault", error.remedy or "")
        return
    if name in bundle.card.files and bundle.card.files[name] != sha256_file(file):
        found.add(name, "its SHA-256 is not the one in the card", "fault", _AGAIN)
    else:
        found.add(name, bytes_text(file.stat().st_size))
