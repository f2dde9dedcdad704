"""Kinds of fields that requests share: numbers that are numbers, texts, and what stands for nothing."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from openautoglm.core.settings import Settings

LARGEST = 2**63 - 1


def _whole(value: Any) -> Any:
    """JSON does not tell 5 from 5.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Int = Annotated[StrictInt, BeforeValidator(_whole, json_schema_input_type=int)]
Count = Annotated[Int, Field(ge=0, le=LARGEST)]
Real = StrictFloat
Flag = StrictBool
Text = StrictStr
TokenId = Annotated[Int, Field(ge=0, lt=2**31)]
Ids = tuple[TokenId, ...]


class Ask(Settings):
    """The base of what is asked: frozen, and no unknown fields."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)
