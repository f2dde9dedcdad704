"""The shape of a pruned model: the same for all layers, and one that the runtime and its quantised weights take."""

from __future__ import annotations

from typing import Literal

from openautoglm.compress.prune.settings import PruneSettings
from openautoglm.core.errors import CompressError
from openautoglm.models.spec import GlmSpec

HeadsBy = Literal["groups", "queries"]


def smaller_spec(origin: GlmSpec, settings: PruneSettings, share: float = 1.0) -> GlmSpec:
    """Return the spec that is left of `origin` once `share` of the asked removal is done.

    Counts are rounded to the nearest; that of channels to a multiple of ``settings.multiple``.

    Raises:
        CompressError: nothing would be left, or nothing removed.
    """
    heads, kv_heads = origin.heads, origin.kv_heads
    if heads_by(origin, settings) == "groups":
        kv_heads = _left(kv_heads, settings.head_share * share, "heads", "kv heads")
        heads = kv_heads * (origin.heads // origin.kv_heads)
    else:
        group = origin.heads // kv_heads
        heads = kv_heads * _left(group, settings.head_share * share, "heads", "query heads of each group")
    changes = {"heads": heads, "kv_heads": kv_heads, "ffn_size": _channels(origin, settings, share),
               "layers": _left(origin.layers, settings.layers * share, "layers", "layers")}
    spec = GlmSpec(**{**origin.model_dump(), **changes})
    if spec == origin and share == 1.0:
        raise CompressError(
            f"nothing would be removed: the shares round to none of {origin.heads} heads in {origin.kv_heads} groups, "
            f"{origin.ffn_size} channels in multiples of {settings.multiple}, {origin.layers} layers",
            where="sparsity", remedy="raise sparsity (or ffn, heads, layers), or lower multiple")
    return spec


def heads_by(origin: GlmSpec, settings: PruneSettings) -> HeadsBy:
    """Whether whole groups go, or query heads of each group."""
    if settings.heads_by != "auto":
        return settings.heads_by
    asked, group = settings.head_share, origin.heads // origin.kv_heads
    miss = {count: abs(min(round(asked * count), count - 1) / count - asked) for count in (origin.kv_heads, group)}
    return "groups" if miss[origin.kv_heads] <= miss[group] else "queries"


def _left(count: int, share: float, key: str, what: str) -> int:
    removed = round(count * share)
    if removed >= count:
        raise CompressError(f"nothing would be left of {count} {what}: {share:.0%} rounds to all of them", where=key,
                            remedy=f"lower {key} (or sparsity) to {1 - 1 / count:.2f} or less")
    return count - removed


def _channels(origin: GlmSpec, settings: PruneSettings, share: float) -> int:
    asked, multiple = settings.ffn_share * share, settings.multiple
    if not asked:
        return origin.ffn_size
    left = round(origin.ffn_size * (1 - asked) / multiple) * multiple
    if left == 0:
        raise CompressError(
            f"nothing would be left of {origin.ffn_size} channels: {1 - asked:.0%} of them round to no multiple of "
            f"{multiple}", where="ffn", remedy="lower ffn (or sparsity), or multiple")
    return min(left, origin.ffn_size)
