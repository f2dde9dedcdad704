"""What a compression cost, as tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from openautoglm.pipeline.compressing.auto import Choice
from openautoglm.pipeline.compressing.measure import Measured
from openautoglm.pipeline.compressing.run import Outcome
from openautoglm.pipeline.units import bytes_text


def print_outcome(outcome: Outcome) -> None:
    """Print what was tried, the figures beside the parent's, and missed targets."""
    out = Console()
    if outcome.choice is not None:
        out.print(tried_table(outcome.choice))
        for reason in outcome.choice.reasons:
            out.print(f"  {reason}", markup=False, highlight=False)
    out.print(figures_table(outcome.parent, outcome.child))
    out.print(f"{outcome.kept:.4f} of {outcome.metric} is kept", markup=False, highlight=False)
    for missed in outcome.missed:
        out.print(f"missed: {missed}", markup=False, highlight=False)


def tried_table(choice: Choice) -> Table:
    """Everything that was tried; the chosen one is marked, and the Pareto front."""
    table = Table("", "candidate", "kept", "bundle", "memory", "tokens/s", "KL", "Pareto", title="tried", box=None)
    front = {one.name for one in choice.front}
    for one in choice.tried:
        measured = one.measured
        table.add_row("->" if one is choice.chosen else "", one.name, f"{one.kept:.3f}",
                      bytes_text(measured.size_bytes), bytes_text(measured.peak_bytes),
                      f"{measured.tokens_per_s['1']:.0f}",
                      "" if measured.kl is None else f"{measured.kl:.4f}", "yes" if one.name in front else "")
    return table


def figures_table(parent: Measured, child: Measured) -> Table:
    """The figures of both, side by side."""
    table = Table("", "parent", "compressed", "ratio", title="measured", box=None)

    def row(name: str, before: float, after: float, text: str = "{:.3f}") -> None:
        table.add_row(name, text.format(before), text.format(after), f"{after / before:.3f}" if before else "")

    for name, attribute in (("bundle", "size_bytes"), ("memory, peak", "peak_bytes"), ("weights", "weight_bytes")):
        before, after = (getattr(one, attribute) for one in (parent, child))
        table.add_row(name, bytes_text(before), bytes_text(after), f"{after / before:.3f}" if before else "")
    for batch in parent.tokens_per_s:
        row(f"tokens/s, batch {batch}", parent.tokens_per_s[batch], child.tokens_per_s[batch], "{:.0f}")
    for metric, value in parent.scores.items():
        row(metric, value, child.scores.get(metric, float("nan")))
    row("perplexity", parent.perplexity, child.perplexity)
    if child.kl is not None and child.agreement is not None:
        table.add_row("KL to the parent", "", f"{child.kl:.5f}", "")
        table.add_row("same likeliest token", "", f"{child.agreement:.4f}", "")
    return table
