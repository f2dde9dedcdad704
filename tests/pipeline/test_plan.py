"""From one dial to every setting; what is written wins."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.core.errors import SpecError, TaskError
from openautoglm.models.presets import preset
from openautoglm.pipeline.facts import DataFacts, MachineFacts
from openautoglm.pipeline.plan import Plan, auto_vocabulary, resolve, shaped
from openautoglm.pipeline.task import make_task

E2E = DataFacts(train_rows=42_000, valid_rows=4_600, train_tokens=3_200_000, target_tokens=1_200_000, longest=150,
                overlong=0, vocab_size=2048)
MACHINE = MachineFacts(memory_bytes=8 * 10**9, flops_per_s=1e11)


def plan(data: DataFacts = E2E, machine: MachineFacts = MACHINE, **sections: Any) -> Plan:
    task = make_task({"data": {"train": "a.csv", "source": "s", "target": "t"}, **sections})
    return resolve(task, data, machine, pad_id=5, eos_ids=(1,))


def test_minutes_alone_set_everything() -> None:
    short, long = plan(budget={"minutes": 5}), plan(budget={"minutes": 50})
    assert short.spec.parameters < long.spec.parameters
    for found in (short, long):
        assert found.train.passes is not None
        assert found.train.minutes is not None
        assert (found.spec.pad_id, found.spec.eos_ids) == (5, (1,))
        assert found.search.trials == 0
        assert {"model.size", "train.passes", "train.lr"} <= found.reasons.keys()


def test_what_is_written_wins() -> None:
    found = plan(model={"size": "tiny", "layers": 2, "dropout": 0.3}, train={"passes": 2, "lr": 0.001, "batch": 8},
                 seed=7)
    assert (found.spec.layers, found.spec.hidden_size, found.dropout) == (2, 256, 0.3)
    assert (found.train.passes, found.train.lr, found.train.batch) == (2, 0.001, 8)
    assert found.train.minutes is None
    assert found.train.seed == 7
    assert not {"train.lr", "train.batch", "model.dropout"} & found.reasons.keys()


def test_small_data_gets_small_batches_and_more_passes() -> None:
    small = DataFacts(train_rows=300, valid_rows=20, train_tokens=15_000, target_tokens=8_000, longest=60, overlong=0,
                      vocab_size=512)
    found = plan(small, budget={"minutes": 60 * 24})
    assert found.train.batch == 8
    assert found.train.passes is not None
    assert found.train.passes > plan(budget={"minutes": 60 * 24}).train.passes


def test_the_clock_ends_a_run_whose_passes_are_left_open() -> None:
    found = plan(budget={"minutes": 5}).train
    assert (found.passes, found.minutes) == (8.0, 5.0)
    assert (found.best_by, found.ema_decay) == ("valid_loss", 0.999)


def test_search_runs_where_it_was_asked_for() -> None:
    assert plan(budget={"minutes": 10, "trials": 4}).search.trials == 4
    assert plan(budget={"minutes": 120}).search.minutes == 60
    assert plan(budget={"minutes": 120, "trials": 0}).search.trials == 0
    assert plan(budget={"minutes": 120}, search={"enabled": False}).search.trials == 0
    assert plan(search={"share": 0.2}, budget={"minutes": 10}).search.minutes == pytest.approx(2)


def test_bounds_are_kept() -> None:
    assert plan(budget={"minutes": 600, "parameters": "4M"}).spec.parameters <= 4_000_000
    with pytest.raises(TaskError, match="the budget allows"):
        plan(model={"size": "base"}, budget={"parameters": "4M"})
    with pytest.raises(SpecError, match="smallest model"):
        plan(budget={"parameters": 1000})


def test_a_shape_that_cannot_be_is_named() -> None:
    with pytest.raises(TaskError, match="kv heads"):
        plan(model={"size": "tiny", "heads": 4, "kv_heads": 3})


@given(hidden=st.sampled_from([32, 64, 96, 256, 320]), heads=st.sampled_from([1, 2, 4, 8]))
def test_widths_follow_the_shape(hidden: int, heads: int) -> None:
    spec = shaped(preset("tiny"), {"hidden_size": hidden, "heads": heads})
    assert spec.head_dim == hidden // heads // 2 * 2
    assert heads % spec.kv_heads == 0
    assert spec.ffn_size == pytest.approx(2.5 * hidden, abs=8)


@given(st.integers(0, 10**12))
def test_vocabulary_grows_with_the_text(size: int) -> None:
    found = auto_vocabulary(size)
    assert 512 <= found <= 32_768
    assert found <= auto_vocabulary(size * 2 + 1)


def test_vocabulary_of_e2e() -> None:
    assert auto_vocabulary(9_000_000) == 2048
