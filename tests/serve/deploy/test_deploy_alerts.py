"""Alerts and dashboard: valid, tried on made-up series, and whole."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy_tools import ALERTS, DASHBOARD, DEPLOY, call, expressions, metrics_of, panels, promtool, read_yaml, rules

FOLDER = ALERTS.parent


def test_the_rules_are_valid() -> None:
    done = call(promtool(), "check", "rules", ALERTS)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    given = read_yaml(FOLDER / "prometheus.yaml")
    authorization = given["scrape_configs"][0]["authorization"]
    assert authorization["credentials_file"] == "/run/secrets/metrics_key"
    (tmp_path / "key").write_text("a key")
    authorization["credentials_file"] = str(tmp_path / "key")  # promtool looks whether it is there
    given["rule_files"] = [str(ALERTS)]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(given))
    done = call(promtool(), "check", "config", tmp_path / "prometheus.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_comes_and_stays_away_as_it_should() -> None:
    done = call(promtool(), "test", "rules", FOLDER / "alerts_test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    cases = [case for test in read_yaml(FOLDER / "alerts_test.yaml")["tests"] for case in test["alert_rule_test"]]
    for alert in (rule["alert"] for rule in rules()):
        told = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == alert}
        assert told == {True, False}, f"{alert}: try both, that it fires and that it does not"


def test_an_alert_that_is_wrong_would_be_found(tmp_path: Path) -> None:
    text = ALERTS.read_text(encoding="utf-8")
    assert text.count("> 0.95") == 1
    (tmp_path / "alerts.yaml").write_text(text.replace("> 0.95", "> 1.95"))
    (tmp_path / "alerts_test.yaml").write_text((FOLDER / "alerts_test.yaml").read_text(encoding="utf-8"))
    done = call(promtool(), "test", "rules", tmp_path / "alerts_test.yaml")
    assert done.returncode == 1
    assert "AutoglmCachePressure" in done.stdout + done.stderr


def test_alerts_say_what_is_wrong_and_how_bad() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")


def test_every_query_can_be_read(tmp_path: Path) -> None:
    made = [{"record": f"query:{number}", "expr": text} for number, (_, text) in enumerate(expressions())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": made}]}))
    done = call(promtool(), "check", "rules", tmp_path / "rules.yaml")
    assert done.returncode == 0, done.stderr


def test_the_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    names = [panel["id"] for panel in board["panels"]]
    assert len(names) == len(set(names))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
    variables = {item["name"] for item in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(?!__)(\w+)", json.dumps(board)))
    assert used == variables
    for panel in panels():
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_grafana_finds_the_dashboard() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    source = read_yaml(folder / "datasources" / "prometheus.yaml")["datasources"][0]
    place = read_yaml(folder / "dashboards" / "open-autoglm.yaml")["providers"][0]["options"]["path"]
    services = read_yaml(DEPLOY / "compose.yaml")["services"]
    assert source["url"] == "http://prometheus:9090"
    assert f"./grafana/dashboards:{place}:ro" in services["grafana"]["volumes"]
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in services["grafana"]["volumes"]


@pytest.mark.parametrize(("text", "found"), [
    ('sum by (le) (rate(a:b_bucket{x="y{", z=~"q"}[5m])) > 1e9 and on (i) c == 0',
     {"a:b_bucket": {"x", "z"}, "c": set()}),
    ("histogram_quantile(0.99, sum by (le, m) (rate(n_bucket[5m])))", {"n_bucket": set()}),
    ('absent(up{job="x"})', {}), ("1000 * d / 2^30 or vector(0)", {"d": set()})],
    ids=["labels", "nested", "up", "numbers"])
def test_names_in_queries_are_found(text: str, found: dict[str, Any]) -> None:
    assert metrics_of(text) == found
