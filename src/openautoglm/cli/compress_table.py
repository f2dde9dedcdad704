"""What a compression cost, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from openautoglm.pipeline.compressing.measure import Measured
from openautoglm.pipeline.compressing.run import Outcome
from openautoglm.pipeline.units import bytes_text


def print_outcome(outcome: Outcome) -> None:
    """Print what came of a compression."""
    print_facts(outcome.bundle.card.scores["compression"])


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print what was tried, the figures beside the parent's, and missed targets, as the card tells them.

    Args:
        facts: ``scores.compression`` of a card; without figures where none of what was tried met all targets.
    """
    out = Console()
    if "choice" in facts:
        out.print(tried_table(facts["choice"]))
        for reason in facts["choice"]["reasons"] if "parent" in facts else ():
            out.print(f"  {reason}", markup=False, highlight=False)
    if "parent" in facts:
        out.print(figures_table(*(Measured.model_validate(facts[name]) for name in ("parent", "measured"))))
        out.print(f"{facts['kept']:.4f} of {facts['metric']} is kept", markup=False, highlight=False)
    for missed in facts["missed"]:
        out.print(f"missed: {missed}", markup=False, highlight=False)


def tried_table(choice: Mapping[str, Any]) -> Table:
    """Everything that was tried; the chosen one is marked, and the Pareto front."""
    table = Table("", "candidate", "kept", "bundle", "memory", "tokens/s", "KL", "Pareto", title="tried", box=None)
    for one in choice["tried"]:
        table.add_row("->" if one["name"] == choice["chosen"] else "", one["name"], f"{one['kept']:.3f}",
                      bytes_text(one["size_bytes"]), bytes_text(one["peak_bytes"]), f"{one['tokens_per_s']['1']:.0f}",
                      "" if one["kl"] is None else f"{one['kl']:.4f}", "yes" if one["pareto"] else "")
    return table


def figures_table(parent: Measured, child: Measured) -> Table:
    """The figures of both, side by side."""
    table = Table("", "parent", "compressed", "ratio", title="measured", box=None)

    def row(name: str, before: float, after: float, text: str = "{:.3f}") -> None:
        table.add_row(name, text.format(before), text.format(after), f"{after / before:.3f}" if before else "")

    for name, attribute in (("bundle", "size_bytes"), ("memory, peak", "peak_bytes"), ("weights", "weight_bytes")):
        before, after = (getattr(one, attribute) for one in (parent, child))
        table.add_row(name, bytes_text(before) if before else "", bytes_text(after),
                      f"{after / before:.3f}" if before else "")
    for batch, rate in child.tokens_per_s.items():
        if batch in parent.tokens_per_s:
            row(f"tokens/s, batch {batch}", parent.tokens_per_s[batch], rate, "{:.0f}")
        else:
            table.add_row(f"tokens/s, batch {batch}", "", f"{rate:.0f}", "")
    for metric, value in parent.scores.items():
        row(metric, value, child.scores.get(metric, float("nan")))
    row("perplexity", parent.perplexity, child.perplexity)
    if child.kl is not None and child.agreement is not None:
        table.add_row("KL to the parent", "", f"{child.kl:.5f}", "")
        table.add_row("same likeliest token", "", f"{child.agreement:.4f}", "")
    return table
