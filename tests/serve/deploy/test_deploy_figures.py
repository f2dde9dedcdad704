"""What dashboard and alerts ask for is what a running server has, and what Prometheus reads of it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import yaml
from deploy_tools import ALERTS, call, expressions, filled, metrics_of, panels, program, promtool, read_yaml, rules
from prometheus_client.parser import text_string_to_metric_families
from rest_tools import MODEL, Running, engine_backend

from openautoglm.serve.guard import secret
from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.guard.settings import GuardSettings
from openautoglm.serve.registry.keys import KeyRecord
from openautoglm.serve.service.language import Language

OF_PROMETHEUS = {"job", "instance", "namespace", "pod", "le"}


class Keys:
    """A key of each scope, in memory."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}
        self._records: dict[str, KeyRecord] = {}
        for scope in ("infer", "metrics"):
            key_id, token, hashed = secret.mint()
            self.tokens[scope] = token
            self._records[key_id] = KeyRecord(key_id, scope, hashed, frozenset({scope}))

    def get(self, key_id: str) -> KeyRecord | None:
        return self._records.get(key_id)

    def touch(self, key_id: str) -> None:
        assert key_id in self._records


@dataclass
class Busy:
    """A server that has met all kinds of requests."""

    server: Running
    keys: Keys

    def ask(self, **fields: Any) -> int:
        """Send one request; its status."""
        body = {"model": MODEL, "prompt": "The", "max_tokens": 4, **fields}
        headers = {"authorization": f"Bearer {self.keys.tokens['infer']}"}
        return httpx.post(f"{self.server.url}/v1/completions", json=body, headers=headers, timeout=60).status_code

    def page(self) -> str:
        """What Prometheus reads."""
        headers = {"authorization": f"Bearer {self.keys.tokens['metrics']}"}
        return httpx.get(f"{self.server.url}/metrics", headers=headers).raise_for_status().text


@pytest.fixture(scope="module")
def busy(language: Language) -> Iterator[Busy]:
    keys, gate, held = Keys(), threading.Event(), threading.Event()
    gate.set()

    def before(_: int) -> None:
        held.set()
        assert gate.wait(60)

    guard = Guard(keys, GuardSettings(failures_per_min=10_000))
    with Running(language, lambda: engine_backend(language, before=before, max_batch=1), guard=guard,
                 options={"queue": {"requests": 0}}) as server:
        found = Busy(server, keys)
        assert [found.ask(), found.ask(n=2), found.ask(max_tokens=0), found.ask(model="none")] == [200, 200, 400, 404]
        assert found.ask(prompt="word " * 600, raw=True, truncate="window", max_tokens=4) == 200
        gate.clear()
        held.clear()
        first = threading.Thread(target=found.ask)
        first.start()
        assert held.wait(60)
        full = found.ask()
        gate.set()
        first.join(60)
        assert full == 429
        yield found


def test_what_is_asked_for_is_there(busy: Busy) -> None:
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(busy.page()):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    assert "vllm:time_to_first_token_seconds_bucket" in labels
    for where, text in expressions():
        asked = metrics_of(text)
        assert asked or "up{" in text, where
        for name, chosen in asked.items():
            assert name in labels, f"{where}: a server has no {name}"
            assert chosen <= labels[name] | OF_PROMETHEUS, f"{where}: {name} has no {chosen - labels[name]}"
        grouped = {word for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", text)
                   for word in re.split(r"\s*,\s*", group.strip())}
        assert grouped <= OF_PROMETHEUS.union(*(labels[name] for name in asked)), where


def test_a_full_queue_is_counted_as_the_alert_reads_it(busy: Busy) -> None:
    rule = next(rule for rule in rules() if rule["alert"] == "AutoglmQueueFull")
    assert 'autoglm:request_faults_total{kind="overloaded"}' in rule["expr"]
    assert f'autoglm:request_faults_total{{kind="overloaded",model_name="{MODEL}"}} 1.0' in busy.page()


