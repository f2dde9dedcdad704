"""What may be asked for, and the shapes that follow."""

from __future__ import annotations

import pytest
from prune_models import small_spec
from pydantic import ValidationError

from openautoglm.compress.prune.settings import PruneSettings
from openautoglm.compress.prune.shapes import heads_by, smaller_spec
from openautoglm.models.presets import PRESETS


@pytest.mark.parametrize(("changes", "match"), [
    ({"sparsity": 0.0}, "greater than 0"), ({"sparsity": 1.0}, "less than 1"), ({"ffn": -0.1}, "greater than"),
    ({"score": "sparsegpt"}, "chooses single weights"), ({"compare": "global"}, "does not go with form structured"),
    ({"form": "unstructured", "score": "wanda", "compare": "global"}, "inside a row or a matrix"),
    ({"form": "2:4", "steps": 2}, "in one step"), ({"form": "2:4", "ffn": 0.5}, "go with form structured"),
    ({"form": "unstructured", "compensate": True}, "goes with form structured"), ({"score": "best"}, "Input should"),
    ({"unknown": 1}, "Extra inputs"),
], ids=["zero", "all", "negative", "sparsegpt", "compare", "wanda-global", "steps", "targets", "compensate", "score",
        "unknown"])
def test_what_does_not_fit_together_is_refused(changes: dict, match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        PruneSettings(**changes)


def test_a_gradual_schedule_is_cubic() -> None:
    shares = [PruneSettings(steps=4).share_after(step) for step in range(1, 5)]
    assert shares == pytest.approx([0.578125, 0.875, 0.984375, 1.0])
    assert PruneSettings().share_after(1) == 1.0


@pytest.mark.parametrize(("heads", "kv_heads", "share", "by", "left"), [
    (4, 2, 0.4, "groups", (2, 1)), (32, 2, 0.4, "queries", (20, 2)), (8, 4, 0.25, "groups", (6, 3)),
    (6, 2, 0.33, "queries", (4, 2)), (4, 1, 0.5, "queries", (2, 1)), (4, 4, 0.5, "groups", (2, 2)),
], ids=["e2e", "glm-4-9b", "quarter", "third", "one-kv", "no-sharing"])
def test_heads_go_as_comes_nearest(heads: int, kv_heads: int, share: float, by: str, left: tuple[int, int]) -> None:
    spec, settings = small_spec(heads=heads, kv_heads=kv_heads), PruneSettings(heads=share, ffn=0.4)
    assert heads_by(spec, settings) == by
    smaller = smaller_spec(spec, settings)
    assert (smaller.heads, smaller.kv_heads) == left


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_released_shapes_stay_fit_for_groups(name: str) -> None:
    spec = PRESETS[name]
    smaller = smaller_spec(spec, PruneSettings(layers=0.25))
    assert smaller.ffn_size % 32 == 0
    assert smaller.ffn_size == pytest.approx(0.6 * spec.ffn_size, abs=16)
    assert smaller.layers == spec.layers - round(spec.layers / 4)
    assert smaller.body_parameters < 0.6 * spec.body_parameters
