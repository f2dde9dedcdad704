"""How the matrices of a decoder are quantised when it is loaded: settings, read by the rule `quantise`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from openautoglm.core.settings import Settings
from openautoglm.graph.sources import Format


class Quantisation(Settings):
    """Weights of linears in 8 or 4 bits, rounded to nearest; everything that is not named stays in the load's dtype."""

    format: Literal["int8", "int4"] = Field("int8", description="bits of the linears of the layers")
    group: Literal[0, 32, 64, 128] = Field(32, description="neighbouring input columns that share a scale; 0: a row")
    symmetric: bool = Field(True, description="without a zero point")
    head: Format = Field("int8", description="format of the head: fp32, bf16, int8 or int4")
    keep: tuple[str, ...] = Field((), description="names of checkpoint tensors that stay as they are; * is a wildcard")
