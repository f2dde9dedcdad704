"""Named architectures: 1 M to 1.5 B parameters to train from scratch, and the shapes of released GLMs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from openautoglm.core.errors import SpecError
from openautoglm.models.spec import GlmSpec


def _edge(vocab_size: int, **shape: Any) -> GlmSpec:
    """A shape like GLM-Edge: full rotary positions, no qkv bias."""
    return GlmSpec(vocab_size=vocab_size, **{"rotary_factor": 1.0, "qkv_bias": False, "tied": True, **shape})


_GLM4_IDS = {"pad_id": 151329, "eos_ids": (151329, 151336, 151338)}
_EDGE_IDS = {"pad_id": 59246, "eos_ids": (59246, 59253, 59255)}
_GLM4_9B = {
    "vocab_size": 151552,
    "hidden_size": 4096,
    "layers": 40,
    "heads": 32,
    "kv_heads": 2,
    "head_dim": 128,
    "ffn_size": 13696,
    **_GLM4_IDS,
}

SCRATCH: Mapping[str, GlmSpec] = MappingProxyType(
    {
        "micro": _edge(1024, hidden_size=128, layers=4, heads=4, kv_heads=2, head_dim=32, ffn_size=384),
        "tiny": _edge(2048, hidden_size=256, layers=4, heads=4, kv_heads=2, head_dim=64, ffn_size=640),
        "small": _edge(4096, hidden_size=384, layers=6, heads=6, kv_heads=2, head_dim=64, ffn_size=1024),
        "base": _edge(
            8000, hidden_size=512, layers=8, heads=8, kv_heads=2, head_dim=64, ffn_size=1408, tied=False
        ),
        "medium": _edge(16000, hidden_size=768, layers=14, heads=12, kv_heads=4, head_dim=64, ffn_size=2048),
        "large": _edge(32000, hidden_size=1024, layers=24, heads=16, kv_heads=4, head_dim=64, ffn_size=3072),
        "huge": _edge(
            59264,
            hidden_size=2048,
            layers=28,
            heads=16,
            kv_heads=4,
            head_dim=128,
            ffn_size=6144,
            max_positions=8192,
        ),
    }
)
"""Shapes to train from scratch, smallest first: about 1, 3, 11, 31, 100, 322 and 1,470 million parameters."""

RELEASED: Mapping[str, GlmSpec] = MappingProxyType(
    {
        "glm-4-9b": GlmSpec(**_GLM4_9B, rms_eps=1.5625e-07, max_positions=131072),
        "glm-4-0414": GlmSpec(**_GLM4_9B, family="glm4", max_positions=32768),
        "glm-edge-1.5b": _edge(
            59264,
            hidden_size=2048,
            layers=28,
            heads=16,
            kv_heads=4,
            head_dim=128,
            ffn_size=6144,
            max_positions=8192,
            **_EDGE_IDS,
        ),
        "glm-edge-4b": _edge(
            59264,
            hidden_size=3072,
            layers=40,
            heads=24,
            kv_heads=6,
            head_dim=128,
            ffn_size=8192,
            max_positions=8192,
            tied=False,
            **_EDGE_IDS,
        ),
    }
)
"""Shapes of released checkpoints. GLM-Edge-4B's positions are those of the 1.5B; nobody has checked them."""

PRESETS: Mapping[str, GlmSpec] = MappingProxyType({**SCRATCH, **RELEASED})

PASSES = 4
"""Passes over the data that a budget is planned for: repeating data up to about four times is nearly as good
as fresh data (Muennighoff et al. 2023, arXiv 2305.16264)."""

PARAMETERS_PER_TOKEN = 2.0
"""A model of more layer parameters than this, per token of the training set, learns the set by heart."""


def preset(name: str, *, vocab_size: int | None = None) -> GlmSpec:
    """Return the preset `name`; with `vocab_size`, for another vocabulary (special ids are then unset).

    Raises:
        SpecError: there is no such preset; the remedy names the nearest.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise SpecError(f"there is no model size {name!r}", remedy=f"{hint}use one of {', '.join(PRESETS)}")
    spec = PRESETS[name]
    return spec if vocab_size is None else spec.with_vocabulary(vocab_size, pad_id=None, eos_ids=())


class AutoSize(NamedTuple):
    """A chosen preset, the passes over the data that the budget allows it, and why it was chosen."""

    name: str
    spec: GlmSpec
    passes: float
    reason: str


def auto_spec(
    tokens: int,
    *,
    minutes: float,
    flops_per_s: float,
    parameters_max: int | None = None,
    memory_bytes: int | None = None,
    tokens_per_batch: int = 4096,
    vocab_size: int | None = None,
) -> AutoSize:
    """Choose the largest `SCRATCH` preset that the data and the budget carry.

    The rule: its layers hold at most `PARAMETERS_PER_TOKEN` parameters per training token, `PASSES` passes
    fit in `minutes`, and its parameters and training memory fit the bounds. ``micro`` is taken when nothing
    fits the data or the minutes.

    Args:
        tokens: tokens of the training set, one pass.
        flops_per_s: what training reaches on this machine, in operations per second (about 40 % of the bf16
            limit).
        vocab_size: size of the tokenizer when it is given; each preset's own otherwise.

    Raises:
        SpecError: not even the smallest preset fits `parameters_max` or `memory_bytes`.
    """
    chosen: AutoSize | None = None
    for name in SCRATCH:
        spec = preset(name, vocab_size=vocab_size)
        passes = minutes * 60 * flops_per_s / max(1, tokens * spec.training_flops_per_token())
        obstacle = ""
        if parameters_max is not None and spec.parameters > parameters_max:
            obstacle = f"has more than {parameters_max:,} parameters"
        elif memory_bytes is not None and spec.training_memory_bytes(tokens_per_batch) > memory_bytes:
            obstacle = f"trains in more than {memory_bytes / 2**30:.1f} GiB"
        elif chosen and spec.body_parameters > PARAMETERS_PER_TOKEN * tokens:
            obstacle = f"is too large for {tokens:,} training tokens"
        elif chosen and passes < PASSES:
            obstacle = f"reaches {passes:.1f} of {PASSES} passes in {minutes:g} minutes"
        if obstacle:
            break
        chosen = AutoSize(name, spec, passes, "no larger preset is known")
    else:
        name, obstacle = "", ""
    if chosen is None:
        raise SpecError(
            f"the smallest model ({name}) {obstacle}",
            where="budget",
            remedy="raise the bound on parameters or memory",
        )
    return chosen._replace(reason=f"{name} {obstacle}") if obstacle else chosen
