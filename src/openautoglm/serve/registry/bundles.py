"""The bundles that the registry keeps: copied with their hashes checked, found again, removed, or told as damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import secrets
import shutil
import time
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from openautoglm.core import log
from openautoglm.core.errors import AutoGLMError, BundleError
from openautoglm.core.files import atomic_folder, sha256_file
from openautoglm.core.progress import Progress, progress
from openautoglm.models.bundle import Bundle, is_packed, open_bundle
from openautoglm.models.card import CARD_NAME, Card, is_plain_name, read_card
from openautoglm.serve.faults import DiskFull, Unavailable
from openautoglm.serve.registry.records import Version

Health = Literal["whole", "missing", "changed"]
_BLOCK = 2**20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OURS = re.compile(r"\.?[A-Za-z0-9][A-Za-z0-9._-]{0,63}-[0-9a-f]{12}(\.[a-z0-9_]+\.(part|old))?")
_UNFINISHED_S = 24 * 3600


class BundleStore:
    """A folder of bundles, and the way to those that lie elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, bundle: Bundle, name: str) -> str:
        """Copy `bundle` into the store, every byte checked on its way; return the name of its folder.

        Raises:
            DiskFull: it does not fit; nothing is left of the attempt.
            BundleError: a file changed while it was copied.
        """
        location = f"{name}-{secrets.token_hex(6)}"
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            if shutil.disk_usage(self.root).free < size_bytes(bundle):
                raise OSError(errno.ENOSPC, "no space left")
            size = size_bytes(bundle) / _BLOCK
            with atomic_folder(self.root / location) as part, progress(size, "copy", "MiB") as bar:
                for file, expected in _files(bundle).items():
                    if _copy(bundle.path / file, part / file, bar) != expected:
                        if is_packed(file):  # written again since; whoever needs packed weights makes them
                            (part / file).unlink()
                            continue
                        raise BundleError(f"{file} changed while it was copied", where=str(bundle.path),
                                          remedy="register it again when nobody writes it")
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise DiskFull(f"the bundle needs {size_bytes(bundle):,} bytes", where=str(self.root),
                           remedy="free some space, or register it by reference (--reference)") from error
        return location

    def path(self, version: Version) -> Path:
        """Where the bundle of `version` lies."""
        if not version.copied:
            return Path(version.location)
        if not is_plain_name(version.location):
            raise Unavailable(f"{version.uri} is kept in no folder of the store")
        return self.root / version.location

    def health(self, version: Version) -> Health:
        """Look at the card alone, which takes no time; `open` looks at every byte."""
        path = self.path(version)
        if not path.exists():
            return "missing"
        if path.is_dir():
            try:
                return "whole" if fingerprint(read_card(path)) == version.fingerprint else "changed"
            except BundleError:
                return "changed"
        return "whole"

    def open(self, version: Version, *, packed: bool = False) -> Bundle:
        """Open the bundle, all hashes checked against its card and the card against the registry.

        Args:
            packed: check the hashes of packed weights too.

        Raises:
            Unavailable: it is missing, damaged or another than was registered; the cause says what and where.
        """
        path = self.path(version)
        try:
            bundle = open_bundle(path, packed=packed)
            if fingerprint(bundle.card) != version.fingerprint:
                raise BundleError("is not the bundle that was registered: its card is another", where=str(path),
                                  remedy="put the old files back, or register this bundle as a new version")
        except (AutoGLMError, OSError) as error:
            log.get(__name__).error("a bundle cannot be opened", extra={"version": version.uri, "cause": str(error)})
            raise Unavailable(f"{version.uri} cannot be opened: its bundle is missing or damaged",
                              remedy="`autoglm models check` says what is wrong with it") from error
        return bundle

    def discard(self, version: Version) -> None:
        """Remove the files of a version whose row is gone; bundles that lie elsewhere stay untouched."""
        if version.copied and is_plain_name(version.location):
            shutil.rmtree(self.root / version.location, ignore_errors=True)

    def sweep(self, known: Collection[str]) -> list[str]:
        """Remove folders of ours that no version knows: rests of a crash, older than a day; return their names."""
        if not self.root.is_dir():
            return []
        oldest_s = time.time() - _UNFINISHED_S
        rests = [path for path in self.root.iterdir() if _OURS.fullmatch(path.name) and path.name not in known
                 and path.is_dir() and not path.is_symlink() and path.stat().st_mtime < oldest_s]
        for path in rests:
            shutil.rmtree(path, ignore_errors=True)
        return sorted(path.name for path in rests)


def size_bytes(bundle: Bundle) -> int:
    """Bytes of all files of a bundle."""
    return sum((bundle.path / name).stat().st_size for name in _files(bundle))


def fingerprint(card: Card) -> str:
    """SHA-256 of what the card says, packed weights apart: those come, go and are written again while it serves.

    Fields that have their defaults are left out, so that a later version which knows more fields finds the same; but
    not the time of writing, whose default is the present.
    """
    said = {**card.model_dump(mode="json", exclude_defaults=True), "created": card.created}
    said["files"] = {name: value for name, value in card.files.items() if not is_packed(name)}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _files(bundle: Bundle) -> dict[str, str]:
    """Name and SHA-256 of the files that are to be copied; packed weights as far as they are there."""
    there = {name: value for name, value in bundle.card.files.items()
             if not is_packed(name) or (bundle.path / name).is_file()}
    return {**there, CARD_NAME: sha256_file(bundle.path / CARD_NAME)}


def _copy(source: Path, target: Path, bar: Progress) -> str:
    """Copy a file and return the SHA-256 of what was written."""
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("xb") as write:
        while block := read.read(_BLOCK):
            digest.update(block)
            write.write(block)
            bar.advance(len(block) / _BLOCK)
    return digest.hexdigest()
