"""Where a registry lies: what ``--registry`` or ``OPENAUTOGLM_REGISTRY`` says, else the user's data folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from openautoglm.serve.faults import BadRequest

VARIABLE = "OPENAUTOGLM_REGISTRY"
STORE_VARIABLE = "OPENAUTOGLM_STORE"
_POSTGRES = {"postgres", "postgresql", "postgresql+psycopg"}


@dataclass(frozen=True, slots=True)
class Place:
    """A database, and the folder of the bundles that were copied into the registry."""

    url: URL
    store: Path

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database, else None."""
        return Path(self.url.database or "") if self.url.drivername == "sqlite" else None

    def __str__(self) -> str:
        return str(self.file) if self.file is not None else self.url.render_as_string(hide_password=True)


def place(registry: str | os.PathLike[str] | None = None, store: str | os.PathLike[str] | None = None,
          environment: Mapping[str, str] | None = None) -> Place:
    """Return where the registry lies: as given, else as the environment says, else the user's data folder.

    Args:
        registry: a file, ``sqlite:///file`` or ``postgresql://user:password@host/database``.
        store: folder of copied bundles; by default ``bundles`` beside the file, with PostgreSQL in the data folder.

    Raises:
        BadRequest: a URL of another kind, or one that cannot be read.
    """
    variables = os.environ if environment is None else environment
    said = os.fspath(registry) if registry is not None else variables.get(VARIABLE) or str(data_home(variables)
                                                                                         / "registry.db")
    where = "--registry" if registry is not None else VARIABLE
    url = _url(said, where)
    folder = store if store is not None else variables.get(STORE_VARIABLE)
    if folder is not None:
        return Place(url, Path(folder).expanduser().absolute())
    beside = Path(url.database).parent if url.drivername == "sqlite" and url.database else data_home(variables)
    return Place(url, beside / "bundles")


def data_home(variables: Mapping[str, str]) -> Path:
    """Our folder under ``XDG_DATA_HOME``; a relative one is ignored, as the standard asks."""
    home = variables.get("XDG_DATA_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "share") / "openautoglm"


def _url(text: str, where: str) -> URL:
    remedy = "give a file, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise BadRequest("the URL cannot be read", where=where, remedy=remedy) from None  # it may hold a password
    if url.drivername in _POSTGRES:
        return url.set(drivername="postgresql+psycopg")
    if url.drivername != "sqlite" or not url.database or url.database == ":memory:" or url.query:
        raise BadRequest(f"no registry of this kind: {url.drivername[:40]}", where=where, remedy=remedy)
    return url.set(database=str(Path(url.database).expanduser().absolute()))
