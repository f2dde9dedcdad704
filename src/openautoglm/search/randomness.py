"""The sampler's random state as JSON, so that a resumed search draws what an uninterrupted one would.

Optuna stores trials, not the state of its samplers. A sampler is a tree of objects with numpy generators
somewhere in it (TPE has two: its own and that of its random start). They are found by walking the attributes
of Optuna's objects; each is stored under its path of attribute names. Other paths, as another version of
Optuna may have, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from openautoglm.core.errors import SearchError

Generator = np.random.RandomState | np.random.Generator


def generators(thing: object, path: str = "sampler",
               seen: set[int] | None = None) -> Iterator[tuple[str, Generator]]:
    """Yield (path, numpy generator) of all generators that an Optuna object holds."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, np.random.RandomState | np.random.Generator):
        yield path, thing
    elif type(thing).__name__ == "LazyRandomState":
        yield from generators(thing.rng, f"{path}.rng", seen)  # type: ignore[attr-defined]
    elif type(thing).__module__.partition(".")[0] == "optuna":
        for name, value in sorted(getattr(thing, "__dict__", {}).items()):
            yield from generators(value, f"{path}.{name}", seen)


def dump(sampler: object) -> dict[str, Any]:
    """Return the states of a sampler's generators as plain containers. SearchError if it has none."""
    states = {path: _plain(_state(generator)) for path, generator in generators(sampler)}
    if not states:
        raise SearchError(f"no random generator was found in {type(sampler).__name__}: it cannot resume")
    return states


def restore(sampler: object, states: Mapping[str, Any]) -> None:
    """Set a sampler's generators to dumped states. SearchError if their paths differ."""
    found = dict(generators(sampler))
    if found.keys() != states.keys():
        raise SearchError(f"the stored random state is of {sorted(states)}, the sampler has {sorted(found)}",
                          remedy="resume with the version of Optuna that began the search, or start anew")
    for path, generator in found.items():
        if isinstance(generator, np.random.RandomState):
            generator.set_state(_rich(states[path]))
        else:
            generator.bit_generator.state = _rich(states[path])


def _state(generator: Generator) -> Any:
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.bit_generator.state


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "hex": value.tobytes().hex()}
    return value.item() if isinstance(value, np.generic) else value


def _rich(value: Any) -> Any:
    if isinstance(value, Mapping) and value.keys() == {"dtype", "hex"}:
        return np.frombuffer(bytes.fromhex(value["hex"]), dtype=np.dtype(value["dtype"])).copy()
    return {key: _rich(item) for key, item in value.items()} if isinstance(value, Mapping) else value
