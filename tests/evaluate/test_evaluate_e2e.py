"""Published figures of the E2E NLG test set, reproduced from the data alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from openautoglm.evaluate.files import read_predictions_references
from openautoglm.evaluate.run import score
from openautoglm.evaluate.scores import Scores
from openautoglm.evaluate.settings import EvaluateSettings

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def references(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, ...]]:
    """The references of the 630 test records, read as an evaluation would."""
    dummy = tmp_path_factory.mktemp("e2e") / "predictions.txt"
    dummy.write_text("x\n" * 630, encoding="utf-8")
    return read_predictions_references(dummy, shared_data / "e2e-nlg" / "testset_w_refs.csv").references


@pytest.fixture(scope="module")
def human(references: list[tuple[str, ...]]) -> Scores:
    """The first human reference of each record against its others, where there are others."""
    several = [case for case in references if len(case) > 1]
    chosen = EvaluateSettings(metrics=("bleu", "rouge_l", "rouge_l_first", "e2e_rouge_l"), lowercase=True)
    return score([case[0] for case in several], [case[1:] for case in several], settings=chosen)


def test_the_file_holds_630_records_and_4693_references(references: list[tuple[str, ...]]) -> None:
    assert len(references) == 630
    assert sum(map(len, references)) == 4693


@pytest.mark.slow
def test_one_human_against_the_others_is_the_published_bleu(human: Scores) -> None:
    assert human.cases == 616
    assert human["bleu"].value == pytest.approx(60.46, abs=0.005)
    assert human["bleu"].name == "BLEU (lower-cased, 13a, all references)"
    low, high = human["bleu"].low, human["bleu"].high
    assert low is not None
    assert high is not None
    assert 57 < low < 60.46 < high < 64


@pytest.mark.slow
def test_three_rouge_l_are_three_figures(human: Scores) -> None:
    first, highest, challenge = (human[key].value for key in ("rouge_l_first", "rouge_l", "e2e_rouge_l"))
    assert 44 < first < 45
    assert 62 < highest < 63.5
    assert 63 < challenge < 65
