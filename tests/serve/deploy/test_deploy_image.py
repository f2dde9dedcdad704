"""Image, compose file and unit: checked by their own tools, and by what the server knows."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from deploy_tools import DEPLOY, ROOT, call, parse_serve, program, read_yaml, serve_options

from openautoglm.serve.wire.limits import Limits

IMAGE = DEPLOY / "Dockerfile"
UNIT = DEPLOY / "systemd" / "autoglm.service"


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", IMAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def last(name: str) -> str:
    return [rest for word, rest in instructions() if word == name][-1]


def test_hadolint_finds_no_fault() -> None:
    done = call(program("hadolint", "make tools"), IMAGE)
    assert done.returncode == 0, done.stdout


def test_the_image_runs_as_nobody_special_and_can_be_asked() -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", last("USER"))
    assert last("STOPSIGNAL") == "SIGTERM"
    assert "/healthz" in last("HEALTHCHECK")
    assert json.loads(last("ENTRYPOINT")) == ["autoglm"]
    words = json.loads(last("CMD"))
    assert parse_serve(words) <= serve_options()
    assert "--registry" in words  # which asks for keys
    assert "g++" not in IMAGE.read_text(encoding="utf-8").rpartition("FROM ")[2]


def test_nothing_secret_and_nothing_needless_goes_to_the_builder() -> None:
    text = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line[:1] not in ("#", "")]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copies = [rest.split()[:-1] for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    copied = {word for words in copies for word in words}
    assert {word.removeprefix("./") for word in copied} == let_in
    assert all((ROOT / word).exists() for word in let_in)


def test_what_the_image_installs_is_what_the_server_needs() -> None:
    """The program of the Dockerfile that reads pyproject.toml."""
    [step] = [rest for name, rest in instructions() if name == "RUN" and "wanted.txt" in rest]
    text = re.search(r'python -c "(import tomllib.*?)" > wanted', step, re.DOTALL)
    assert text is not None
    done = call(sys.executable, "-c", text[1].replace('\\"', '"'), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    wanted = done.stdout.split("\n")
    assert {"fastapi>=0.115", "numpy>=2", "psycopg[binary]"} <= set(wanted)
    assert not [line for line in wanted if line.startswith(("torch", "pytest", "ray"))]
    assert "-c constraints.txt" in step


def compose(tmp_path: Path, **variables: str) -> Any:
    """What compose makes of the file."""
    binary = program("docker-compose", "make tools")
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables}
    done = call(binary, "--env-file", "/dev/null", "-f", DEPLOY / "compose.yaml", "config", "--format", "json",
                env=clean)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def test_compose_takes_the_file(tmp_path: Path) -> None:
    assert "GRAFANA_PASSWORD" in compose(tmp_path)
    services = compose(tmp_path, GRAFANA_PASSWORD="word")["services"]
    assert services.keys() == {"server", "prometheus", "grafana"}
    for name, service in services.items():
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}, name
        assert service["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory", "pids"}, name
        assert service["healthcheck"]["test"], name
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    server = services["server"]
    assert parse_serve(server["command"]) <= serve_options()
    seconds = int(server["command"][server["command"].index("--shutdown-timeout") + 1])
    assert server["stop_grace_period"] == f"{seconds + 15}s"
    assert server["build"]["dockerfile"] == "deploy/Dockerfile"


def test_every_variable_of_the_compose_file_is_explained(tmp_path: Path) -> None:
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text(encoding="utf-8")))
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    said = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert said.keys() == used
    made = compose(tmp_path, **{**said, "GRAFANA_PASSWORD": "word"})
    assert made == compose(tmp_path, GRAFANA_PASSWORD="word")  # they are the defaults


def test_what_is_mounted_is_there() -> None:
    for service in read_yaml(DEPLOY / "compose.yaml")["services"].values():
        for volume in service["volumes"]:
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).partition(":")[0]
            if source.startswith("./") and source != "./bundles":
                assert (DEPLOY / source).exists(), source


def test_the_limits_are_limits() -> None:
    assert Limits.model_validate(read_yaml(DEPLOY / "limits.yaml")).max_tokens == 2048


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    text = UNIT.read_text(encoding="utf-8")
    made = tmp_path / UNIT.name
    made.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    done = call("systemd-analyze", "verify", made)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    told = call("systemd-analyze", "security", "--offline=true", made).stdout
    level = re.search(r"Overall exposure level for .*: ([\d.]+)", told)
    if level is not None:  # older ones cannot look at files
        assert float(level[1]) < 2


def test_the_unit_starts_what_there_is() -> None:
    text = UNIT.read_text(encoding="utf-8")
    command = re.search(r"^ExecStart=\S+/autoglm (.*)$", text, re.MULTILINE)
    assert command is not None
    words = command[1].split()
    assert parse_serve(words) <= serve_options()
    seconds = int(words[words.index("--shutdown-timeout") + 1])
    assert f"TimeoutStopSec={seconds + 15}" in text
    assert words[words.index("--host") + 1] == "127.0.0.1"
