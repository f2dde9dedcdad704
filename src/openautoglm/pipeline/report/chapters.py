"""The chapters of the report; each takes the facts of a run and gives HTML, empty where there is nothing to say."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from openautoglm.core.page import code, folded, plots, table, text, tiles
from openautoglm.core.svg import Series, bar_chart, histogram, line_chart
from openautoglm.pipeline.report.facts import RunFacts
from openautoglm.pipeline.units import minutes_text

_MOST_POINTS = 600
_SHOWN_FIRST = ("bleu", "rouge_l", "chrf", "coverage")


def summary_chapter(facts: RunFacts) -> str:
    """The run in a row of figures."""
    found: list[tuple[str, Any]] = []
    if facts.quality:
        found.append(("training rows", facts.quality["rows_out"].get("train", 0)))
    training = facts.facts("train")
    if training:
        found.append(("parameters", training["parameters"]))
    if facts.scores:
        chosen = facts.scores["chosen"]
        split = "test" if "test" in facts.scores["splits"] else next(iter(facts.scores["splits"]))
        scores = facts.scores["splits"][split][chosen]["scores"]
        found += [(f"{scores[key]['name'].split(' (')[0]}, {split}", scores[key]["value"])
                  for key in _SHOWN_FIRST if key in scores]
    stages = facts.state.get("stages", {})
    seconds = sum(stage.get("seconds", 0.0) for name, stage in stages.items() if name != "report")
    found.append(("in all", minutes_text(seconds / 60)))
    rows = [(name, "finished" if "finished_at" in stage else "not finished",
             minutes_text(stage["seconds"] / 60) if "seconds" in stage else "")
            for name, stage in stages.items() if name != "report"]
    files = facts.facts("export").get("files", {})
    return (tiles(found) + folded("stages", table(("stage", "state", "time"), rows))
            + (folded("files of the bundle", table(("file", "bytes"), list(files.items()))) if files else ""))


def data_chapter(facts: RunFacts) -> str:
    """Rows in and out, what the rules did, duplicates, leaks, lengths."""
    quality = facts.quality
    if not quality:
        return ""
    splits = list(quality["rows_read"])
    html = table(("split", "rows read", "rows kept"),
                 [(split, quality["rows_read"].get(split, 0), quality["rows_out"].get(split, 0))
                  for split in dict.fromkeys([*splits, *quality["rows_out"]])])
    html += "".join(text(warning, kind="warn") for warning in quality["warnings"])
    rules = [(rule["rule"], rule["changed"], rule["dropped"]) for rule in quality["rules"]]
    if rules:
        html += "<h3>Cleaning rules</h3>" + table(("rule", "rows changed", "rows dropped"), rules)
    found = [(f"rejected: {reason}", count) for reason, count in quality["rejects"]["reasons"].items()]
    found += [(f"{fault['fault']} ({fault['side']})", sum(fault["rows"].values())) for fault in quality["faults"]]
    for kind in ("exact", "near"):
        rows = sum(quality[f"{kind}_duplicates"]["rows"].values())
        found.append((f"{kind} duplicates: {quality[f'{kind}_duplicates']['action']}", rows))
    found += [(f"leaks, {leak['kind'].replace('_', ' ')}: {' and '.join(leak['between'])}", leak["texts"])
              for leak in quality["leaks"]]
    html += "<h3>Faults found</h3>" + table(
        ("what", "rows or texts"), [(what, count) for what, count in found if count]
    )
    return html + plots(_length_plots(quality)) + '<p class="note">The whole account, with examples of each fault: ' \
        '<code>data/quality.html</code> in the run folder.</p>'


def _length_plots(quality: dict[str, Any]) -> list[str]:
    charts = []
    for measure, by_split in quality["lengths"].items():
        edges = quality["length_edges"].get(measure)
        if not edges:
            continue
        series = []
        for split, lengths in by_split.items():
            rows = max(1, sum(lengths["counts"]))
            series.append(Series(split, [(index, count / rows) for index, count in enumerate(lengths["counts"])]))
        charts.append(histogram(edges, series, title=measure.replace("_", " "), x_label="length"))
    return charts


def search_chapter(facts: RunFacts) -> str:
    """History, importances, the best trials, the failed ones."""
    trials = facts.trials
    if not trials or not trials.get("trials"):
        return ""
    html, charts = "", []
    if trials.get("history"):
        metric = trials["metric"] or "validation loss"
        charts.append(line_chart(
            [Series("trial", [(entry["number"], entry["figure"]) for entry in trials["history"]]),
             Series("best so far", [(entry["number"], entry["best"]) for entry in trials["history"]])],
            title=f"{metric} of complete trials", x_label="trial", y_label=metric, markers=True))
    curves = [
        Series(
            f"trial {trial['number']}",
            [(tokens, loss) for tokens, loss in trial["reports"] if loss is not None],
        )
        for trial in trials["trials"]
        if len(trial["reports"]) > 1
    ]
    if curves:
        charts.append(line_chart(curves[:6], title="validation loss by training tokens (first six trials)",
                                 x_label="training tokens", y_label="validation loss"))
    if trials.get("importances"):
        charts.append(
            bar_chart(
                list(trials["importances"].items()), title="importance for the validation loss (PED-ANOVA)"
            )
        )
    best = trials.get("best", {}).get("number")
    done = sorted((trial for trial in trials["trials"] if trial["state"] == "complete"),
                  key=lambda trial: trial["value"] if trial["value"] is not None else float("inf"))
    names = list(done[0]["point"]) if done else []
    rows = [
        [
            trial["number"],
            trial["value"],
            *([trial["metrics"].get(trials["metric"])] if trials.get("metric") else []),
            *(trial["point"].get(name) for name in names),
        ]
        for trial in done[:15]
    ]
    head = ["trial", "valid loss", *([trials["metric"]] if trials.get("metric") else []), *names]
    place = next((index for index, trial in enumerate(done[:15]) if trial["number"] == best), None)
    html += plots(charts) + "<h3>Best trials</h3>" + table(head, rows, best=place)
    others = [(trial["number"], trial["state"], trial["error"]) for trial in trials["trials"]
              if trial["state"] in ("failed", "refused") or trial["error"]]
    return html + (folded(f"{len(others)} trials refused or failed", table(("trial", "state", "why"), others))
                   if others else "")


def training_chapter(facts: RunFacts) -> str:
    """Curves of the final training."""
    steps = facts.metrics
    if not steps:
        return ""
    thin = steps[:: max(1, len(steps) // _MOST_POINTS)]
    validated = [step for step in steps if step.get("valid_loss") is not None]
    charts = [line_chart(
        [Series("training", [(step["tokens"], step["nll"]) for step in thin]),
         Series("validation", [(step["tokens"], step["valid_loss"]) for step in validated])],
        title="loss per target token (nats)", x_label="training tokens", y_label="loss")]
    names = dict.fromkeys(name for step in validated for name in step.get("metrics", {}))
    charts += [line_chart([Series(name, [(step["tokens"], step["metrics"][name]) for step in validated
                                         if name in step["metrics"]])],
                          title=f"{name} on validation records", x_label="training tokens", markers=True)
               for name in names]
    charts.append(line_chart([Series("learning rate", [(step["tokens"], step["lr"]) for step in thin])],
                             title="learning rate", x_label="training tokens"))
    charts.append(line_chart([Series("rate", [(step["tokens"], step["tokens_per_s"]) for step in thin])],
                             title="real tokens per second", x_label="training tokens"))
    last = steps[-1]
    best = [step for step in validated if step.get("best")]
    note = (f"{last['step']:,} steps, {last['tokens']:,} tokens, {minutes_text(last['elapsed_s'] / 60)}, "
            f"{last['tokens'] / max(last['elapsed_s'], 1e-9):,.0f} tokens/s with validation")
    if best:
        note += f"; the weights kept are those of step {best[-1]['step']:,}"
    return text(note + ".") + plots(charts) + _self_distillation(facts.facts("self_distill"))


def _self_distillation(found: dict[str, Any]) -> str:
    """What self-distillation did; empty where it was off."""
    if not found:
        return ""
    return text(f"Then self-distillation: targets of its own for {found['targets']:,} of {found['sources']:,} training "
                "sources" + (f", learnt in {found['steps']:,} steps" if "steps" in found else "") + ".")


def score_chapter(facts: RunFacts) -> str:
    """Every figure of the chosen decoding with its interval, and all decodings side by side."""
    if not facts.scores:
        return ""
    chosen, splits = facts.scores["chosen"], facts.scores["splits"]
    html = ""
    decodings = list(next(iter(splits.values())))
    if len(decodings) > 1:
        html += "<h3>Decodings</h3>" + text(f"{chosen} was chosen by {facts.scores['choose_by']} on the validation "
                                            "records and stands in the bundle's card.")
        keys = [key for key in _SHOWN_FIRST if key in next(iter(splits.values()))[chosen]["scores"]]
        html += table(["decoding", *(f"{key}, {split}" for split in splits for key in keys)],
                      [[name, *(splits[split][name]["scores"][key]["value"] for split in splits for key in keys)]
                       for name in decodings], best=decodings.index(chosen))
    for split in reversed(list(splits)):
        scores = splits[split][chosen]
        html += f"<h3>{escape(split)}: {scores['cases']:,} records, {scores['references']:,} references</h3>"
        html += table(("metric", "value", "low", "high"),
                      [(one["name"], one["value"], one["low"], one["high"]) for one in scores["scores"].values()])
        html += "".join(text(note, kind="warn") for note in scores["notes"])
        html += text(scores["bootstrap"], kind="note") if scores["bootstrap"] else ""
    signatures = [(one["name"], one["signature"]) for one in next(iter(splits.values()))[chosen]["scores"].values()]
    return html + folded("signatures of the metrics", table(("metric", "signature"), signatures))


def sample_chapter(facts: RunFacts) -> str:
    """Texts beside their references."""
    split = "test" if any(row["split"] == "test" for row in facts.predictions) else "valid"
    rows = [row for row in facts.predictions if row["split"] == split]
    count = facts.task["evaluate"]["samples"]
    if not rows or not count:
        return ""
    shown = rows if len(rows) <= count else [rows[index * len(rows) // count] for index in range(count)]
    html = text(f"Evenly spaced over the {split} records.", kind="note")
    for row in shown:
        references = "".join(f"<p>{escape(reference)}</p>" for reference in row["references"][:4])
        more = len(row["references"]) - 4
        html += (f'<div class="sample"><div class="source">{escape(row["source"])}</div>'
                 f'<div><h4>generated</h4><p>{escape(row["prediction"])}</p></div>'
                 f"<div><h4>references</h4>{references}{f'<p>and {more} more</p>' if more > 0 else ''}</div></div>")
    return html


def settings_chapter(facts: RunFacts) -> str:
    """The task, the plan with its reasons, versions."""
    html = ""
    if facts.plan:
        html += "<h3>Why the settings are what they are</h3>"
        html += table(("setting", "reason"), list(facts.plan["reasons"].items()))
        html += folded("all settings of the run", code(_pretty({key: value for key, value in facts.plan.items()
                                                                 if key != "reasons"})))
    html += folded("the task", code(_pretty(facts.task)))
    if facts.card:
        html += "<h3>Versions</h3>" + table(("what", "version"), list(facts.card["versions"].items()))
        html += text(f"Data fingerprint {facts.card['data']}, tokenizer {facts.card['tokenizer']}.", kind="note")
    return html


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
