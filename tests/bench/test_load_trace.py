"""Traces: the formats that are known, scaling, and what is said about broken files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from openautoglm.bench.plan import Planner
from openautoglm.bench.settings import Arrivals, LoadSettings, Prompts, Replay
from openautoglm.bench.trace import Trace, read_trace, scaled
from openautoglm.bench.words import word_vocabulary
from openautoglm.core.errors import DataError

FORMS = {
    "azure.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
                 "2023-11-16 18:15:50.1805900,396,109\n2023-11-16 18:15:48.6805900,5,7\n",
    "zoned.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,374,44\n"
                 "2024-05-10 00:00:03.509930+00:00,396,109\n2024-05-10 00:00:02.009930+00:00,5,7\n",
    "burst.csv": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,374,44,418,x\n"
                 "8.5,GPT-4,396,109,505,x\n7,GPT-4,5,7,12,x\n6,GPT-4,9,0,9,x\n",
    "mooncake.jsonl": "\n".join(json.dumps({"timestamp": at, "input_length": a, "output_length": b, "hash_ids": [1]})
                                for at, a, b in ((0, 374, 44), (3500, 396, 109), (2000, 5, 7))),
    "ours.tsv": "arrival_s\tprompt_tokens\toutput_tokens\n0\t374\t44\n3.5\t396\t109\n2\t5\t7\n",
}


@pytest.mark.parametrize("name", FORMS, ids=str)
def test_forms_are_told_by_their_columns(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FORMS[name])
    trace = read_trace(path)
    assert trace.arrival_s == pytest.approx([0, 2, 3.5])
    assert trace.prompt_tokens.tolist() == [374, 5, 396]
    assert trace.output_tokens.tolist() == [44, 7, 109]
    assert bool(trace.notes) == (name == "burst.csv")
    assert trace.rate == pytest.approx(2 / 3.5)


@pytest.mark.parametrize(("text", "says"), [
    ("a,b\n1,2\n", "no known kind"),
    ("arrival_s,prompt_tokens,output_tokens\n0,many,3\n", r"t\.csv:2.*no number of tokens"),
    ("arrival_s,prompt_tokens,output_tokens\n0,3,3\nsoon,3,3\n", r"t\.csv:3.*neither a number nor a date"),
    ("arrival_s,prompt_tokens,output_tokens\n0,3\n", r"t\.csv:2.*wrong_columns"),
    ("arrival_s,prompt_tokens,output_tokens\n0,0,0\n", "no request with tokens"),
    ("arrival_s,prompt_tokens,output_tokens\nnan,3,3\n", "neither a number nor a date"),
], ids=["columns", "tokens", "time", "cells", "empty", "nan"])
def test_broken_traces_name_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        read_trace(path)


def test_a_trace_that_is_not_there_or_has_no_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "t.txt").write_text("x")
    with pytest.raises(DataError, match="has columns"):
        read_trace(tmp_path / "t.txt")


def trace_of(count: int = 100) -> Trace:
    dice = np.random.default_rng(5)
    return Trace(np.sort(dice.uniform(0, 50, count)), dice.integers(1, 2000, count), dice.integers(1, 400, count))


def test_rates_and_lengths_are_scaled() -> None:
    trace = trace_of()
    faster = scaled(trace, Replay(path=Path("t"), rate_scale=4, length_scale=0.5))
    assert faster.arrival_s == pytest.approx((trace.arrival_s - trace.arrival_s[0]) / 4)
    assert faster.rate == pytest.approx(4 * trace.rate)
    assert (np.abs(faster.prompt_tokens - trace.prompt_tokens / 2) <= 1).all()
    assert faster.output_tokens.min() >= 1
    exact = scaled(trace, Replay(path=Path("t")), count=60, request_rate=7)
    assert len(exact.arrival_s) == 60
    assert exact.rate == pytest.approx(7)


def test_a_part_is_taken_and_cuts_are_told() -> None:
    trace = trace_of()
    part = scaled(trace, Replay(path=Path("t"), start_s=10, duration_s=20, max_input_len=100, max_output_len=50))
    inside = (trace.arrival_s >= 10) & (trace.arrival_s < 30)
    assert len(part.arrival_s) == inside.sum()
    assert part.arrival_s[0] == 0
    assert part.prompt_tokens.max() == 100
    assert [note.partition(" of")[0] for note in part.notes] == [
        str((trace.prompt_tokens[inside] > 100).sum()), str((trace.output_tokens[inside] > 50).sum())]
    with pytest.raises(DataError, match="no request from"):
        scaled(trace, Replay(path=Path("t"), start_s=100))


def test_a_plan_follows_its_trace(tmp_path: Path) -> None:
    path = tmp_path / "ours.tsv"
    path.write_text(FORMS["ours.tsv"])
    settings = LoadSettings(replay=Replay(path=path, rate_scale=2), arrivals=Arrivals(duration_s=1.5))
    plan = Planner(settings, word_vocabulary(None)).plan()
    assert [ask.at_s for ask in plan.asks] == [0, 1.0]
    assert [ask.max_tokens for ask in plan.asks] == [44, 7]
    assert [len(ask.prompt.text.split()) for ask in plan.asks] == [374, 5]
    assert "tokenizer" in plan.notes[-1]


@pytest.mark.parametrize("wrong", [
    {"arrivals": Arrivals(max_concurrency=2)}, {"prompts": Prompts(dataset=("x.csv",))},
    {"arrivals": Arrivals(request_rate=2), "replay": Replay(path=Path("t"), rate_scale=3)}],
    ids=["closed", "dataset", "two-rates"])
def test_a_trace_excludes_what_contradicts_it(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"leave one|one of them"):
        LoadSettings.model_validate({"replay": Replay(path=Path("t")), **wrong})


@pytest.mark.data
def test_the_azure_trace(shared_data: Path) -> None:
    trace = read_trace(shared_data / "azure-llm-trace" / "AzureLLMInferenceTrace_conv.csv")
    assert len(trace.arrival_s) == 19_366
    assert trace.prompt_tokens[:2].tolist() == [374, 396]
    assert trace.output_tokens[:2].tolist() == [44, 109]
    assert trace.arrival_s[1] == pytest.approx(4.314579, abs=1e-5)
    assert not math.isinf(trace.rate)
    small = scaled(trace, Replay(path=Path("t"), length_scale=0.05), count=1000, request_rate=3)
    assert small.rate == pytest.approx(3)
    assert small.prompt_tokens.mean() == pytest.approx(trace.prompt_tokens[:1000].mean() / 20, rel=0.02)
