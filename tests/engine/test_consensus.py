"""The choice among candidates."""

from __future__ import annotations

import numpy
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.engine.consensus import choose, consensus
from openautoglm.engine.sampling import Sampling
from openautoglm.engine.similarity import UTILITIES, bleu, chrf

TEXTS = [
    "The Punter is a cheap pub near Café Rouge.",
    "Near Café Rouge, The Punter is a cheap pub.",
    "The Punter is a pub.",
    "Blue bananas fly",
    "",
    "在河之洲",
]
FIELDS = (("name", "The Punter"), ("price", "cheap"), ("near", "Café Rouge"))
BEAMS = {"num_beams": 8, "n": 8}


def test_chrf_is_sacrebleus() -> None:
    expected = [[sacrebleu.sentence_chrf(one, [other]).score / 100 for other in TEXTS] for one in TEXTS]
    assert chrf(TEXTS) == pytest.approx(numpy.array(expected), abs=1e-9)


def test_bleu_is_sacrebleus_with_add_one_smoothing() -> None:
    texts = [text.casefold() for text in TEXTS[:4]]
    metric = sacrebleu.BLEU(smooth_method="add-k", smooth_value=1, effective_order=True)
    assert bleu(texts)[:3, :3] == pytest.approx(
        numpy.array(
            [[metric.sentence_score(one, [other]).score / 100 for other in texts[:3]] for one in texts[:3]]
        ),
        abs=1e-9,
    )
    assert bleu(texts)[3, 0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("utility", UTILITIES)
@given(texts=st.lists(st.text(max_size=12), min_size=1, max_size=6))
def test_a_text_is_most_like_itself(utility: str, texts: list[str]) -> None:
    alike = UTILITIES[utility](texts)
    assert alike.shape == (len(texts), len(texts))
    assert bool(((alike >= 0) & (alike <= 1 + 1e-9)).all())
    assert bool((alike.diagonal() >= alike.max(0) - 1e-9).all())


@pytest.mark.parametrize("utility", ["bleu", "chrf"])
def test_the_outlier_loses_and_copies_count(utility: str) -> None:
    assert consensus(TEXTS[:4], utility) in (0, 1)  # type: ignore[arg-type]
    assert consensus([TEXTS[0], *[TEXTS[3]] * 4], utility) == 1  # type: ignore[arg-type]
    assert consensus(TEXTS[:4], utility, weights=[0, 0, 0, 1]) == 3  # type: ignore[arg-type]
    assert consensus(TEXTS[:4], utility, among=[2, 3]) == 2  # type: ignore[arg-type]


def test_the_first_of_equals_is_taken() -> None:
    assert consensus(["a b", "a b", "a b"]) == 0
    assert consensus([""]) == 0


def test_what_is_asked_for_is_chosen() -> None:
    texts = [TEXTS[2], TEXTS[3], TEXTS[1], TEXTS[0], TEXTS[0]]
    samples = {"temperature": 1.0, "n": 5}
    assert choose(texts, FIELDS, Sampling(**samples)) == 0
    assert choose(texts, FIELDS, Sampling(**samples, choose="coverage")) == 2
    assert choose(texts, FIELDS, Sampling(**samples, choose="consensus")) == 3
    assert choose(texts, FIELDS, Sampling(**samples, choose="coverage+consensus")) == 3
    assert choose(texts, (), Sampling(**samples, choose="coverage")) == 0, "without fields the first"
    assert choose(["", ""], FIELDS, Sampling(**samples, choose="coverage+consensus")) == 0


def test_beams_count_by_their_probability() -> None:
    texts = [TEXTS[3], TEXTS[0], TEXTS[1]]
    sure, even = [-1.0, -30.0, -30.0], [-5.0, -5.0, -5.0]
    settings = Sampling(**BEAMS, choose="consensus")
    assert choose(texts, (), settings, sure) == 0
    assert choose(texts, (), settings, even) in (1, 2)
    drawn = Sampling(temperature=1.0, n=3, choose="consensus")
    assert choose(texts, (), drawn, sure) in (1, 2), "samples count alike"


def test_many_candidates_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bleu(TEXTS * 3)
    monkeypatch.setattr("openautoglm.engine.similarity._BLOCK_BYTES", 1)
    assert numpy.array_equal(bleu(TEXTS * 3), whole)
