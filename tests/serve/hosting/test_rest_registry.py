"""A registry over HTTP: what administrators may do, whose conversations are whose, and what if storing fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from house_server import HouseRunning, house_server, key

from openautoglm.serve.faults import Conflict, DiskFull, Fault, StoreLost
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.rest.access import scope_of
from openautoglm.serve.service.language import Language

HELLO = [{"role": "user", "content": "Hello"}]


class Callers:
    """A server and clients with keys of several scopes."""

    def __init__(self, running: HouseRunning, registry: Registry) -> None:
        self.running, self.registry = running, registry
        self.user, self.other, self.admin = (
            httpx.Client(base_url=running.url, headers=key(registry, scope, name=name), timeout=30)
            for name, scope in (("user", "infer"), ("other", "infer"), ("admin", "admin")))

    def close(self) -> None:
        for client in (self.user, self.other, self.admin):
            client.close()

    def chat(self, client: httpx.Client | None = None, **fields: Any) -> httpx.Response:
        return (client or self.user).post("/v1/chat/completions", json={"model": "reports", "messages": HELLO,
                                                                        **fields})


@pytest.fixture
def callers(registry: Registry, language: Language) -> Iterator[Callers]:
    with house_server(registry, language) as running:
        made = Callers(running, registry)
        yield made
        made.close()


def fail(monkeypatch: pytest.MonkeyPatch, registry: Registry, fault: Fault) -> None:
    """Let nothing be stored any more."""
    def full(*_: Any) -> Any:
        raise fault

    monkeypatch.setattr(registry.database, "write", full)


def test_everything_but_reading_the_list_is_the_administrators(callers: Callers) -> None:
    changes = [("PUT", "/v1/models/reports/aliases/champion", {"version": 1}),
               ("DELETE", "/v1/models/reports/aliases/champion", None), ("GET", "/v1/models/reports/versions", None),
               ("PUT", "/v1/models/reports/1/stage", {"stage": "staging"}), ("GET", "/v1/models/reports/audit", None),
               ("PUT", "/v1/models/reports/route", {"weights": {"1": 1}}), ("GET", "/v1/models/reports/route", None),
               ("DELETE", "/v1/models/reports/route", None), ("POST", "/v1/models/reports/load", {}),
               ("POST", "/v1/models/reports/unload", {}), ("POST", "/v2/repository/index", {}),
               ("POST", "/v2/repository/models/reports/load", {}), ("POST", "/v2/repository/models/reports/unload", {})]
    for method, path, body in changes:
        assert scope_of(path, method) == "admin"
        reply = callers.user.request(method, path, json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "insufficient_scope")
        assert httpx.request(method, callers.running.url + path, json=body).status_code == 401
        assert callers.admin.request(method, path, json=body).status_code in (200, 404), path
    assert callers.admin.get("/v1/models").status_code == 403  # no scope holds another
    assert callers.user.get("/v1/models/reports/1").json()["id"] == "reports/1"
    assert callers.user.get("/v1/models/reports/9").status_code == 404
    served = {(method.upper(), path) for path, methods in callers.user.get("/openapi.json").json()["paths"].items()
              for method in methods}
    forms = {"/reports": "/{model}", "/champion": "/{alias}", "/1/": "/{number}/"}
    named = set()
    for method, path, _ in changes:
        for word, form in forms.items():
            path = path.replace(word, form)
        named.add((method, path))
    ours = {one for one in served if scope_of(one[1].replace("{number}", "1"), one[0]) == "admin"}
    assert named == ours
    assert not [path for _, path in served if "register" in path]


def test_a_model_is_changed_and_the_change_holds_at_once(callers: Callers) -> None:
    admin = callers.admin
    assert admin.put("/v1/models/reports/aliases/champion", json={"version": 2}).json()["before"] is None
    assert callers.chat().json()["choices"][0]["message"]["content"] == "I am reports/2."
    assert admin.put("/v1/models/reports/3/stage", json={"stage": "archived"}).status_code == 200
    assert callers.chat(model="reports/3").status_code == 404
    refused = admin.put("/v1/models/reports/2/stage", json={"stage": "archived"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    route = admin.put("/v1/models/reports/route", json={"weights": {"1": 100}}).json()
    assert [(share["version"], share["baseline"]) for share in route["shares"]] == [(1, True)]
    assert callers.chat().json()["choices"][0]["message"]["content"] == "I am reports/1."
    versions = {one["version"]: one for one in admin.get("/v1/models/reports/versions").json()["data"]}
    assert [versions[number]["stage"] for number in (1, 2, 3)] == ["none", "none", "archived"]
    assert (versions[1]["traffic"], versions[2]["traffic"], versions[2]["aliases"]) == (1.0, None, ["champion"])
    assert [versions[number]["state"] for number in (1, 2, 3)] == ["READY", "READY", "UNAVAILABLE"]
    assert admin.delete("/v1/models/reports/route").status_code == 200
    assert admin.delete("/v1/models/reports/route").status_code == 404
    assert admin.get("/v1/models/reports/route").json()["shares"] == []
    log = admin.get("/v1/models/reports/audit?limit=2").json()["data"]
    assert [line["action"] for line in log] == ["route.drop", "route.set"]
    assert all(line["by"].startswith("key:") for line in log)
    older = admin.get(f"/v1/models/reports/audit?before={log[-1]['id']}").json()["data"]
    assert [line["action"] for line in older][:2] == ["stage.set", "alias.set"]


def test_models_are_loaded_and_unloaded(callers: Callers) -> None:
    admin = callers.admin

    def states() -> dict[str, str]:
        return {one["version"]: one["state"] for one in admin.post("/v2/repository/index").json()}

    assert set(states().values()) == {"UNAVAILABLE"}
    assert admin.post("/v1/models/reports/load", json={"version": 1, "pin": True}).status_code == 200
    assert admin.post("/v2/repository/models/reports/load", json={"parameters": {}}).status_code == 200
    assert states() == {"1": "READY", "2": "UNAVAILABLE", "3": "READY"}
    assert [one["version"] for one in admin.post("/v2/repository/index", json={"ready": True}).json()] == ["1", "3"]
    assert admin.post("/v2/repository/models/reports/unload",
                      json={"parameters": {"unload_dependents": True}}).status_code == 200
    assert states()["3"] == "UNAVAILABLE"
    gone = callers.chat(model="reports/3")
    assert (gone.status_code, gone.json()["error"]["code"]) == (503, "unavailable")
    assert admin.post("/v1/models/reports/unload", json={"version": 3, "lazy": True}).status_code == 200
    assert callers.chat(model="reports/3").status_code == 200
    assert admin.post("/v2/repository/models/nobody/load").status_code == 404
    for body in ({"parameters": {"config": "{}"}}, {"parameters": {"file:1/model": "AAAA"}}, {"path": "/etc"}):
        assert admin.post("/v2/repository/models/reports/load", json=body).status_code == 400
    for body in ({"version": 0}, {"version": "1"}, {"path": "/etc"}, {"pin": 1}):
        assert admin.post("/v1/models/reports/load", json=body).status_code == 400
    for name in ("%2e%2e%2fetc", "a%2fb", "%00", "x" * 200):
        assert admin.post(f"/v1/models/{name}/load").status_code in (400, 404, 405)


def test_conversations_are_each_keys_own(callers: Callers) -> None:
    for word in ("one", "two"):
        assert callers.chat(conversation="mine", messages=[{"role": "user", "content": word}]).status_code == 200
    assert callers.chat(callers.other, conversation="mine").status_code == 200
    listed = callers.user.get("/v1/conversations").json()["data"]
    assert [(one["name"], one["turns"], one["model"]) for one in listed] == [("mine", 4, "reports/3")]
    whole = callers.user.get("/v1/conversations/mine").json()
    assert [message["content"] for message in whole["messages"]] == ["one", "I am reports/3.", "two", "I am reports/3."]
    assert [len(callers.other.get("/v1/conversations/mine").json()["messages"])] == [2]
    assert callers.other.delete("/v1/conversations/mine").json() == {"deleted": 1}
    assert callers.other.get("/v1/conversations/mine").status_code == 404
    assert callers.user.get("/v1/conversations/mine").status_code == 200
    assert callers.user.get("/v1/conversations/no such").status_code == 400
    callers.chat(conversation="second")
    assert callers.user.delete("/v1/conversations").json() == {"deleted": 2}
    assert callers.user.get("/v1/conversations").json()["data"] == []
    prompts = [order.prompt for order in callers.running.house.loader.backends["reports/3"].orders]
    assert len(prompts[1]) > len(prompts[0])  # the second turn goes on from the first


def test_a_conversation_stays_with_its_version(callers: Callers) -> None:
    callers.registry.routes.set("reports", {1: 50, 2: 50}, by="ann")
    callers.admin.post("/v1/models/reports/unload", json={"version": 3, "lazy": True})  # the change is seen at once
    for name in ("a", "b", "c", "d", "e", "f"):
        answers = {callers.chat(conversation=name).json()["choices"][0]["message"]["content"] for _ in range(3)}
        assert len(answers) == 1
    users = {callers.chat(user=f"user-{number}").json()["choices"][0]["message"]["content"] for number in range(20)}
    assert len(users) == 2


@pytest.mark.parametrize(("fault", "code"), [
    (DiskFull("no room"), "insufficient_storage"), (StoreLost("gone"), "store_unavailable"),
    (Conflict("has 4 turns, not 2"), "conflict")], ids=["full", "lost", "conflict"])
def test_an_answer_that_cannot_be_kept_is_delivered_and_the_fault_told(
        callers: Callers, monkeypatch: pytest.MonkeyPatch, fault: Fault, code: str) -> None:
    assert callers.chat(conversation="c").status_code == 200
    fail(monkeypatch, callers.registry, fault)
    reply = callers.chat(conversation="c")
    assert reply.status_code == 200
    told = reply.json()
    assert told["choices"][0]["message"]["content"] == "I am reports/3."
    assert (told["conversation"]["name"], told["conversation"]["kept"]) == ("c", False)
    assert told["conversation"]["error"]["code"] == code
    streamed = callers.chat(conversation="c", stream=True, stream_options={"include_usage": True})
    events = [line.removeprefix("data: ") for line in streamed.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    *pieces, unkept, usage = [json.loads(event) for event in events[:-1]]
    assert "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces) == "I am reports/3."
    assert (unkept["choices"], unkept["conversation"]["error"]["code"]) == ([], code)
    assert usage["usage"]["completion_tokens"] > 0
    monkeypatch.undo()
    kept = callers.chat(conversation="c")
    assert "conversation" not in kept.json()
    assert callers.user.get("/v1/conversations/c").json()["turns"] == 4


def test_the_official_client_reads_an_answer_that_was_not_kept(callers: Callers,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    token = callers.user.headers["authorization"].removeprefix("Bearer ")
    fail(monkeypatch, callers.registry, DiskFull("no room"))
    with openai.OpenAI(base_url=f"{callers.running.url}/v1", api_key=token, max_retries=0) as client:
        made: Any = client.chat.completions.create
        whole = made(model="reports", messages=HELLO, extra_body={"conversation": "c"})
        assert whole.choices[0].message.content == "I am reports/3."
        assert whole.conversation["kept"] is False
        chunks = list(made(model="reports", messages=HELLO, stream=True, extra_body={"conversation": "c"}))
        assert "".join(part.delta.content or "" for chunk in chunks for part in chunk.choices) == "I am reports/3."


def test_keys_and_models_outlive_the_database(callers: Callers, monkeypatch: pytest.MonkeyPatch,
                                              tmp_path: Path) -> None:
    assert callers.chat().status_code == 200
    database = callers.registry.database
    lost = (callers.registry.place.file or tmp_path).with_suffix(".gone")

    def gone(*_: Any) -> Any:
        raise StoreLost(f"cannot open {lost}")

    monkeypatch.setattr(database, "read", gone)
    monkeypatch.setattr(database, "write", gone)
    running = callers.running
    running.call(lambda: setattr(running.serving.guard, "settings", running.serving.guard.settings.model_copy(
        update={"cached_s": 0.0})))  # ask the database each time
    for model in ("reports", "reports/1"):
        assert callers.chat(model=model).status_code == 200
    assert callers.user.get("/ready").status_code == 200
    for reply in (callers.user.get("/v1/conversations"), callers.chat(conversation="c"),
                  callers.chat(callers.other)):  # the last one's key was never seen
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
        assert str(lost) not in reply.text
    monkeypatch.undo()
    assert callers.chat(callers.other).status_code == 200
    assert callers.chat(conversation="c").status_code == 200
