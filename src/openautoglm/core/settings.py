"""The base of every part's own options: a frozen pydantic model that refuses unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen options of one part. Unknown keys are refused; defaults are validated too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=(),
                              defer_build=True)  # a verb builds the validators of the options that it uses
