"""The chapter on compression: both bundles side by side, and what `recipe: auto` tried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openautoglm.core.page import table, text
from openautoglm.pipeline.report.facts import RunFacts
from openautoglm.pipeline.units import bytes_text


def compression_chapter(facts: RunFacts) -> str:
    """What compression brought and cost; empty where the task does not ask for it."""
    found = facts.facts("compress")
    if not found:
        return ""
    missed = found["missed"]
    html = "".join(text(f"Missed: {sentence}.", kind="warn") for sentence in missed)
    html += text("The trained bundle, bundle/, is the result of this run." if missed else
                 "The compressed bundle, compressed/, is the result of this run; the trained one lies in bundle/.")
    if "parent" in found:
        html += text(f"{found['kept']:.4f} of {found['metric']} is kept, on {found['cases']:,} validation records.")
        html += table(("", "trained", "compressed", "ratio"), list(_rows(found["parent"], found["measured"])))
        html += text("Speed and memory are of a serving process on this machine. KL (nats a token) and the share of "
                     "equal likeliest tokens compare both models while they decode the validation texts.", kind="note")
    choice = found.get("choice")
    return html if choice is None else html + _tried(choice)


def _rows(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, Any, Any, Any]]:
    for name, key in (("bundle", "size_bytes"), ("memory of serving, peak", "peak_bytes")):
        if before[key]:
            yield name, bytes_text(before[key]), bytes_text(after[key]), _ratio(before[key], after[key])
    pairs = [(f"tokens/s, batch {batch}", rate, after["tokens_per_s"][batch])
             for batch, rate in before["tokens_per_s"].items()]
    pairs += [(key, value, after["scores"].get(key)) for key, value in before["scores"].items()]
    for name, old, new in (*pairs, ("perplexity", before["perplexity"], after["perplexity"])):
        yield name, f"{old:,.2f}", "" if new is None else f"{new:,.2f}", None if new is None else _ratio(old, new)
    yield "KL to the trained model", "", f"{after['kl']:.5f}", None
    yield "same likeliest token", "", f"{after['agreement']:.4f}", None


def _ratio(before: float, after: float) -> float | None:
    return after / before if before else None


def _tried(choice: dict[str, Any]) -> str:
    tried = choice["tried"]
    names = [one["name"] for one in tried]
    rows = [(one["name"], round(one["kept"], 4), bytes_text(one["size_bytes"]), bytes_text(one["peak_bytes"]),
             round(one["tokens_per_s"]["1"]), one["kl"], "yes" if one["pareto"] else "", "yes" if one["fits"] else "")
            for one in tried]
    html = "<h3>What was tried</h3>" + table(
        ("candidate", "kept", "bundle", "memory", "tokens/s", "KL", "Pareto front", "meets all targets"), rows,
        best=names.index(choice["chosen"]) if choice["chosen"] in names else None)
    return html + "".join(text(f"{reason}.") for reason in choice["reasons"])
