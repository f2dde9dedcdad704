"""How to generate: length, randomness, beams, and how one text is chosen among several."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from openautoglm.core.settings import Settings


class Sampling(Settings):
    """Options of one generation.

    Attributes:
        max_new_tokens: bound on the generated tokens, the end token included.
        temperature: 0 takes the likeliest token; above, samples from the softmax of ``logits / temperature``.
        top_k: sample among this many likeliest tokens; 0 for all.
        top_p: sample among the likeliest tokens which together reach this probability (Holtzman et al. 2020,
            arXiv 1904.09751).
        min_p: sample among tokens at least this likely, relative to the likeliest (Nguyen et al. 2024,
            arXiv 2407.01082).
        repetition_penalty: divides positive and multiplies negative logits of tokens seen so far (Keskar
            et al. 2019, arXiv 1909.05858); 1 for none.
        num_beams: beams of a beam search; 1 for none.
        length_penalty: a beam's score is its log-probability / length ** length_penalty.
        early_stop: end a search as soon as `num_beams` beams have ended.
        n: candidates to return, best first for beams.
        seed: of sampling; a prompt's samples depend on seed and prompt, not on its neighbours in a batch.
        choose: which candidate becomes the text: the first, the one that the others agree with most
            (``consensus``), the first of those that cover the record best (``coverage``), or of those the one
            that the others agree with most (``coverage+consensus``).
        utility: what agreement is measured by.
    """

    max_new_tokens: int = Field(default=256, gt=0)
    temperature: float = Field(default=0.0, ge=0, le=100)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=10)
    num_beams: int = Field(default=1, ge=1, le=64)
    length_penalty: float = Field(default=1.0, ge=-10, le=10)
    early_stop: bool = False
    n: int = Field(default=1, ge=1, le=256)
    seed: int = Field(default=0, ge=0)
    choose: Literal["first", "consensus", "coverage", "coverage+consensus"] = "first"
    utility: Literal["bleu", "chrf"] = "bleu"

    @model_validator(mode="after")
    def _fits_together(self) -> Sampling:
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError("beams and sampling do not mix: set num_beams to 1 or temperature to 0")
        if self.num_beams > 1 and self.n > self.num_beams:
            raise ValueError(f"{self.num_beams} beams cannot give n = {self.n} candidates: raise num_beams")
        if self.num_beams == 1 and self.temperature == 0 and self.n > 1:
            raise ValueError("greedy decoding gives one candidate: set a temperature, num_beams, or n to 1")
        return self
