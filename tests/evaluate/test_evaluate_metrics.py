"""Each metric against its library, against a hand calculation, and at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from openautoglm.core.errors import EvaluationError
from openautoglm.evaluate.base import Inputs, Likelihood
from openautoglm.evaluate.metrics.e2e_rouge_l import common_length, rouge_l, words
from openautoglm.evaluate.registry import METRICS
from openautoglm.evaluate.run import score
from openautoglm.evaluate.settings import EvaluateSettings

PREDICTIONS = ["the cat sat on the mat", "A dog, barking loudly .", "", "exactly this", "what is it ?"]
REFERENCES = [["the cat is on the mat", "there is a cat on the mat"], ["A dog barks loudly."],
              ["not empty", "x", "y z"],
              ["nothing alike", "exactly this"], ["is it what ?", "what was that ?"]]
TEXT = st.text(alphabet="ab cd.,", max_size=24)
CASES = st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=1, max_size=5)


def one(key: str, predictions: list[str] = PREDICTIONS, references: list[list[str]] = REFERENCES,
        **options: object) -> float:
    chosen = EvaluateSettings(metrics=(key,), bootstrap=0, **options)
    return score(predictions, references, settings=chosen)[key].value


@given(CASES)
@settings(max_examples=60, deadline=None)
def test_sacrebleu_metrics_equal_sacrebleu(cases: list[tuple[str, list[str]]]) -> None:
    from sacrebleu.metrics import BLEU, CHRF, TER

    predictions, references = [p for p, _ in cases], [r for _, r in cases]
    streams = Inputs(predictions, references).streams()
    for key, library in (("bleu", BLEU(force=True)), ("chrf", CHRF()), ("ter", TER())):
        expected = library.corpus_score(predictions, streams).score
        assert one(key, predictions, references) == pytest.approx(expected, abs=1e-9)


def test_sacrebleu_signature_and_name_tell_the_variant() -> None:
    chosen = EvaluateSettings(metrics=("bleu", "ter"), lowercase=True, tokenize="intl", bootstrap=0)
    bleu, ter = score(PREDICTIONS, REFERENCES, settings=chosen)
    assert bleu.name == "BLEU (lower-cased, intl, all references)"
    assert "nrefs:var|case:lc|eff:no|tok:intl|smooth:exp|version:" in bleu.signature
    assert ter.better == "lower"
    alone = score(["a b"], [["a c"]], settings=EvaluateSettings(metrics=("bleu",), bootstrap=0))
    assert alone["bleu"].name == "BLEU (cased, 13a, one reference)"


def test_rouge_variants_are_two_metrics() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    pairs = list(zip(PREDICTIONS, REFERENCES, strict=True))
    highest = [max(scorer.score(r, p)["rougeL"].fmeasure for r in rs) for p, rs in pairs]
    first = [scorer.score(rs[0], p)["rougeL"].fmeasure for p, rs in pairs]
    assert one("rouge_l") == pytest.approx(100 * np.mean(highest))
    assert one("rouge_l_first") == pytest.approx(100 * np.mean(first))
    assert METRICS["rouge_l"].measure(Inputs(PREDICTIONS, REFERENCES), EvaluateSettings()).name != \
        METRICS["rouge_l_first"].measure(Inputs(PREDICTIONS, REFERENCES), EvaluateSettings()).name


def test_rouge_l_sum_reads_lines_as_sentences() -> None:
    prediction, reference = ["b b b\na a a"], [["a a a\nb b b"]]
    assert one("rouge_lsum", prediction, reference) == pytest.approx(100.0)
    assert one("rouge_l", prediction, reference) == pytest.approx(50.0)


def test_e2e_rouge_l_takes_precision_and_recall_from_two_references() -> None:
    # "a b c d": precision 1 from the long reference, recall 1 from the short one
    assert rouge_l("abcd", ["abcdefgh", "ab"]) == pytest.approx(1.0)
    precision, recall = 0.5, 1.0
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l("abcd", ["ab"]) == pytest.approx(expected)
    assert rouge_l("abcd", ["xyz"]) == 0.0
    assert rouge_l("", ["xyz"]) == 0.0


def test_e2e_rouge_l_words_are_ptb_like() -> None:
    assert words("It's a family-friendly pub, isn't it? £20-25!") == [
        "it", "'s", "a", "family-friendly", "pub", "is", "n't", "it", "£", "20-25"]


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_common_length_equals_the_plain_table(left: list[str], right: list[str]) -> None:
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    assert common_length(left, right) == table[-1][-1]


def test_exact_match() -> None:
    assert one("exact_match") == pytest.approx(20.0)
    assert one("exact_match", ["Yes "], [["no", "yes"]]) == 0.0
    assert one("exact_match", ["Yes "], [["no", "yes"]], lowercase=True) == 100.0


def test_likelihood_metrics_by_hand() -> None:
    chosen = EvaluateSettings(metrics=("perplexity", "bits_per_byte"), bootstrap=100)
    likelihoods = [Likelihood(-3 * math.log(4), 3, 6), Likelihood(-1 * math.log(16), 1, 4)]
    scores = score(["", ""], [["a"], ["b"]], settings=chosen, likelihoods=likelihoods)
    assert scores["perplexity"].value == pytest.approx(4 ** (5 / 4))
    assert scores["bits_per_byte"].value == pytest.approx(1.0)
    with pytest.raises(EvaluationError, match="case 2"):
        score(["", ""], [["a"], ["b"]], settings=chosen,
              likelihoods=[likelihoods[0], Likelihood(math.nan, 1, 1)])
    with pytest.raises(EvaluationError, match="need log-likelihoods"):
        score([""], [["a"]], settings=chosen)


def test_slot_coverage_reads_the_record() -> None:
    fields = [(("name", "Blue Spice"), ("area", "city centre")), (("name", "Zizzi"),)]
    chosen = EvaluateSettings(metrics=("coverage",), bootstrap=0)
    scores = score(["Blue Spice is a pub.", "Zizzi."], [["x"], ["y"]], fields=fields, settings=chosen)
    assert scores["coverage"].value == pytest.approx(75.0)
    with pytest.raises(EvaluationError, match="fields"):
        score(["a"], [["b"]], settings=chosen)


def test_length_ratio_uses_the_closest_reference() -> None:
    assert one("length_ratio", ["a b c", "a"], [["a", "a b c d"], ["a b"]]) == pytest.approx(4 / 6)


def test_distinct_counts_kinds_over_tokens() -> None:
    assert one("distinct_1", ["a b a", "b c"], [["x"], ["x"]]) == pytest.approx(3 / 5)
    assert one("distinct_2", ["a b a", "a b c"], [["x"], ["x"]]) == pytest.approx(3 / 4)
    assert one("distinct_2", ["a"], [["x"]]) == 0.0


def test_chinese_needs_its_tokenisation() -> None:
    prediction, reference = ["床前明月光，疑是地上霜。"], [["床前看月光，疑是地上霜。"]]
    for tokenize in ("zh", "char"):
        scores = score(prediction, reference, settings=EvaluateSettings(tokenize=tokenize, bootstrap=0))
        assert 50 < scores["bleu"].value < 100
        assert scores["rouge_l"].value == pytest.approx(100 * 11 / 12)
        assert tokenize in scores["bleu"].name
        assert not scores.notes
    wrong = score(prediction, reference, settings=EvaluateSettings(bootstrap=0))
    assert wrong["rouge_l"].value == 0.0
    assert "set it to zh or char" in wrong.notes[0]


def test_unknown_metric_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="no metric 'blue'; there are bleu, chrf"):
        EvaluateSettings(metrics=("blue",))


def test_every_key_is_its_metrics_own() -> None:
    assert {key: metric.key for key, metric in METRICS.items()} == {key: key for key in METRICS}
