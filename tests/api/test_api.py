"""The public API: a trainer from a mapping, export, load and generate."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import openautoglm
from openautoglm import AutoTrainer, load
from openautoglm.core.errors import GenerationError, TaskError
from openautoglm.core.files import read_json
from tiny_task import write_task


def test_all_is_what_the_package_offers() -> None:
    assert set(openautoglm.__all__) == {"AsyncEngine", "AutoTrainer", "Engine", "Pruner", "__version__", "load",
                                        "open_engine"}
    for name in openautoglm.__all__:
        assert getattr(openautoglm, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        openautoglm.nothing  # noqa: B018


def test_a_faulty_mapping_is_refused() -> None:
    with pytest.raises(TaskError, match="did you mean train"):
        AutoTrainer(config_path={"data": {"trian": "x"}})


@pytest.mark.slow
def test_from_a_mapping_to_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = yaml.safe_load(write_task(tmp_path).read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    trainer = AutoTrainer(config_path=value, output="here")
    assert trainer.folder == tmp_path / "here"
    assert trainer.search() is None
    archive = trainer.export("best.zip")  # trains and evaluates, since that is not done yet
    assert read_json(tmp_path / "here/evaluate/scores.json") == trainer.evaluate()
    model = load(archive)
    one = model.generate("Alfa | Thai | hill | dear", max_new_tokens=6)
    record = {"name": "Alfa", "food": "Thai", "area": "hill", "price": "dear"}
    assert model.generate([record, record], max_new_tokens=6) == [one, one]
    assert load(trainer.export("best.pkl")).generate(record, max_new_tokens=6) == one
    assert load(trainer.export("best_model")).generate(record, max_new_tokens=6) == one
    with pytest.raises(GenerationError):
        model.generate({"name": "Alfa"})
    with pytest.raises(GenerationError, match="max_new_tokens"):
        model.generate("x", max_new_tokens=0)
