"""The cache of responses: where asked for, for the same request of the same key to the same version, and no other."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from house_server import HouseRunning, house_server, key

from openautoglm.serve.hosting.responses import exact
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.registry.settings import RegistrySettings
from openautoglm.serve.rest.cached import Replayed, packed
from openautoglm.serve.rest.whole import Gathered
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.values import Delta, TokenLogprob, Usage
from openautoglm.serve.wire.json_body import parse_object

ASK = {"model": "reports", "prompt": "x", "temperature": 0, "max_tokens": 40, "cache": True}


class Client:
    """A client whose answers say whether they came from the cache."""

    def __init__(self, running: HouseRunning, registry: Registry, name: str) -> None:
        self.running = running
        self._http = httpx.Client(base_url=running.url, headers=key(registry, "infer", name=name), timeout=30)

    def close(self) -> None:
        self._http.close()

    def ask(self, path: str = "completions", **fields: Any) -> tuple[str | None, httpx.Response]:
        """Ask, and wait until what is to be kept was kept."""
        reply = self._http.post(f"/v1/{path}", json={name: value for name, value in {**ASK, **fields}.items()
                                                     if value is not None})
        until = time.monotonic() + 10
        while self.running.call(lambda: bool(self.running.serving.responses._keeping)) and time.monotonic() < until:
            time.sleep(0.005)
        return reply.headers.get("x-cache"), reply

    def marks(self, *asks: dict[str, Any]) -> list[str | None]:
        """What the cache did for each of these requests."""
        return [self.ask(**fields)[0] for fields in asks]

    def computed(self, name: str = "reports/3") -> int:
        """Requests that the engine of a version has had."""
        return len(self.running.house.loader.backends[name].orders)


@pytest.fixture
def client(registry: Registry, language: Language) -> Iterator[Client]:
    with house_server(registry, language) as running, closing(Client(running, registry, "user")) as made:
        yield made


def test_the_same_request_is_answered_from_the_cache(client: Client) -> None:
    first_mark, first = client.ask()
    again_mark, again = client.ask()
    assert (first_mark, again_mark) == ("miss", "hit")
    assert client.computed() == 1
    count = client.running.metrics.registry.get_sample_value
    assert [count("autoglm:response_cache_total", {"model_name": "reports/3", "result": result})
            for result in ("miss", "hit")] == [1, 1]
    same = ("object", "model", "system_fingerprint", "choices", "usage")
    assert [first.json()[name] for name in same] == [again.json()[name] for name in same]
    assert first.json()["id"] != again.json()["id"]


def test_only_what_must_have_the_same_answer_is_kept(client: Client) -> None:
    twice: list[dict[str, Any]] = [{}, {}]
    assert client.marks(*[{"temperature": 1.0, **one} for one in twice]) == [None, None]
    assert client.marks(*[{"temperature": None, **one} for one in twice]) == [None, None]
    assert client.marks(*[{"cache": False, **one} for one in twice]) == [None, None]
    assert client.marks(*[{"cache": None, **one} for one in twice]) == [None, None]
    assert client.marks(*[{"temperature": 1.0, "seed": 5, **one} for one in twice]) == ["miss", "hit"]
    chat = {"path": "chat/completions", "prompt": None, "messages": [{"role": "user", "content": "x"}]}
    assert client.marks({**chat, "conversation": "c"}, {**chat, "conversation": "c"}) == [None, None]
    assert client.marks(chat, chat) == ["miss", "hit"]


def test_everything_that_shapes_an_answer_counts(client: Client) -> None:
    asks: list[dict[str, Any]] = [
        {}, {"max_tokens": 39}, {"prompt": "y"}, {"prompt": ["x", "x"]}, {"n": 2}, {"seed": 1}, {"stop": "x"},
        {"logprobs": 2}, {"raw": True}, {"prompt": {"name": "a", "price": "1.5"}},
        {"prompt": {"price": "1.5", "name": "a"}}, {"prompt": {"name": "a", "price": 1.5}}, {"top_k": 1},
        {"prompt": {"name": "a", "price": 15}}, {"prompt": {"name": "a", "price": None}},
        {"path": "chat/completions", "prompt": None, "messages": [{"role": "user", "content": "x"}]}]
    assert client.marks(*asks) == ["miss"] * len(asks)
    assert client.marks(*asks) == ["hit"] * len(asks)
    shapeless: list[dict[str, Any]] = [{"user": "ann"}, {"stream": True}, {"timeout_s": 5}, {"model": "reports/3"}]
    assert client.marks(*shapeless) == ["hit"] * 4
    written = [exact(parse_object(b'{"price": %s}' % text, 5)) for text in (b"1.50", b"1.5", b"15e-1")]
    assert len({json.dumps(one) for one in written}) == 3


def test_versions_and_keys_have_their_own_answers(client: Client, registry: Registry) -> None:
    assert client.marks({}, {"model": "reports/1"}, {"model": "reports/1"}) == ["miss", "miss", "hit"]
    with closing(Client(client.running, registry, "other")) as other:
        assert other.marks({}, {}) == ["miss", "hit"]
    registry.labels.set_alias("reports", "champion", 1, by="ann")
    deadline = time.monotonic() + 10
    while client.running.house.catalog.choose("reports").number != 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    mark, reply = client.ask()
    assert (mark, reply.json()["choices"][0]["text"]) == ("hit", "I am reports/1.")


@pytest.mark.parametrize("path", ["completions", "chat/completions"], ids=["completion", "chat"])
def test_a_stream_is_replayed_as_events(client: Client, path: str) -> None:
    chat = {"prompt": None, "messages": [{"role": "user", "content": "x"}]} if path.startswith("chat") else {}
    fields: dict[str, Any] = {**chat, "path": path, "stream": True, "stream_options": {"include_usage": True}}
    told = []
    for expected in ("miss", "hit"):
        mark, reply = client.ask(**fields)
        assert mark == expected
        assert reply.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
        assert events[-1] == "[DONE]"
        pieces = [json.loads(event) for event in events[:-1]]
        texts = [choice.get("text") or choice.get("delta", {}).get("content") or "" for piece in pieces
                 for choice in piece["choices"]]
        finishes = [choice["finish_reason"] for piece in pieces for choice in piece["choices"]]
        told.append(("".join(texts), finishes[-1], pieces[-1]["usage"], pieces[0]["system_fingerprint"]))
    assert told[0] == told[1]
    assert client.computed() == 1
    assert client.ask(**{**fields, "stream": None, "stream_options": None})[0] == "hit"  # sent as a whole, too


def test_an_answer_that_broke_off_is_not_kept(client: Client) -> None:
    client.ask(model="reports/1", prompt="warm")
    from openautoglm.serve.faults import EngineLost

    loader = client.running.house.loader
    loader.faults["reports/1"] = EngineLost("killed")
    for stream in (True, None):
        mark, reply = client.ask(model="reports/1", stream=stream)
        assert reply.status_code == 503
        assert mark is None
    loader.faults.clear()
    assert client.marks({"model": "reports/1"}, {"model": "reports/1"}) == ["miss", "hit"]


def test_the_server_may_use_it_without_being_asked(registry: Registry, language: Language) -> None:
    with house_server(registry, language, cache_all=True) as running, closing(
            Client(running, registry, "user")) as client:
        assert client.marks({"cache": None}, {"cache": None}, {"cache": False}) == ["miss", "hit", None]


def test_a_database_that_is_gone_costs_the_cache_alone(client: Client, registry: Registry,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    from openautoglm.serve.faults import StoreLost

    def gone(*_: Any) -> Any:
        raise StoreLost("gone")

    assert client.marks({}, {}) == ["miss", "hit"]
    monkeypatch.setattr(registry.database, "read", gone)
    monkeypatch.setattr(registry.database, "write", gone)
    assert client.marks({}, {}) == ["miss", "miss"]


def test_it_is_bounded_in_bytes(registry: Registry) -> None:
    settings = RegistrySettings(response_cache_bytes=3000)
    registry.database.settings = settings
    version = registry.versions.get("reports/1")
    for number in range(10):
        assert registry.responses.put(f"key-{number}", version.id, b"x" * 1000)
    assert registry.responses.size_bytes() <= 3000
    assert registry.responses.get("key-9") is not None
    assert registry.responses.get("key-0") is None


def test_logprobs_and_calls_survive(client: Client) -> None:
    gathered = Gathered(2)
    top = (("a", -0.5, b"a"), ("\ufffd", float("-inf"), b"\xff"))
    gathered.add(Delta(0, "a", (TokenLogprob("a", -0.5, b"a", top),), None))
    gathered.add(Delta(0, "b", (), "tool_calls"))
    gathered.add(Delta(1, "é", (), "length"))

    class Ended:
        tool, usage = "f", Usage(3, 4, 1, 2)

    found = Replayed(packed(gathered, Ended(), "fp_1"))  # type: ignore[arg-type]
    assert (found.tool, found.usage, found.fingerprint, found.count) == ("f", Usage(3, 4, 1, 2), "fp_1", 2)
    assert found._deltas == gathered.deltas()
    assert found._deltas[0] == Delta(0, "ab", (TokenLogprob("a", -0.5, b"a", top),), "tool_calls")
