"""What the `clean` section of a task says: rules, duplicates, splits, leaks."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from openautoglm.core.settings import Settings
from openautoglm.data.rules.registry import DEFAULT_RULES, build_rules

Action = Literal["drop", "report", "keep"]


class NearSettings(Settings):
    """Near-duplicates: MinHash signatures over word shingles, candidates by banding (Broder 1997; Leskovec et
    al., Mining of Massive Datasets, chapter 3)."""

    threshold: float = Field(
        default=0.8, ge=0.3, le=0.99,
        description="Smallest estimated Jaccard similarity of two texts' shingles that counts as near.")
    shingle: int = Field(
        default=2, ge=1, le=10, description="Words in one shingle; a Han or kana character is a word.")
    permutations: int = Field(
        default=64, ge=16, le=256, multiple_of=8,
        description="Length of a signature. The estimate's standard error is at most "
        "0.5 / sqrt(permutations).")
    min_words: int = Field(
        default=5, ge=1,
        description="Texts with fewer words are labels rather than texts: they are never near, and sharing "
        "one is no leak.")


class DedupSettings(Settings):
    """Duplicates inside one split: equal pairs, and pairs of one source with near-equal targets.

    Pairs with different sources are never duplicates, however near their targets are: in data-to-text two
    records rightly share a sentence. (Such rows still stay on one side of a split.) The first row of a chain
    is kept.
    """

    exact: Action = Field(
        default="drop",
        description="Rows whose source and target equal an earlier row's, compared after the rules and "
        "without regard to case, width and spacing. drop, report (count only) or keep (do not look).")
    near: Action = Field(
        default="drop",
        description="Rows with an earlier row's source and a near target. drop, report or keep.")
    splits: tuple[Literal["train", "valid", "test"], ...] = Field(
        default=("train",),
        description="Given splits that lose their duplicates; in the others they are only counted, so that "
        "published test sets stay comparable.")


class SplitSettings(Settings):
    """How rows are split off `train` where no file is given for a split."""

    valid: float = Field(
        default=0.05, ge=0, lt=1, description="Share of rows for validation, if `data.valid` is absent.")
    test: float = Field(
        default=0.05, ge=0, lt=1, description="Share of rows for the test, if `data.test` is absent.")
    seed: int = Field(default=0, ge=0, description="Seed of the split.")
    together: tuple[Literal["source", "target", "near_target"], ...] = Field(
        default=("source", "target", "near_target"),
        description="Rows that share one of these never cross splits (chains of such rows stay together).")
    max_group: float = Field(
        default=0.2, gt=0, le=1,
        description="A group with more than this share of the rows stays in train as a whole, and the report "
        "says so.")

    @model_validator(mode="after")
    def _leaves_train(self) -> Self:
        if self.valid + self.test >= 0.95:
            raise ValueError(f"valid and test take {self.valid + self.test:.0%} of the rows; "
                             "leave at least 5% to train")
        return self


class LeakSettings(Settings):
    """What is looked for between given splits, and what is done about it."""

    look_for: tuple[Literal["source", "target", "near_target"], ...] = Field(
        default=("source", "target", "near_target"), description="What two splits must not share.")
    action: Literal["report", "drop_from_train"] = Field(
        default="report",
        description="report counts leaks and shows examples; drop_from_train removes the train rows.")


class CleanSettings(Settings):
    """Cleaning as a whole: rules in order, then duplicates, splits and leaks."""

    rules: tuple[str | dict[str, Any], ...] = Field(
        default=DEFAULT_RULES, description="Cleaning rules in order: a name, or a name with its settings.")
    dedup: DedupSettings = DedupSettings()
    near: NearSettings = NearSettings()
    split: SplitSettings = SplitSettings()
    leaks: LeakSettings = LeakSettings()
    workers: int | None = Field(
        default=None, ge=1, le=64,
        description="Processes that clean; the default is one per core, at most 8. The result does not "
        "depend on it.")
    examples: int = Field(default=5, ge=0, le=50, description="Examples of each fault in the quality report.")

    @field_validator("rules")
    @classmethod
    def _known_rules(cls, value: tuple[str | dict[str, Any], ...]) -> tuple[str | dict[str, Any], ...]:
        from openautoglm.core.errors import RuleError

        try:
            build_rules(value)
        except RuleError as error:
            raise ValueError(str(error)) from error
        return value
