"""Space, brackets, random state: each alone."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.pruners import HyperbandPruner
from optuna.samplers import RandomSampler, TPESampler

from openautoglm.core.errors import SearchError
from openautoglm.search import randomness
from openautoglm.search.fidelity import (
    NO_BRACKET,
    TokenHyperband,
    affordable_brackets,
    bracket_count,
)
from openautoglm.search.settings import Override, SearchSettings
from openautoglm.search.space import Choice, Derived, Fixed, Float, Int, Space

SPACE = Space({
    "lr": Float(1e-4, 1e-1, log=True), "layers": Int(2, 9, step=2), "act": Choice(("silu", "gelu"))})


def test_overrides_of_every_form() -> None:
    given_by_user = SearchSettings(space={
        "lr": [1e-3, 1e-2], "layers": 4, "act": ["silu", "relu", "tanh"]}).space
    assert SPACE.override(given_by_user).dims == {
        "lr": Float(1e-3, 1e-2, log=True), "layers": Fixed(4), "act": Choice(("silu", "relu", "tanh"))}
    again = SPACE.override({"layers": Override(choices=(2, 8)), "lr": Override(low=0.01, log=False)})
    assert again.dims["layers"] == Choice((2, 8))
    assert again.dims["lr"] == Float(0.01, 0.1)
    assert SPACE.override({"layers": (2, 4, 8)}).dims["layers"] == Choice((2, 4, 8))
    assert SPACE.override({"act": Override(low=0, high=3)}).dims["act"] == Int(0, 3)


def test_yaml_types_survive_the_settings() -> None:
    space = SearchSettings(space={"a": 4, "b": 0.5, "c": True, "d": "x", "e": [1, 2]}).space
    assert [type(value) for value in space.values()] == [int, float, bool, str, tuple]
    assert [type(value) for value in space["e"]] == [int, int]  # type: ignore[union-attr]


@pytest.mark.parametrize(("overrides", "message"), [
    ({"layer": 4}, r"search\.space\.layer: there is no such dimension\n  remedy: did you mean layers\?"),
    ({"lr": (1.0, 0.1)}, r"search\.space\.lr: low 1\.0 is above high 0\.1"),
    ({"lr": (0.0, 0.1)}, "must begin above 0"),
    ({"layers": (1.5, 4.0)}, "must be whole numbers"),
    ({"act": ("silu", "silu")}, "stands twice"),
    ({"act": Override(low=1)}, "low and high are needed"),
    ({"lr": Override(step=2)}, "step is for whole numbers"),
    ({"lr": Override(low=1, choices=(1,))}, "cannot stand beside"),
    ({"lr": (1.0, float("inf"))}, "must be finite"),
])
def test_faulty_overrides_are_named(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        SPACE.override(overrides)  # type: ignore[arg-type]


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(SearchError, match="no dimensions"):
        Space({})


@given(st.floats(0.0, 1.0), st.sampled_from([1, 2, 6, 12]))
def test_a_share_always_picks_a_valid_option(share: float, heads: int) -> None:
    space = Space({
        "heads": Choice((1, 2, 6, 12)),
        "kv": Derived(lambda point: [n for n in range(1, 13) if int(point["heads"]) % n == 0])})
    point = space.point({"heads": heads, "kv": share})
    assert heads % int(point["kv"]) == 0


def test_int_range_keeps_to_its_steps() -> None:
    assert SPACE.distributions()["layers"].high == 8  # type: ignore[attr-defined]


def hyperband(interrupted: list[int]) -> TokenHyperband:
    return TokenHyperband(min_tokens=100, max_tokens=2700, reduction_factor=3, brackets=4,
                          interrupted=interrupted)


def brackets(pruner: HyperbandPruner, numbers: range) -> list[int]:
    study = optuna.create_study(study_name="s", pruner=pruner)
    trials = [optuna.trial.create_trial(value=0.0) for _ in numbers]
    for trial, number in zip(trials, numbers, strict=True):
        trial.number = number
    return [pruner._get_bracket_id(study, trial) for trial in trials]


def test_brackets_are_optunas_without_interruptions() -> None:
    plain = HyperbandPruner(min_resource=100, max_resource=2700, reduction_factor=3)
    plain._try_initialization(optuna.create_study())
    assert bracket_count(100, 2700, 3) == 4
    expected = brackets(plain, range(60))
    assert len(set(expected)) == 4
    assert brackets(hyperband([]), range(60)) == expected


@given(st.sets(st.integers(0, 39), max_size=8))
def test_interrupted_trials_shift_no_bracket(interrupted: set[int]) -> None:
    pruner = hyperband([])
    for number in sorted(interrupted, reverse=True):
        pruner.interrupt(number)
    found = brackets(pruner, range(40))
    assert {found[number] for number in interrupted} <= {NO_BRACKET}
    assert [b for number, b in enumerate(found) if number not in interrupted] == \
        brackets(hyperband([]), range(40 - len(interrupted)))


def test_brackets_have_twice_their_start_up_trials() -> None:
    found = [affordable_brackets(trials, 10, 4) for trials in (None, 5, 39, 40, 79, 1000)]
    assert found == [1, 1, 1, 2, 3, 4]


def test_random_state_round_trips_through_json() -> None:
    import json

    first, second = TPESampler(seed=1), TPESampler(seed=2)
    paths = [path for path, _ in randomness.generators(first)]
    assert paths == ["sampler._random_sampler._rng.rng", "sampler._rng.rng"]
    for _, generator in randomness.generators(first):
        generator.normal(size=3)
    randomness.restore(second, json.loads(json.dumps(randomness.dump(first))))
    for (_, a), (_, b) in zip(randomness.generators(first), randomness.generators(second), strict=True):
        assert a.normal(size=5).tolist() == b.normal(size=5).tolist()


def test_new_numpy_generators_are_stored_too() -> None:
    class Sampler:
        def __init__(self, seed: int) -> None:
            self.rng = np.random.default_rng(seed)

    Sampler.__module__ = "optuna.samplers.newer"
    first, second = Sampler(1), Sampler(2)
    randomness.restore(second, randomness.dump(first))
    assert first.rng.random() == second.rng.random()


def test_a_sampler_of_other_paths_is_refused() -> None:
    with pytest.raises(SearchError, match="the stored random state is of"):
        randomness.restore(RandomSampler(seed=0), randomness.dump(TPESampler(seed=0)))
    with pytest.raises(SearchError, match="no random generator"):
        randomness.dump(object())
