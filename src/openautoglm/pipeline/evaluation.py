"""The ``evaluate`` section: the evaluation room's options, and how texts are generated."""

from __future__ import annotations

from pydantic import Field, field_validator

from openautoglm.engine.sampling import Sampling
from openautoglm.evaluate.settings import EvaluateSettings


class EvaluateTask(EvaluateSettings):
    """Metrics, and the decodings that are tried on the validation records; the best one goes into the card."""

    decodings: dict[str, Sampling] = Field(
        default_factory=dict, description="Decodings by name, each with generation options; all are measured on the "
        "validation records. Default: `greedy` alone.")
    choose_by: str = Field(
        default="bleu", description="Metric on the validation records that chooses among the decodings.")
    valid_cases: int | None = Field(
        default=None, gt=0, description="At most so many validation records, evenly spaced; left out, all.")
    test_cases: int | None = Field(
        default=None, gt=0, description="At most so many test records, evenly spaced; left out, all.")
    checkpoint_cases: int = Field(
        default=100, gt=0, description="Validation records that are generated for at each validation during training, "
        "where a metric chooses the checkpoint.")
    samples: int = Field(default=8, ge=0, le=200, description="Generated texts shown in the report.")

    @field_validator("choose_by")
    @classmethod
    def _known_metric(cls, key: str) -> str:
        from openautoglm.evaluate.registry import METRICS

        if key not in METRICS:
            raise ValueError(f"no metric {key!r}; there are {', '.join(METRICS)}")
        return key

    @field_validator("decodings")
    @classmethod
    def _plain_names(cls, decodings: dict[str, Sampling]) -> dict[str, Sampling]:
        for name in decodings:
            if not name or len(name) > 60 or not name.isprintable() or "/" in name:
                raise ValueError(f"{name!r} is not a name; use a word such as beams5")
        return decodings

    def all_decodings(self, longest_target: int) -> dict[str, Sampling]:
        """The decodings, their bound on tokens filled in: half more than the longest target, where it is not set."""
        given = self.decodings or {"greedy": Sampling()}
        bound = max(16, longest_target * 3 // 2)
        return {name: sampling if "max_new_tokens" in sampling.model_fields_set
                else sampling.model_copy(update={"max_new_tokens": bound}) for name, sampling in given.items()}
