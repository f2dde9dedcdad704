"""How the console looks and holds: narrow and wide, light and dark, very long and hostile texts, by keyboard alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from rest_tools import MODEL, Running

Open = Callable[..., Any]
HOSTILE = ("<img src=x onerror=\"window.met='text'\"><script>window.met='script'</script>&lt;b&gt; "
           "javascript:alert(1) \u202e")
SIDEWAYS = "scrollTo(1000, scrollY), scrollX + Math.max(0, document.body.scrollWidth - innerWidth)"
TALL = "document.documentElement.scrollHeight"

CONTRASTS = """() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const ground = (at) => {
    for (; at; at = at.parentElement) {
      const found = parts(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walk.nextNode()) {
    const at = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !at.checkVisibility() || at.closest("noscript, script")) continue;
    const style = getComputedStyle(at);
    const ink = at.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [a, b] = [light(parts(ink)), light(ground(at))].sort((x, y) => y - x);
    found.push([(a + .05) / (b + .05), walk.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
}"""


def stream(*texts: str) -> str:
    """The events of an answer."""
    events = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in texts]
    events.append({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
    events.append({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": len(texts), "total_tokens": 2}})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def answered(page: Any, *texts: str) -> None:
    """Send a prompt that is answered with these texts."""
    page.wait_for_function("() => document.querySelector('#model').value")
    page.route("**/v1/completions", lambda route: route.fulfill(
        status=200, content_type="text/event-stream", body=stream(*texts)))
    page.fill("#input", "x")
    page.press("#input", "Control+Enter")
    page.wait_for_function("() => document.getElementById('count-end').textContent === 'at the limit'")


@pytest.mark.parametrize("width", [320, 390, 768, 1280], ids=str)
def test_nothing_goes_beyond_the_edge(server: Running, open_page: Open, width: int) -> None:
    page, seen = open_page(server.url, width)
    assert page.evaluate(SIDEWAYS) == 0
    before = page.evaluate(TALL)
    answered(page, "x" * 5000, " word" * 5000, "\n" * 300)
    assert page.evaluate(SIDEWAYS) == 0
    assert page.evaluate(TALL) == before
    box = page.query_selector("#transcript")
    assert box.evaluate("(at) => at.scrollHeight > 3 * at.clientHeight && at.scrollWidth <= at.clientWidth")
    assert box.evaluate("(at) => at.scrollHeight - at.scrollTop - at.clientHeight < 3")  # the end is in view
    for part in page.query_selector_all("button:visible, input:visible, select:visible, textarea:visible, .card"):
        place = part.bounding_box()
        assert place["x"] >= -1.5
        assert place["x"] + place["width"] <= width
    assert seen.complaints == []


def test_hostile_texts_are_texts(server: Running, open_page: Open) -> None:
    page, seen = open_page(server.url)
    answered(page, HOSTILE[:30], HOSTILE[30:])
    assert page.text_content(".turn.model .said") == HOSTILE
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [
        {"id": HOSTILE, "created": 1e9, "max_model_len": HOSTILE, "fingerprint": HOSTILE, "aliases": [HOSTILE]}]}))
    label = HOSTILE.replace('"', '\\"')
    page.route("**/metrics", lambda route: route.fulfill(
        body=f'vllm:num_requests_waiting{{model_name="{label}"}} 1\n'))
    page.route("**/ready", lambda route: route.fulfill(status=503, json={"status": HOSTILE, "reason": HOSTILE}))
    page.route("**/v1/completions", lambda route: route.fulfill(status=400, json={"error": {
        "message": HOSTILE, "param": HOSTILE, "code": HOSTILE, "type": HOSTILE}}))
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.press("#input", "Control+Enter")
    page.wait_for_function("(text) => document.querySelector('.trouble span')?.textContent === text", arg=HOSTILE)
    page.wait_for_function("(text) => document.querySelector('#models-rows b').textContent === text", arg=HOSTILE)
    page.wait_for_function("(text) => document.getElementById('health-why').textContent === text", arg=HOSTILE)
    page.wait_for_function("(text) => document.getElementById('figures-model').options[1]?.value === text", arg=HOSTILE)
    assert page.evaluate("[window.met, document.images.length, document.scripts.length]") == [None, 0, 1]
    assert page.evaluate(SIDEWAYS) == 0
    assert [one for one in seen.complaints if "status of" not in one] == []


def test_markup_from_texts_is_refused_by_the_policy(server: Running, open_page: Open) -> None:
    page, _ = open_page(server.url)
    refused = page.evaluate("""() => { const at = document.createElement('div');
        try { at.innerHTML = '<b>x</b>'; return ''; } catch (error) { return error.name; } }""")
    assert refused == "TypeError"
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'went', (error) => error.name)") == "TypeError"


@pytest.mark.parametrize("answer", ["", "data: {\n\n", "data: 7\n\ndata: [DONE]\n\n", "\x00\xff{}", "data: null\n\n",
                                    'data: {"choices":[{"text":7}]}\n\ndata: [DONE]\n\n'],
                         ids=["nothing", "half", "number", "bytes", "null", "kind"])
def test_odd_answers_are_told_and_do_not_break_the_page(server: Running, open_page: Open, answer: str) -> None:
    page, seen = open_page(server.url)
    page.wait_for_function("() => document.querySelector('#model').value")
    page.route("**/v1/completions", lambda route: route.fulfill(
        status=200, content_type="text/event-stream", body=answer))
    page.fill("#input", "x")
    page.press("#input", "Control+Enter")
    page.wait_for_selector("#transcript .trouble")
    assert page.is_visible("#send")
    assert "{" not in page.inner_text("#transcript")
    assert seen.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"], ids=str)
@pytest.mark.parametrize("width", [390, 1280], ids=str)
def test_texts_can_be_read(server: Running, open_page: Open, width: int, scheme: str) -> None:
    page, _ = open_page(server.url, width, scheme)
    answered(page, "an answer")
    page.route("**/v1/completions", lambda route: route.abort())
    page.press("#input", "Control+Enter")
    page.wait_for_selector("#transcript .trouble")
    page.check("[name=mode][value=chat]", force=True)
    found = page.evaluate(CONTRASTS)
    assert len(found) > 60
    assert [words for ratio, words in found if ratio < 4.5] == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(252, 252, 251)", "dark": "rgb(20, 23, 26)"}[scheme]


def test_the_keyboard_reaches_everything_and_shows_where_it_is(server: Running, open_page: Open) -> None:
    page, _ = open_page(server.url)
    page.wait_for_function("() => document.querySelector('#model').value")
    reached, hidden = [], []
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outlined, label = page.evaluate("""() => { const at = document.activeElement;
            const shown = at.type === 'radio' ? at.nextElementSibling : at;
            const label = at.labels?.length || at.getAttribute('aria-label') || at.textContent.trim();
            return [at.id || at.value || at.parentElement.dataset.panel || at.className,
                    getComputedStyle(shown).outlineStyle !== 'none', Boolean(label)]; }""")
        if name in reached:
            break
        reached.append(name)
        if not (outlined and label):
            hidden.append(name)
    assert hidden == []
    assert set(reached) >= {"key", "key-forget", "model", "text", "input", "max_tokens", "temperature", "seed", "stop",
                            "send", "transcript", "ttft", "itl", "tokens", "requests", "cache", "prefix"}
    assert reached[0] == "skip"


@pytest.mark.parametrize("width", [390, 1280], ids=str)
def test_nothing_shifts_when_data_come(server: Running, open_page: Open, width: int) -> None:
    page, _ = open_page(server.url, width)
    shifts = """() => new Promise((done) => { const found = []; new PerformanceObserver((list) =>
        found.push(...list.getEntries().map((one) => [one.value, one.sources.map((s) => s.node?.id)])
        )).observe({ type: 'layout-shift', buffered: true }); setTimeout(() => done(found), 300); })"""
    page.wait_for_function("() => document.querySelector('.plot .none')?.textContent !== 'Reading…'")
    answered(page, *["a few words, and then some more of them\n"] * 40)
    page.wait_for_timeout(2200)  # another reading of the figures
    found = page.evaluate(shifts)
    assert sum(value for value, _ in found) < 0.01, found
    assert MODEL in page.text_content("#models-rows")
