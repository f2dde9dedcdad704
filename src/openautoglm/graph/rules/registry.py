"""All rules in the order in which they are applied; those of plug-ins come after ours."""

from __future__ import annotations

from openautoglm.core.errors import GraphError
from openautoglm.core.plugins import load_plugins
from openautoglm.graph.rewrite import Rule
from openautoglm.graph.rules.add_norm import fuse_add_norm
from openautoglm.graph.rules.dead_code import dead_code
from openautoglm.graph.rules.fold_norm import fold_norm_weight
from openautoglm.graph.rules.fold_sources import fold_sources
from openautoglm.graph.rules.fuse_linears import fuse_gate_up, fuse_qkv
from openautoglm.graph.rules.gather_early import gather_early
from openautoglm.graph.rules.merge_twins import merge_twins
from openautoglm.graph.rules.norm_linear import fuse_norm_linear
from openautoglm.graph.rules.quantise_rows import add_norm_quantise, norm_quantise, quantise_rows, silu_mul_quantise
from openautoglm.graph.rules.silu_mul import silu_mul, silu_mul_of_two

GROUP = "openautoglm.rules"
"""Entry points of plug-in rules; each names a `Rule`, used when it is asked for."""
STANDARD: tuple[Rule, ...] = (
    gather_early, merge_twins, fuse_qkv, fuse_gate_up, silu_mul, silu_mul_of_two, fuse_add_norm, fold_sources,
    dead_code)
"""Good for every target: the result stays the same but for rounding."""
INT8_ROWS: tuple[Rule, ...] = (quantise_rows, norm_quantise, add_norm_quantise, silu_mul_quantise)
"""For kernels that multiply int8 by int8, after `rules.quantise.quantise`: activations are quantised too."""
OPTIONAL: tuple[Rule, ...] = (fold_norm_weight, fuse_norm_linear)
"""Sometimes of use, applied when they are named; before the standard ones."""


def standard_rules(*extra: str) -> tuple[Rule, ...]:
    """Return the standard rules and, by their names, optional ones or those of plug-ins.

    Raises:
        GraphError: no rule has that name.
        PluginError: a plug-in does not load.
    """
    known: dict[str, Rule] = {rule.name: rule for rule in OPTIONAL}
    if set(extra) - set(known):
        known |= load_plugins(GROUP)
    if unknown := [name for name in extra if name not in known]:
        raise GraphError(f"there is no rule {unknown[0]!r}", remedy=f"choose from {', '.join(sorted(known))}")
    before = [rule for rule in OPTIONAL if rule.name in extra]
    return (*before, *STANDARD, *(known[name] for name in extra if known[name] not in before))
