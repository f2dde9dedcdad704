"""What tests of deploy/ share: where things lie, programs that may be missing, and names in PromQL."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "open-autoglm"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "open-autoglm.json"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
_WORDS = {"and", "or", "unless", "by", "on", "without", "ignoring", "bool", "group_left", "group_right", "offset"}
_VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$job": ".*", "$instance": ".*", "$model": ".*"}
_NOT_OURS = {"up"}
"""Prometheus's own."""


def program(name: str, package: str) -> str:
    """The path of a program, from `make tools` or the machine; the test is skipped where there is none."""
    ours = ROOT / ".tools" / "bin" / name
    found = str(ours) if ours.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} here ({package})")
    return found


def promtool() -> str:
    """Prometheus's checker."""
    return program("promtool", "Debian's package prometheus")


def call(*words: str | Path, given: str | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run([str(word) for word in words], input=given, capture_output=True, text=True, check=False,
                          timeout=120, **more)


def read_yaml(path: Path) -> Any:
    """A YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    """All alerts."""
    return [rule for group in read_yaml(ALERTS)["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """All panels of the dashboard that show something."""
    found = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Where each query stands, and the query, with Grafana's variables filled in."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", filled(target["expr"])


def filled(text: str) -> str:
    """A query of Grafana with its variables as Prometheus reads it."""
    for name, value in _VARIABLES.items():
        text = text.replace(name, value)
    assert "$" not in text, text
    return text


def metrics_of(text: str) -> dict[str, set[str]]:
    """The metrics that a query names, each with the labels that it chooses by."""
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
    plain = re.sub(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)", " ", plain)
    plain = re.sub(r"\[[^\]]*\]|\b\d[\w.]*", "", plain)
    found: dict[str, set[str]] = {}
    for name, chosen in re.findall(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?![\w:]*\s*\()", plain):
        if name not in _WORDS | _NOT_OURS:
            found.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", chosen or ""))
    return found


def parse_serve(words: list[str]) -> set[str]:
    """The options in a command line of ``autoglm``; all of them but the verb's must be those of the main command."""
    verb = words.index("serve")
    assert words[:verb] in ([], ["--log-format", "json"])
    return {word for word in words[verb + 1:] if word.startswith("--")}


def serve_options() -> set[str]:
    """All options of ``autoglm serve``."""
    from openautoglm.cli import serve

    command = typer.main.get_command(serve.app)
    return {option for parameter in command.params for option in parameter.opts}


def python() -> str:
    """The interpreter of the tools' environment, else this one."""
    ours = ROOT / ".tools" / "bin" / "python"
    return str(ours) if ours.exists() else sys.executable

