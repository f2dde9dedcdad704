"""E-mail: fields that must hold a valid e-mail address."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field

from openautoglm.core.values import Example
from openautoglm.data.rules.base import Drop, Rule

_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_ADDRESS = re.compile(rf"(?P<local>{_ATOM}(?:\.{_ATOM})*)@(?:{_LABEL}\.)+(?:xn--[a-z0-9-]+|[^\W\d_]{{2,63}})")
_LONGEST_LOCAL, _LONGEST = 64, 254


def is_email(text: str) -> bool:
    """Whether `text` is an address as mail servers take it (RFC 5321, dot-atom form), in any script."""
    match = _ADDRESS.fullmatch(text) if len(text) <= _LONGEST else None
    return match is not None and len(match["local"]) <= _LONGEST_LOCAL


class Email(Rule):
    """Drop examples in which a field that must be an e-mail address is none."""

    name: ClassVar[str] = "email"

    fields: tuple[str, ...] = Field(min_length=1, description="Fields that must be valid e-mail addresses.")
    absent: Literal["keep", "drop"] = Field("keep", description="What becomes of examples without the field.")

    def apply(self, example: Example) -> Example | Drop:
        values = dict(example.fields)
        for name in self.fields:
            value = values.get(name)
            if value is None:
                if self.absent == "drop":
                    return Drop(f"field {name!r} is absent")
            elif not is_email(value.strip()):
                return Drop(f"field {name!r} is no e-mail address: {value[:80]!r}")
        return example
