"""The options of the quantisation methods. They take no torch, so that a task is checked without it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from openautoglm.core.settings import Settings

Bits = Literal[8, 4]
TableBits = Literal[4, 8, 16, 32]


class FormSettings(Settings):
    """In which form matrices are stored.

    Attributes:
        bits: of the layers' matrices.
        group: neighbouring input columns that share a scale; 0 is the whole row.
        symmetric: False stores a zero point for each group.
        head_bits: of the output head; 16 is bf16, 32 is fp32, both not quantised.
        embedding_bits: of the embedding. A table that serves as both takes the greater of the two.
    """

    bits: Bits = Field(default=4, description="Bits of a weight of the layers' matrices.")
    group: Literal[0, 32, 64, 128] = Field(
        default=32, description="Neighbouring input columns that share a scale; 0 is the whole row.")
    symmetric: bool = Field(default=True, description="False stores a zero point for each group.")
    head_bits: TableBits = Field(default=8, description="Bits of the output head; 16 is bf16, 32 is fp32.")
    embedding_bits: TableBits = Field(
        default=8, description="Bits of the embedding. A table that is the head too takes the greater of both.")


class CalibrationSettings(Settings):
    """Which of the given sequences are shown to the model.

    Attributes:
        samples: how many sequences.
        tokens: the longest one; longer ones are cut into pieces, of which each counts as a sequence.
        seed: which ones are drawn.
    """

    samples: int = Field(default=128, ge=1, le=65536, description="Sequences that are shown to the model.")
    tokens: int = Field(
        default=512, ge=2, le=131072, description="The longest sequence; longer ones are cut into pieces.")
    seed: int = Field(default=0, ge=0, description="Which sequences are drawn.")


class RtnSettings(FormSettings):
    """Round to nearest: needs no data.

    Attributes:
        search: look for the scale of each group that makes the squared error of its weights least.
    """

    method: Literal["rtn"] = "rtn"
    search: bool = Field(
        default=False, description="Look for the scale of each group with the least squared error of its weights.")


class CalibratedSettings(FormSettings):
    """What the methods that look at data share.

    Attributes:
        calibration: which sequences are used.
        inputs: a matrix sees what comes out of the quantised ones before it, or of the original ones.
        search: look for the scale of each group with the least squared error, weighted by the inputs' energy.
    """

    calibration: CalibrationSettings = CalibrationSettings()
    inputs: Literal["quantised", "original"] = Field(
        default="quantised", description="A matrix sees the outputs of quantised or of original ones before it.")
    search: bool = Field(
        default=True, description="Look for the scale of each group with the least error, weighted by its inputs.")


class GptqSettings(CalibratedSettings):
    """GPTQ: columns are rounded one after the other, and those that follow make good for the error.

    Attributes:
        damping: share of the mean of the Hessian's diagonal that is added to it.
        act_order: columns with the strongest inputs come first; groups stay neighbouring columns.
    """

    method: Literal["gptq"] = "gptq"
    damping: float = Field(
        default=0.01, gt=0, le=1, description="Share of the Hessian's mean diagonal that is added to it.")
    act_order: bool = Field(default=True, description="Columns with the strongest inputs are rounded first.")


class AwqSettings(CalibratedSettings):
    """AWQ: input columns are scaled by a power of their inputs' mean magnitude before they are rounded.

    Attributes:
        alphas: how many exponents from 0 (no scaling) to 1 are tried.
        search_rows: output rows that are tried at most, evenly spaced.
        then: how scaled weights are rounded.
        damping, act_order: as of GPTQ, for ``then: gptq``.
    """

    method: Literal["awq"] = "awq"
    alphas: int = Field(default=20, ge=2, le=200, description="How many exponents from 0 to 1 are tried.")
    search_rows: int = Field(default=1024, ge=16, description="Output rows on which they are tried, at most.")
    then: Literal["rtn", "gptq"] = Field(default="rtn", description="How the scaled weights are rounded.")
    damping: float = Field(default=0.01, gt=0, le=1, description="As of gptq, for `then: gptq`.")
    act_order: bool = Field(default=True, description="As of gptq, for `then: gptq`.")

    def gptq(self) -> GptqSettings:
        """The settings of the rounding for ``then: gptq``."""
        shared = {name: getattr(self, name) for name in GptqSettings.model_fields if name != "method"}
        return GptqSettings(**shared)


Base = Annotated[RtnSettings | GptqSettings | AwqSettings, Field(discriminator="method")]


class MixedSettings(Settings):
    """Mixed precision: each matrix gets 4 or 8 bits, by how much the model's output suffers from 4.

    Attributes:
        average_bits: stored bits a weight of the layers' matrices at most, scales and zero points included.
        base: how matrices are quantised; its `bits` are not used.
        tokens: of the calibration, on which the divergence (KL) of each single change is measured.
        calibration: which sequences these tokens are taken from, where the base has no calibration of its own.
    """

    method: Literal["mixed"] = "mixed"
    average_bits: float = Field(
        default=5.5, gt=4, le=10, description="Stored bits a weight of the layers at most, scales included.")
    base: Base = Field(default=GptqSettings(), description="How matrices are quantised; its `bits` are not used.")
    tokens: int = Field(
        default=512, ge=16, le=1 << 20, description="Calibration tokens on which single changes are measured.")
    calibration: CalibrationSettings = CalibrationSettings()

    @model_validator(mode="after")
    def _reachable(self) -> MixedSettings:
        overhead = (16 if self.base.symmetric else 24) / self.base.group if self.base.group else 0.0
        if self.average_bits < 4 + overhead:
            raise ValueError(f"average_bits {self.average_bits:g} cannot be reached: 4 bits and the scales of groups "
                             f"of {self.base.group} take {4 + overhead:g} already; raise it, or the group")
        return self
