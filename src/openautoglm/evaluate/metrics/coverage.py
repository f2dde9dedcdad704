"""Slot coverage: which share of the record's values is mentioned in the prediction."""

from __future__ import annotations

from dataclasses import dataclass

from openautoglm.core.errors import EvaluationError
from openautoglm.evaluate.base import Better, Inputs, Measured, Need, of_mean
from openautoglm.evaluate.settings import EvaluateSettings


@dataclass(frozen=True, slots=True)
class Coverage:
    """Mean over the cases of the share of mentioned values, in per cent; needs no reference."""

    key: str = "coverage"
    better: Better = "higher"
    needs: Need = "fields"

    def measure(self, inputs: Inputs, settings: EvaluateSettings) -> Measured:
        """Return the mean share. EvaluationError without fields."""
        from openautoglm.text.coverage import coverage

        if inputs.fields is None:
            raise EvaluationError("slot coverage needs the fields of each case's record",
                                  remedy="set data.fields")
        values = [coverage(fields, prediction)
                  for fields, prediction in zip(inputs.fields, inputs.predictions, strict=True)]
        return Measured(name="Slot coverage % (values of the record found in the text)",
                        signature="openautoglm|coverage|mean:cases", under=of_mean(values))
