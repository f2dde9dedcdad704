"""The console's scripts one by one, in the browser: event streams, Prometheus's text, quantiles, requests."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rest_tools import Running

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def script(chromium: Any, server: Running) -> Iterator[Call]:
    """Calls a function body with the exports of a script as ``m`` and an argument as ``x``."""
    page = chromium.new_page()
    page.goto(f"{server.url}/")

    def call(name: str, body: str, argument: Any = None) -> Any:
        return page.evaluate(f"async (x) => {{ const m = await import('/console/{name}'); {body} }}", argument)

    yield call
    page.close()


FEED = "const r = new m.EventReader(); return x.map((part) => r.feed(part));"
EVENTS = [
    ("whole", ["data: a\n\n"], [["a"]]),
    ("split", ["da", "ta:", " a", "\n", "\ndata: b\n", "\n"], [[], [], [], [], ["a"], ["b"]]),
    ("returns", ["data: a\r\n\r\ndata: b\r\rdata: c\n\n"], [["a", "b", "c"]]),
    ("split return", ["data: a\r", "\n\r", "\ndata: b\r\n", "\r\n"], [[], ["a"], [], ["b"]]),
    ("lines", ["data: a\ndata:\ndata:  b\n\n"], [["a\n\n b"]]),
    ("comments", [": hello\n\nevent: x\nid: 7\nretry: 1\ndata\ndata:x:y\n\n"], [["\nx:y"]]),
    ("mark", ["\ufeffdata: a\n\n\ufeffdata: b\n\n"], [["a"]]),
    ("unended", ["data: a\n\ndata: b\n"], [["a"]]),
    ("other", ["database: x\n\n{}\n\n\n\n", ""], [[], []]),
    ("text", ["data: <b>é关\u2028\n\n"], [["<b>é关\u2028"]]),
]


@pytest.mark.parametrize(("parts", "found"), [event[1:] for event in EVENTS], ids=[event[0] for event in EVENTS])
def test_event_streams(script: Call, parts: list[str], found: list[list[str]]) -> None:
    assert script("sse.js", FEED, parts) == found


def test_event_streams_cut_anywhere(script: Call) -> None:
    dice = random.Random(7)
    wanted = [json.dumps({"text": text}) for text in ("a\n\n", "data: x", "\r", "关关😀", "")] * 5
    stream = "".join("data: " + data + 2 * dice.choice(("\n", "\r\n", "\r")) for data in wanted)
    for size in (1, 2, 3, 7, 50):
        parts = [stream[at:at + size] for at in range(0, len(stream), size)]
        assert [data for found in script("sse.js", FEED, parts) for data in found] == wanted


SAMPLES = {
    "plain": ("up 1", ("up", {}, 1)),
    "labels": ('vllm:n{model_name="a",le="0.5"} 2.5e-3', ("vllm:n", {"model_name": "a", "le": "0.5"}, 0.0025)),
    "spaces": (' n { a = "1" , b="2", } \t 3 1700000000000 ', ("n", {"a": "1", "b": "2"}, 3)),
    "escapes": (r'n{a="\"x\" \\ \n \q }=,{"} 1', ("n", {"a": '"x" \\ \n \\q }=,{'}, 1)),
    "empty": ('n{} 1', ("n", {}, 1)),
    "prototype": ('n{__proto__="x"} 1', ("n", {"__proto__": "x"}, 1)),
    "infinite": ('n{le="+Inf"} +Inf', ("n", {"le": "+Inf"}, "Infinity")),
    "minus": ("n -Inf", ("n", {}, "-Infinity")),
    "none": ("n NaN", ("n", {}, "NaN")),
    "other words": ('n{a="关 <b>"} 1', ("n", {"a": "关 <b>"}, 1)),
    "comment": ("# HELP n what", None),
    "blank": ("   ", None),
    "no value": ("n{} ", None),
    "bad value": ("n 0x10", None),
    "bad stamp": ("n 1 soon", None),
    "unclosed text": ('n{a="1} 1', None),
    "unclosed": ('n{a="1" 1', None),
    "no name": ('{a="1"} 1', None),
    "no quotes": ("n{a=1} 1", None),
    "digits first": ("1n 1", None),
}


@pytest.mark.parametrize("case", SAMPLES, ids=str)
def test_lines_of_figures(script: Call, case: str) -> None:
    line, wanted = SAMPLES[case]
    found = script("prometheus.js", """const f = m.sample(x); return f && [f.name, JSON.stringify({...f.labels}),
        Object.keys(f.labels), Number.isFinite(f.value) ? f.value : String(f.value)];""", line)
    if wanted is None:
        assert found is None
    else:
        name, labels, value = wanted
        assert (found[0], found[3], sorted(found[2])) == (name, value, sorted(labels))
        assert case == "prototype" or json.loads(found[1]) == labels


def test_a_page_of_figures_becomes_what_charts_show(script: Call) -> None:
    def page(first: tuple[int, ...], tokens: float, cache: str = "0.25") -> str:
        bounds = zip(("0.1", "0.2", "+Inf"), first, strict=True)
        buckets = "\n".join(f'vllm:time_to_first_token_seconds_bucket{{le="{bound}",model_name="a"}} {count}'
                            for bound, count in bounds)
        return (f'# TYPE x histogram\n{buckets}\nvllm:generation_tokens_total{{model_name="a"}} {tokens}\nbroken{{\n'
                f'vllm:kv_cache_usage_perc{{model_name="a"}} {cache}\nvllm:num_requests_running{{model_name="b"}} 2\n')

    body = """const p = await import('/console/prometheus.js');
        const [before, after] = x.pages.map((page) => m.standing(p.samples(page)));
        return m.between(m.together(before, x.model), m.together(after, x.model), 2);"""

    def shown(before: str, after: str, model: str = "") -> dict[str, Any]:
        found: dict[str, Any] = script("figures.js", body, {"pages": [before, after], "model": model})
        return found

    found = shown(page((1, 1, 1), 10), page((3, 7, 7), 30))
    assert found["ttft50"] == pytest.approx(0.125)  # 2 of 6 below 0.1, the third of 6 a quarter into the next 4
    assert found["ttft99"] == pytest.approx(0.1 + 0.1 * 3.94 / 4)
    assert (found["generated"], found["running"], found["cache"], found["itl50"]) == (10, 2, 0.25, None)
    assert shown(page((1, 1, 1), 10), page((1, 1, 1), 10))["ttft50"] is None
    assert shown(page((1, 1, 1), 10), page((1, 1, 5), 10))["ttft99"] == pytest.approx(0.2)
    begun_anew = shown(page((9, 9, 9), 100), page((1, 2, 2), 5))
    assert (begun_anew["ttft50"], begun_anew["generated"]) == (None, None)
    assert shown(page((1, 1, 1), 10), page((2, 2, 2), 12, "NaN"), "a")["cache"] is None
    assert shown("", page((2, 2, 2), 12), "b")["running"] == 2
    assert shown("", page((2, 2, 2), 12))["ttft50"] == pytest.approx(0.05)


def test_quantiles_are_prometheus_own(script: Call) -> None:
    body = "return x.map(([q, b]) => m.quantile(q, b.map(([le, n]) => [le === null ? Infinity : le, n])));"
    cases = [(0.5, [[1, 10], [2, 20], [None, 20]], 1.0), (0.99, [[1, 0], [2, 100], [None, 100]], 1.99),
             (0.5, [[1, 0], [None, 4]], 1), (0.5, [[None, 4]], None), (0.5, [], None), (0.9, [[1, 0], [None, 0]], None),
             (0.5, [[1, 4]], None)]
    found = script("figures.js", body, [[q, buckets] for q, buckets, _ in cases])
    assert found == [pytest.approx(wanted) if wanted is not None else None for *_, wanted in cases]


def test_axes_have_round_steps(script: Call) -> None:
    highs = [[0, False], [1, True], [3, True], [7.3, False], [480, False], [0.0031, False]]
    assert script("scale.js", "return x.map(([high, whole]) => m.ticks(high, 4, whole));", highs) == [
        [0, 0.5, 1], [0, 1], [0, 1, 2, 3], [0, 2, 4, 6, 8], [0, 200, 400, 600], [0, 0.001, 0.002, 0.003, 0.004]]


def test_figures_are_written_for_people(script: Call) -> None:
    body = "return x.map(([how, value]) => m[how](value));"
    cases = [("number", 1234.5, "1,235"), ("number", 2_500_000, "2.5M"), ("number", 0.03125, "0.0313"),
             ("number", None, "–"), ("seconds", 0.00085, "850 µs"), ("seconds", 0.0123, "12.3 ms"),
             ("seconds", 1.254, "1.25 s"), ("seconds", 125, "2 min 5 s"), ("seconds", "x", "–"),
             ("percent", 0.0007, "< 0.1 %"), ("percent", 0, "0 %"), ("percent", 0.4251, "42.5 %"),
             ("percent", 1, "100 %"), ("wait", 0.2, "1 second"), ("wait", 200, "4 minutes")]
    assert script("words.js", body, [[how, value] for how, value, _ in cases]) == [wanted for *_, wanted in cases]


FORM = {"mode": "text", "model": "m", "input": "x", "system": "", "turns": [], "max_tokens": "", "temperature": "",
        "seed": "", "stop": ""}
ASKED = "try { return m.request({...x}); } catch (e) { return [e.constructor.name, e.field, e.message]; }"


def test_forms_become_requests(script: Call) -> None:
    said = 'a "b"\n</script>关'
    made = script("ask.js", ASKED, {**FORM, "input": said, "max_tokens": " 12 ", "temperature": "0.70", "seed": "-007",
                                    "stop": "END\n\n\\n\\n\\\\"})
    assert made["path"] == "/v1/completions"
    assert json.loads(made["json"]) == {
        "model": "m", "prompt": said, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 12,
        "temperature": 0.7, "seed": -7, "stop": ["END", "\n\n\\"]}
    record = '{ "name": "a", "price": 1.50, "id": 12345678901234567890 }'
    exact = script("ask.js", ASKED, {**FORM, "mode": "record", "input": f" {record}\n", "seed": "9007199254740993"})
    assert f'"prompt":{record},' in exact["json"]
    assert json.loads(exact["json"])["seed"] == 9007199254740993
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    chat = script("ask.js", ASKED, {**FORM, "mode": "chat", "turns": turns, "system": "be brief"})
    assert chat["path"] == "/v1/chat/completions"
    assert json.loads(chat["json"])["messages"] == [{"role": "system", "content": "be brief"}, *turns,
                                                    {"role": "user", "content": "x"}]


@pytest.mark.parametrize(("fields", "field", "words"), [
    ({"input": " \n"}, "input", "Write a text"), ({"mode": "chat", "input": ""}, "input", "Write a message"),
    ({"mode": "record", "input": "{\n'a': 1}"}, "input", "line 2, column 1"),
    ({"mode": "record", "input": "[1]"}, "input", "JSON object"),
    ({"mode": "record", "input": "null"}, "input", "JSON object"),
    ({"mode": "record", "input": '{} , "n": 9'}, "input", "no JSON"), ({"max_tokens": "0"}, "max_tokens", "at least 1"),
    ({"max_tokens": "1e9"}, "max_tokens", "whole number"), ({"temperature": "0,7"}, "temperature", "a number"),
    ({"seed": "1.5"}, "seed", "whole number"), ({"temperature": "NaN"}, "temperature", "a number"),
], ids=["empty", "no message", "quotes", "list", "null", "more", "nought", "power", "comma", "fraction", "nan"])
def test_what_cannot_be_sent_is_said(script: Call, fields: dict[str, str], field: str, words: str) -> None:
    name, where, said = script("ask.js", ASKED, {**FORM, **fields})
    assert (name, where) == ("Wrong", field)
    assert words in said


def test_faults_are_told_in_words(script: Call) -> None:
    body = "return x.map(([status, facts, retry]) => { const t = m.inWords(status, facts, retry); return t.message; });"
    told = script("calls.js", body, [
        [401, {}, None], [403, {"code": "insufficient_scope", "message": "this key lacks the scope 'infer'"}, None],
        [404, {"code": "model_not_found"}, None], [408, {}, None], [413, {}, None], [429, {"code": "overloaded"}, 1],
        [429, {"code": "rate_limit_exceeded"}, 6.2], [503, {"code": "unavailable"}, 200], [400, {"message": 7}, None],
        [500, {}, None], [502, {}, None]])
    assert told == [
        "This server needs a key.", "This key may not do that.", "There is no such model.",
        "The time for this request was over.", "That is too much for this server.",
        "The server is busy. Try again in 1 second.",
        "This key has used up its share for now. Try again in 7 seconds.",
        "The server cannot answer now. Try again in 4 minutes.", "The server refuses this request.",
        "The server failed at this request.", "The server cannot answer now. Try again in a moment."]
