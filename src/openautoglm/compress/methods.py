"""All quantisation methods, told apart by their key ``method``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from openautoglm.compress.settings import AwqSettings, GptqSettings, MixedSettings, RtnSettings

QuantisationMethod = Annotated[RtnSettings | GptqSettings | AwqSettings | MixedSettings, Field(discriminator="method")]
