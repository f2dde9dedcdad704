"""All rules, and the order in which they are applied for a target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from openautoglm.core.errors import GraphError
from openautoglm.core.plugins import load_plugins
from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rewrite import Rule
from openautoglm.graph.rules.add_norm import fuse_add_norm
from openautoglm.graph.rules.dead_code import dead_code
from openautoglm.graph.rules.fold_norm import fold_norm_weight
from openautoglm.graph.rules.fold_sources import fold_sources
from openautoglm.graph.rules.fuse_linears import fuse_gate_up, fuse_qkv
from openautoglm.graph.rules.gather_early import gather_early
from openautoglm.graph.rules.merge_twins import merge_twins
from openautoglm.graph.rules.norm_linear import fuse_norm_linear
from openautoglm.graph.rules.quantise import QuantiseLinears
from openautoglm.graph.rules.quantise_rows import add_norm_quantise, norm_quantise, quantise_rows, silu_mul_quantise
from openautoglm.graph.rules.silu_mul import silu_mul, silu_mul_of_two
from openautoglm.graph.rules.stored import StoredForms
from openautoglm.models.quantised_layout import Form

GROUP = "openautoglm.rules"
"""Entry points of plug-in rules; each names a `Rule`, used when it is asked for."""
_BEFORE: tuple[Rule, ...] = (gather_early, merge_twins)
_AFTER: tuple[Rule, ...] = (
    fuse_qkv, fuse_gate_up, silu_mul, silu_mul_of_two, fuse_add_norm, fold_sources, dead_code)
STANDARD: tuple[Rule, ...] = (*_BEFORE, *_AFTER)
"""Good for every target: the result stays the same but for rounding."""
INT8_ROWS: tuple[Rule, ...] = (quantise_rows, norm_quantise, add_norm_quantise, silu_mul_quantise)
"""For kernels that multiply int8 by int8, after linears were quantised: activations are quantised too."""
OPTIONAL: tuple[Rule, ...] = (fold_norm_weight, fuse_norm_linear)
"""Sometimes of use, applied when they are named."""
_INT8_TARGETS = frozenset({"native"})
"""Families of targets whose kernels multiply int8 by int8."""


def rules_for(family: str, quantise: Quantisation | None = None, extra: Iterable[str] = (),
              stored: Mapping[str, Form] | None = None) -> tuple[Rule, ...]:
    """Return the standard rewrite for a target, in the order in which `rewrite` shall apply it.

    Args:
        family: of the target: ``native``, ``torch``; what stands before its colon.
        quantise: quantise linears so; on targets that multiply int8 by int8 their activations too, once for all readers
            and in the operator before if it can.
        extra: names of optional rules or those of plug-ins; they come before the rules that fuse, so they see plain
            operators, and in later rounds what was fused.
        stored: forms of matrices that the checkpoint holds quantised: they keep them.

    Raises:
        GraphError: no rule has that name, or a quantised checkpoint shall be quantised.
        PluginError: a plug-in does not load.
    """
    if quantise is not None and stored:
        raise GraphError("the checkpoint holds quantised weights already, they are not quantised again",
                         where="quantise", remedy="leave it out, or compress the model that it was made of anew")
    first: tuple[Rule, ...] = (StoredForms(stored),) if stored else ()
    last: tuple[Rule, ...] = () if quantise is None else (QuantiseLinears(quantise),)
    if (first or last) and family in _INT8_TARGETS:
        last += INT8_ROWS
    return (*first, *_BEFORE, *_named(tuple(extra)), *_AFTER, *last)


def standard_rules(*extra: str) -> tuple[Rule, ...]:
    """The rules that are good for every target, and by their names others; see `rules_for`."""
    return rules_for("", extra=extra)


def _named(names: tuple[str, ...]) -> Iterator[Rule]:
    known: dict[str, Rule] = {rule.name: rule for rule in OPTIONAL}
    if set(names) - set(known):
        known |= load_plugins(GROUP)
    if unknown := [name for name in names if name not in known]:
        raise GraphError(f"there is no rule {unknown[0]!r}", remedy=f"choose from {', '.join(sorted(known))}")
    return (known[name] for name in names)
