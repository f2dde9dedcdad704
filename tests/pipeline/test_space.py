"""The space around a plan: valid points, fixed dimensions."""

from __future__ import annotations

import random
from typing import Any

import pytest

from openautoglm.pipeline.facts import DataFacts, MachineFacts
from openautoglm.pipeline.plan import Plan, resolve
from openautoglm.pipeline.space import plan_at, space_of, with_vocabulary
from openautoglm.pipeline.task import Task, make_task
from openautoglm.search.space import Choice, Derived, Fixed, Float, Int, Space

DATA = DataFacts(train_rows=5_000, valid_rows=300, train_tokens=300_000, target_tokens=150_000, longest=90, overlong=0,
                 vocab_size=512)


def planned(**sections: Any) -> tuple[Task, Plan]:
    task = make_task({"data": {"train": "a.csv", "source": "s", "target": "t"}, **sections})
    machine = MachineFacts(memory_bytes=10**10, flops_per_s=1e11)
    return task, resolve(task, DATA, machine, pad_id=0, eos_ids=(1,))


def draw(space: Space, chance: random.Random) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for name, dim in space.dims.items():
        if isinstance(dim, Float):
            drawn[name] = chance.uniform(dim.low, dim.high)
        elif isinstance(dim, Int):
            drawn[name] = chance.randrange(dim.low, dim.high + 1, dim.step)
        elif isinstance(dim, Choice):
            drawn[name] = chance.choice(dim.values)
        elif isinstance(dim, Derived):
            drawn[name] = chance.random()
    return space.point(drawn)


@pytest.mark.parametrize("size", ["micro", "tiny", "small", "base"])
def test_every_point_is_a_model(size: str) -> None:
    task, plan = planned(model={"size": size})
    space, chance = space_of(task, plan), random.Random(0)
    for _ in range(200):
        point = draw(space, chance)
        found = with_vocabulary(plan_at(plan, point), int(point["vocab_size"]), pad_id=0, eos_ids=(1,))
        assert found.spec.layers == point["layers"]
        assert found.spec.hidden_size == found.spec.heads * found.spec.head_dim
        assert found.train.lr == point["lr"]
        assert found.dropout == point["dropout"]


def test_what_the_task_sets_is_not_searched() -> None:
    task, plan = planned(model={"size": "tiny", "layers": 3, "dropout": 0.0}, train={"lr": 1e-3},
                         tokenizer={"vocab_size": 512})
    dims = space_of(task, plan).dims
    for name, value in (("layers", 3), ("dropout", 0.0), ("lr", 1e-3), ("vocab_size", 512)):
        assert dims[name] == Fixed(value)
    assert "batch" in space_of(task, plan).searched
