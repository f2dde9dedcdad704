"""The console as people meet it, in a real browser on a real server: prompts, charts, keys, faults."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import httpx
from rest_tools import MODEL, Running, engine_backend
from serve_tools import FACTS, FakeBackend

from openautoglm.engine.request import Piece
from openautoglm.serve.faults import EngineLost
from openautoglm.serve.guard import secret
from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.registry.keys import KeyRecord
from openautoglm.serve.service.language import Language

Open = Callable[..., Any]
FAKE = FACTS.__class__(**{**vars(FACTS), "vocab_size": 400})


class Keys:
    """Keys in memory, one for each list of scopes."""

    def __init__(self, *scopes: Sequence[str], **rates: int) -> None:
        self.tokens: list[str] = []
        self._records: dict[str, KeyRecord] = {}
        for number, given in enumerate(scopes):
            key_id, token, hashed = secret.mint()
            self.tokens.append(token)
            self._records[key_id] = KeyRecord(key_id, str(number), hashed, frozenset(given), **rates)

    def get(self, key_id: str) -> KeyRecord | None:
        return self._records.get(key_id)

    def touch(self, key_id: str) -> None:
        """Nothing is noted."""


def send(page: Any, text: str = "The Punter", **fields: str) -> None:
    for name, value in fields.items():
        page.fill(f"#{name}", value)
    page.fill("#input", text)
    page.press("#input", "Control+Enter")


def ended(page: Any, how: str = "") -> None:
    page.wait_for_function("(how) => !['–', how && 'x'].includes(document.getElementById('count-end').textContent)"
                           " && (!how || document.getElementById('count-end').textContent === how)", arg=how)


def said(page: Any, selector: str, words: str) -> None:
    page.wait_for_function("([at, words]) => [...document.querySelectorAll(at)].some((one) => "
                           "one.textContent.includes(words))", arg=[selector, words])


def answer(page: Any) -> str:
    found: str = page.locator(".turn.model .said").last.text_content()
    return found


def complaints(found: Sequence[str], *, but: str = "") -> list[str]:
    return [one for one in found if not (but and re.search(but, one))]


def test_a_prompt_streams(language: Language, open_page: Open) -> None:
    gate = threading.Semaphore(0)
    with Running(language, lambda: engine_backend(language, before=lambda step: gate.acquire() and None)) as server:
        page, seen = open_page(server.url)
        page.fill("#input", "The Punter")
        page.press("#input", "Enter")
        assert page.input_value("#input") == "The Punter\n"  # without Ctrl it is a new line
        page.wait_for_function(f"() => document.getElementById('model').value === '{MODEL}'")
        send(page, max_tokens="12", temperature="0")
        gate.release(5)
        page.wait_for_selector("#halt:visible")
        page.wait_for_function("() => document.querySelector('.turn.running .said')?.textContent.length > 0")
        begun = answer(page)
        page.wait_for_function("() => document.getElementById('count-first').textContent !== '–'")
        assert page.text_content("#count-end") == "–"
        gate.release(10_000)
        ended(page)
        asked = {"model": MODEL, "prompt": "The Punter", "max_tokens": 12, "temperature": 0}
        whole = httpx.post(f"{server.url}/v1/completions", json=asked).json()
        assert answer(page) == whole["choices"][0]["text"]
        assert len(begun) < len(answer(page))
        assert page.text_content("#count-tokens") == str(whole["usage"]["completion_tokens"])
        assert page.text_content("#count-prompt") == str(whole["usage"]["prompt_tokens"])
        assert page.text_content("#count-end") == "at the limit"
        assert page.is_visible("#send")
        assert "12 tokens" in page.text_content("#told")
        assert page.text_content("#health-word") == "ready"
        assert MODEL in page.text_content("#models-rows")
        assert complaints(seen.complaints) == []
        assert {url for url in seen.urls if not url.startswith(f"{server.url}/")} == set()
        anew = page.evaluate("() => { document.getElementById('send').click(); "
                             "return document.getElementById('count-end').textContent; }")
        assert anew == "–"  # the last answer's figures go at once
        ended(page)


def test_stop_ends_the_request_at_the_server(language: Language, open_page: Open) -> None:
    with Running(language, lambda: engine_backend(language, before=lambda step: time.sleep(0.02))) as server:
        page, seen = open_page(server.url)
        page.wait_for_function(f"() => document.getElementById('model').value === '{MODEL}'")
        # an answer without an end: the stop string never comes, and the fake model ends answers at some lengths only
        page.route("**/v1/completions", lambda route: route.continue_(post_data=json.dumps(
            {**json.loads(route.request.post_data), "ignore_eos": True})))
        send(page, max_tokens="400")
        page.wait_for_function("() => document.querySelector('.turn.model .said')?.textContent.length > 3")
        page.click("#halt")
        ended(page, "stopped")
        kept = answer(page)
        assert page.evaluate("document.activeElement.id") == "send"
        for _ in range(400):
            stats = server.call(lambda: server.backend.stats)
            if not stats.decoding and not stats.filling and not stats.waiting:
                break
            time.sleep(0.01)
        assert not server.call(lambda: server.backend.stats.decoding)
        assert answer(page) == kept
        assert kept
        assert complaints(seen.complaints) == []


def test_charts_move(language: Language, open_page: Open) -> None:
    with Running(language, lambda: engine_backend(language)) as server:
        page, seen = open_page(server.url)
        page.wait_for_function("() => [...document.querySelectorAll('.plot .none')].length === 6 && "
                               "[...document.querySelectorAll('.plot .none')].every((one) => "
                               "one.textContent === 'No requests yet')")
        asked = {"model": MODEL, "prompt": "The Punter", "max_tokens": 20, "ignore_eos": True}
        going = threading.Event()

        def load() -> None:
            while not going.wait(0.05):
                with suppress(httpx.HTTPError):
                    httpx.post(f"{server.url}/v1/completions", json=asked)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            line = "document.querySelector('[data-panel=tokens] path.line')?.getAttribute('d')"
            page.wait_for_function(f"() => {line}")
            first = page.evaluate(f"() => {line}")
            page.wait_for_function(f"(first) => {line} !== first", arg=first)
            for panel in ("ttft", "itl", "prefix"):
                page.wait_for_selector(f"[data-panel={panel}] .plot svg :is(path.line, circle.dot)", state="attached")
            page.hover("[data-panel=tokens] .plot")
            page.wait_for_selector("[data-panel=tokens] .tip:visible")
            assert re.search(r"\d\d:\d\d:\d\d\s*answers\s*[\d.,]+ / s", page.inner_text("[data-panel=tokens] .tip"))
            assert "tokens / s" in page.text_content("[data-panel=tokens] svg")
            assert re.search(r"p50\s*[\d.]+ (µs|ms|s)", page.inner_text("[data-panel=ttft] .now"))
            page.focus("[data-panel=itl] .plot")
            page.keyboard.press("ArrowLeft")
            assert re.search(r" at \d\d:\d\d:\d\d: p50 ", page.get_attribute("[data-panel=itl] .plot", "aria-label"))
        finally:
            going.set()
            thread.join(30)
        assert complaints(seen.complaints) == []
        assert page.is_hidden("#figures-pick")


def test_keys_are_told_plainly(language: Language, open_page: Open) -> None:
    keys = Keys(["infer"], ["metrics"], ["infer", "metrics"])
    with Running(language, lambda: engine_backend(language), guard=Guard(keys)) as server:
        page, seen = open_page(server.url)
        said(page, "#key-state", "This server needs a key.")
        said(page, ".plot .none", "The figures need a key.")
        for wrong in ("autoglm_wrong", f"autoglm_{'a' * 12}_{'b' * 43}", "ключ"):
            page.fill("#key", wrong)
            page.press("#key", "Enter")
            said(page, "#key-state", "This key is not known.")
            said(page, ".plot .none", "This key is not known.")
        asked = [url for url in seen.urls if url.endswith(("/metrics", "/v1/models"))]
        page.wait_for_timeout(2500)
        assert [url for url in seen.urls if url.endswith(("/metrics", "/v1/models"))] == asked  # not tried again
        send(page)
        said(page, "#transcript .trouble", "This key is not known.")
        page.fill("#key", keys.tokens[0])
        page.click("#key-form [type=submit]")
        said(page, "#key-state", "This key is taken.")
        said(page, ".plot .none", "lacks the scope “metrics”")
        send(page, max_tokens="5")
        ended(page)
        assert answer(page)
        page.fill("#key", keys.tokens[1])
        page.press("#key", "Enter")
        said(page, "#key-state", "may not ask the models")
        said(page, ".plot svg text", "1")
        send(page)
        said(page, "#transcript .trouble", "This key may not do that.")
        said(page, "#transcript .trouble", "scope 'infer'")
        assert "{" not in page.inner_text("#transcript")
        kept = page.evaluate("[Object.values(sessionStorage), localStorage.length, document.cookie]")
        assert kept == [[keys.tokens[1]], 0, ""]
        page.reload()
        said(page, "#key-state", "may not ask the models")
        page.click("#key-forget")
        said(page, "#key-state", "This server needs a key.")
        assert page.evaluate("[sessionStorage.length, document.getElementById('key').value]") == [0, ""]
        assert complaints(seen.complaints, but="status of 40[13]") == []


def test_limits_and_ends_are_told_plainly(language: Language, open_page: Open) -> None:
    keys = Keys(["infer", "metrics"], requests_per_min=1)
    with Running(language, lambda: engine_backend(language), guard=Guard(keys)) as server:
        page, _ = open_page(server.url)
        page.fill("#key", keys.tokens[0])
        page.press("#key", "Enter")
        said(page, "#key-state", "This key is taken.")
        send(page, max_tokens="0")
        said(page, "#transcript .trouble", "Most tokens must be at least 1.")
        assert page.evaluate("document.activeElement.id") == "max_tokens"
        send(page, max_tokens="9999")
        said(page, "#transcript .trouble", "The server refuses this request.")
        page.wait_for_selector("#max_tokens[aria-invalid=true], #input[aria-invalid=true]")
        for _ in range(2):
            send(page, max_tokens="3")
            ended(page)
        said(page, "#transcript .trouble", "This key has used up its share for now. Try again in ")
        assert "{" not in page.inner_text("#transcript")
    send(page, max_tokens="3")
    said(page, "#transcript .trouble", "The server does not answer.")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    said(page, "#health", "no answer")


def test_a_server_that_is_ending_says_so(language: Language, open_page: Open) -> None:
    with Running(language, lambda: engine_backend(language)) as server:
        page, _ = open_page(server.url)
        page.wait_for_function(f"() => document.getElementById('model').value === '{MODEL}'")
        server.call(lambda: server.service.queue.close())
        send(page)
        said(page, "#transcript .trouble", "The server cannot answer now. Try again in 1 second.")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        said(page, "#health", "not ready")
        said(page, "#health-why", "the server is ending")


def test_an_engine_that_is_lost_under_way_is_told(language: Language, open_page: Open) -> None:
    ids = tuple(language.tokenizer.encode("The Punter"))
    backend = FakeBackend(lambda order: ([Piece(0, ids)], EngineLost("killed: signal 9")), FAKE)
    with Running(language, lambda: backend) as server:
        page, seen = open_page(server.url)
        page.wait_for_function(f"() => document.getElementById('model').value === '{MODEL}'")
        send(page, max_tokens="50")
        said(page, "#transcript .trouble", "The server cannot answer now.")
        assert answer(page).startswith("The")
        assert page.text_content("#count-end") == "early"
        assert "signal" not in page.inner_text("#transcript")
        assert complaints(seen.complaints, but="status of 503") == []


def test_a_chat_goes_on(server: Running, open_page: Open) -> None:
    page, seen = open_page(server.url)
    page.wait_for_function(f"() => document.getElementById('model').value === '{MODEL}'")
    page.check("[name=mode][value=chat]", force=True)
    asked: list[dict[str, Any]] = []
    page.on("request", lambda one: asked.append(json.loads(one.post_data)) if one.method == "POST" else None)
    send(page, "one", max_tokens="5", system="be brief")
    ended(page)
    first = answer(page)
    page.fill("#input", "two")
    page.press("#input", "Control+Enter")
    page.wait_for_function("() => document.querySelectorAll('.turn').length === 4 && "
                           "document.getElementById('transcript').getAttribute('aria-busy') === 'false'")
    assert asked[1]["messages"] == [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "one"},
        {"role": "assistant", "content": first}, {"role": "user", "content": "two"}]
    page.click("#anew")
    assert page.query_selector_all(".turn") == []
    page.check("[name=mode][value=record]", force=True)
    send(page, '{"name": "The Punter", "price": 1.50}')
    ended(page)
    assert page.query_selector(".trouble") is None
    send(page, '{"name": 1}')
    said(page, "#transcript .trouble", "The server refuses this request.")
    said(page, "#transcript .trouble", "price")
    assert complaints(seen.complaints, but="status of 400") == []
