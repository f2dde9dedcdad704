"""Names of models, aliases and stages, and the URIs that point at versions: by allow-list, never a path.

``models:/reports/3`` is version 3, ``models:/reports@champion`` what the alias points at, ``models:/reports`` what the
model's route says. The same without ``models:/`` is taken too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from openautoglm.serve.faults import BadRequest

SCHEME = "models:/"
CHAMPION, LATEST = "champion", "latest"
MOST_CHARACTERS = 128
Stage = Literal["none", "staging", "production", "archived"]
STAGES: tuple[str, ...] = get_args(Stage)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_ALIAS = re.compile(r"[a-z](?:[a-z0-9_-]{0,30}[a-z0-9])?")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_NAME_RULE = "1 to 64 of A-Z, a-z, 0-9, dot, dash and underscore; a letter or digit at both ends, no two dots together"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a text points at: a model, and a version or an alias of it; neither: as the model's route says."""

    name: str
    number: int | None = None
    alias: str | None = None

    @property
    def uri(self) -> str:
        """The full form."""
        return f"{SCHEME}{self}"

    def __str__(self) -> str:
        if self.number is not None:
            return f"{self.name}/{self.number}"
        return f"{self.name}@{self.alias}" if self.alias is not None else self.name


def parse(text: str, *, where: str = "model") -> Reference:
    """Read ``models:/name``, ``models:/name/3`` or ``models:/name@alias``, with or without ``models:/``.

    Raises:
        BadRequest: anything else; nothing of such a text is used.
    """
    if len(text) > MOST_CHARACTERS:
        raise BadRequest(f"the name is longer than {MOST_CHARACTERS} characters", where=where)
    body = text.removeprefix(SCHEME)
    name, slash, number = body.partition("/")
    if slash:
        if not _NUMBER.fullmatch(number):
            raise BadRequest("a version is a positive number", where=where, remedy=f"write {SCHEME}NAME/3")
        return Reference(check_name(name, where=where), number=int(number))
    name, at, alias = body.partition("@")
    if at:
        return Reference(check_name(name, where=where), alias=check_alias(alias, where=where, fixed=True))
    return Reference(check_name(name, where=where))


def check_name(name: str, *, where: str = "model") -> str:
    """Return `name` where it is allowed as a model's name; else raise BadRequest."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise BadRequest("not a model's name", where=where, remedy=_NAME_RULE)
    return name


def check_alias(alias: str, *, where: str = "alias", fixed: bool = False) -> str:
    """Return `alias` where it is allowed; `fixed` allows ``latest``, which nobody can set. Else raise BadRequest."""
    if not _ALIAS.fullmatch(alias):
        raise BadRequest("not an alias", where=where,
                         remedy="up to 32 of a-z, 0-9, dash and underscore, a letter first")
    if alias == LATEST and not fixed:
        raise BadRequest(f"{LATEST} always is the newest version; it cannot be set", where=where,
                         remedy="choose another alias")
    return alias


def check_stage(stage: str, *, where: str = "stage") -> str:
    """Return `stage` where it is one; else raise BadRequest."""
    if stage not in STAGES:
        raise BadRequest(f"there is no stage {stage[:40]!r}{nearest(stage, STAGES)}", where=where,
                         remedy=f"use one of {', '.join(STAGES)}")
    return stage


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the known word next to `word`, or nothing."""
    words = {one.lower(): one for one in known}
    near = difflib.get_close_matches(word[:MOST_CHARACTERS].lower(), words, n=1, cutoff=0.55)
    return f"; did you mean {words[near[0]]!r}?" if near else ""