def test_promtool_complains_of_nothing_but_colons(busy: Busy) -> None:
    page = busy.page()
    done = call(promtool(), "check", "metrics", given=page)
    told = done.stderr.strip().splitlines()
    assert all(re.fullmatch(r"(vllm|autoglm):\w+ metric names should not contain ':'", line) for line in told), told
    plain = re.sub(r"\b(vllm|autoglm):", r"\1_", page)
    done = call(promtool(), "check", "metrics", given=plain)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@dataclass
class Prometheus:
    """A running one."""

    url: str

    def get(self, path: str, **given: str) -> Any:
        """What its interface says."""
        return httpx.get(f"{self.url}/api/v1/{path}", params=given).raise_for_status().json()["data"]

    def until(self, query: str) -> None:
        """Wait until a query has a result."""
        for _ in range(300):
            if self.get("query", query=query)["result"]:
                return
            time.sleep(0.1)
        raise AssertionError(f"Prometheus never had {query}; targets: {self.get('targets')}")


@pytest.fixture(scope="module")
def prometheus(busy: Busy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with our configuration; target, key and haste are the test's."""
    folder = tmp_path_factory.mktemp("prometheus")
    given = read_yaml(ALERTS.parent / "prometheus.yaml")
    scrape = given["scrape_configs"][0]
    (folder / "key").write_text(busy.keys.tokens["metrics"])
    scrape["authorization"]["credentials_file"] = str(folder / "key")
    scrape["static_configs"] = [{"targets": [busy.server.url.removeprefix("http://")]}]
    given["global"] = {"scrape_interval": "500ms", "scrape_timeout": "400ms", "evaluation_interval": "500ms"}
    given["rule_files"] = [str(ALERTS)]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(given))
    port = free_port()
    command = [program("prometheus", "Debian's package"), f"--config.file={folder}/prometheus.yaml",
               f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            found = Prometheus(f"http://127.0.0.1:{port}")
            for _ in range(300):
                try:
                    if httpx.get(f"{found.url}/-/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            found.until("up == 1")
            for status in (200, 200, 400):  # figures that grow while it looks
                assert busy.ask(**({"max_tokens": 0} if status == 400 else {"max_tokens": 8})) == status
            found.until(f'increase(vllm:generation_tokens_total{{model_name="{MODEL}"}}[1m]) > 0')
            yield found
        finally:
            process.terminate()


EMPTY = {"Guesses that came true"}
"""Panels that have nothing to show where a server does not guess ahead: 0 of 0."""


@pytest.mark.slow
def test_prometheus_draws_every_panel(prometheus: Prometheus) -> None:
    shown: dict[str, list[Any]] = {}
    for panel in panels():
        for target in panel["targets"]:
            shown.setdefault(panel["title"], []).extend(prometheus.get("query", query=filled(target["expr"]))["result"])
    assert {title for title, found in shown.items() if not found} == set()
    numbers = {title for title, found in shown.items() if any(item["value"][1] != "NaN" for item in found)}
    assert shown.keys() - numbers <= EMPTY
    assert [float(item["value"][1]) for item in shown["Engines ready"]] == [1.0]


@pytest.mark.slow
def test_prometheus_takes_every_alert_and_none_fires(prometheus: Prometheus) -> None:
    for _ in range(100):
        found = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        if all(rule["health"] == "ok" for rule in found):
            break
        time.sleep(0.1)
    assert {rule["name"]: rule["health"] for rule in found} == {rule["alert"]: "ok" for rule in rules()}
    assert [rule["name"] for rule in found if rule["state"] == "firing"] == []


@pytest.mark.slow
def test_prometheus_fills_the_menus_of_the_dashboard(prometheus: Prometheus) -> None:
    for label in ("job", "instance", "model_name"):
        values = prometheus.get(f"label/{label}/values", **{"match[]": "autoglm:engine_ready"})
        assert values, label
    assert prometheus.get("label/job/values") == ["autoglm"]
    assert json.dumps(prometheus.get("label/model_name/values")) == json.dumps([MODEL])
