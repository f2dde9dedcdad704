"""Cases, scores, intervals."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from openautoglm.core.errors import EvaluationError
from openautoglm.core.values import Example, Origin, Turn
from openautoglm.evaluate.base import of_mean, of_sums
from openautoglm.evaluate.bootstrap import resamples
from openautoglm.evaluate.run import Case, group_cases, run, score
from openautoglm.evaluate.settings import EvaluateSettings

QUICK = EvaluateSettings(metrics=("bleu", "exact_match", "distinct_1"), bootstrap=200)


def example(source: str, target: str, **more: object) -> Example:
    return Example(source, target, Origin("x.csv", 1), **more)


def test_group_cases_merges_by_source_and_turns() -> None:
    turns = (Turn("user", "hello"),)
    cases = group_cases([example("a", "1"), example("b", "2"), example("a", "3", fields=(("n", "v"),)),
                         example("a", "4", turns=turns)])
    assert cases == [Case("a", (), (), ("1", "3")), Case("b", (), (), ("2",)), Case("a", turns, (), ("4",))]


def test_group_cases_keeps_plain_text_apart() -> None:
    cases = group_cases([example("", "one"), example("", "two")])
    assert [case.references for case in cases] == [("one",), ("two",)]


def test_run_generates_and_scores_with_fields() -> None:
    cases = [Case("a", (), (("n", "red"),), ("red one",)), Case("b", (), (("n", "blue"),), ("blue two", "2"))]
    scores = run(cases, lambda given: ["red one" if case.source == "a" else "nothing" for case in given],
                 EvaluateSettings(metrics=("exact_match", "coverage"), bootstrap=0))
    assert scores.values() == {"exact_match": 50.0, "coverage": 50.0}
    with pytest.raises(EvaluationError, match="1 predictions but references for 2 cases"):
        run(cases, lambda given: ["x"], QUICK)


@pytest.mark.parametrize(("predictions", "references", "message"), [
    ([], [], "nothing to evaluate"),
    (["a"], [[]], "case 1: a case needs a list of at least one reference"),
    (["a"], ["abc"], "case 1: a case needs a list"),
    ([None], [["a"]], "case 1: predictions and references must be text"),
])
def test_what_does_not_fit_is_refused(predictions: list[str], references: list[list[str]],
                                      message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        score(predictions, references, settings=QUICK)


def test_default_metrics_follow_the_data() -> None:
    keys = set(score(["a b"], [["a b"]], settings=EvaluateSettings(bootstrap=0)).values())
    assert {"bleu", "chrf", "rouge_l", "e2e_rouge_l", "exact_match", "length_ratio"} <= keys
    assert not keys & {"coverage", "perplexity", "rouge_l_first", "ter"}
    assert "rouge_l_first" in score(["a b"], [["a b", "c"]], settings=EvaluateSettings(bootstrap=0))


def test_scores_as_table_and_json() -> None:
    scores = score(["a b c d", "x"], [["a b c d"], ["y"]], settings=QUICK)
    table = scores.table()
    assert "BLEU (cased, 13a, one reference)" in table
    assert "95% percentile bootstrap over cases, 200 resamples, seed 12345" in table
    again = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert again["scores"]["exact_match"]["value"] == 50.0
    assert again["scores"]["exact_match"]["low"] == 0.0
    assert "sacrebleu|" in again["scores"]["bleu"]["signature"]
    with pytest.raises(KeyError, match="measured were bleu"):
        scores["rouge_l"]


def test_notes_tell_of_empty_and_tokenised_predictions() -> None:
    scores = score(["", "a ."], [["a ."], ["b"]], settings=QUICK)
    assert scores.notes == ("1 of 2 predictions are empty",)
    assert "look tokenised" in score(["a b ."], [["a"]], settings=QUICK).notes[0]


def test_intervals_are_seeded_and_hold_the_figure() -> None:
    generator = np.random.default_rng(0)
    predictions = [" ".join(generator.choice(list("abcdef"), 8)) for _ in range(60)]
    references = [[" ".join(generator.choice(list("abcdef"), 8)) for _ in range(3)] for _ in range(60)]
    first = score(predictions, references, settings=QUICK)
    assert first == score(predictions, references, settings=QUICK)
    other = score(predictions, references, settings=QUICK.model_copy(update={"seed": 1}))
    assert other["bleu"].value == first["bleu"].value
    assert other["bleu"].low != first["bleu"].low
    for one in first:
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.value <= one.high


def test_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(3).normal(size=400)
    weights = np.concatenate(list(resamples(400, 4000, 5)))
    assert weights.shape == (4000, 400)
    assert (weights.sum(axis=1) == 400).all()
    figures = of_mean(list(values))(weights) / 100
    assert figures.std() == pytest.approx(values.std() / np.sqrt(400), rel=0.05)


def test_bootstrap_equals_recomputing_the_corpus() -> None:
    from sacrebleu.metrics import BLEU

    from openautoglm.evaluate.base import Inputs
    from openautoglm.evaluate.metrics.bleu import Bleu

    predictions = ["a b c d e", "b c d x", "q r s t", "a a"]
    references = [["a b c d f"], ["b c d e", "b"], ["q r s t"], ["b a", "a a a"]]
    under = Bleu().measure(Inputs(predictions, references), EvaluateSettings()).under
    drawn = [0, 0, 2, 1]
    repeated = Inputs([predictions[i] for i in drawn], [references[i] for i in drawn])
    expected = BLEU(force=True).corpus_score(list(repeated.predictions), repeated.streams()).score
    assert under(np.asarray([[2.0, 1.0, 1.0, 0.0]]))[0] == pytest.approx(expected)


def test_bootstrap_is_fast() -> None:
    generator = np.random.default_rng(1)
    under = of_sums(generator.integers(0, 20, size=(5000, 10)).tolist(), lambda sums: sums[:, 0] / sums[:, 1])
    started = time.perf_counter()
    figures = [under(weights) for weights in resamples(5000, 1000, 0)]
    assert sum(map(len, figures)) == 1000
    assert time.perf_counter() - started < 5.0
