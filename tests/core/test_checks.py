"""The doctor: what it finds, whom it blocks, and what it says to do."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openautoglm.cli import doctor
from openautoglm.core import checks, installation
from openautoglm.core.checks import blocking, examine
from openautoglm.core.hardware import GIB, Gpu, Machine
from openautoglm.core.needs import NEEDS, Finding

MACHINE = Machine(cores=4, memory_bytes=16 * GIB, available_bytes=12 * GIB, limit_bytes=None,
                  isa=("fma", "avx2"), gpus=(), python="3.11.0", platform="Linux x86_64")


@pytest.fixture(autouse=True)
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of this machine say nothing."""
    monkeypatch.setattr(checks, "output", lambda *_: None)


def found(name: str, machine: Machine = MACHINE, **how: object) -> Finding:
    findings = examine(machine, **how)  # type: ignore[arg-type]
    return next(finding for finding in findings if finding.name == name)


def test_every_failure_and_warning_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "installed", lambda module: False)
    poor = replace(MACHINE, available_bytes=0, isa=())
    bad = [finding for finding in examine(poor) if finding.status in ("failure", "warning")]
    assert {"memory", "instruction set", "torch", "compiler"} <= {finding.name for finding in bad}
    assert all(finding.remedy for finding in bad)


def test_little_memory_blocks_only_the_verbs_that_need_more() -> None:
    memory = found("memory", replace(MACHINE, available_bytes=GIB))
    assert memory.status == "failure"
    assert "train" in memory.blocks
    assert "doctor" not in memory.blocks
    assert found("memory", replace(MACHINE, available_bytes=3 * GIB)).status == "warning"
    assert found("memory").status == "ok"


def test_a_missing_package_blocks_its_verbs_and_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "installed", lambda module: module != "optuna")
    optuna = found("optuna")
    assert (optuna.status, set(optuna.blocks)) == ("failure", {"run", "search"})
    assert "openautoglm[train]" in optuna.remedy
    assert blocking([optuna], "clean") == []


def test_a_package_that_does_not_import_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sacrebleu_broken.py").write_text("raise OSError('libgomp.so.1: cannot open')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(NEEDS, "evaluate", replace(NEEDS["evaluate"], modules=("sacrebleu_broken",)))
    broken = found("sacrebleu_broken", verb="evaluate")
    assert broken.status == "failure"
    assert "libgomp" in broken.found
    assert found("sacrebleu_broken").status == "ok"


def test_a_version_outside_our_ranges_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = ["rich<2", "optuna>=1000; extra == 'train'", "pytest<2; extra == 'dev'", "not-there>=1"]
    monkeypatch.setattr(installation.importlib.metadata, "requires", lambda _: ranges)
    versions = found("versions")
    assert versions.status == "warning"
    assert "rich" in versions.found
    assert "optuna" in versions.found
    assert "pytest" not in versions.found


@pytest.mark.parametrize(("answers", "status"), [
    ({"timedatectl": "yes\n"}, "ok"), ({"timedatectl": "no\n"}, "warning"), ({}, "unknown"),
    ({"chronyc": "Leap status     : Normal\n"}, "ok"),
    ({"chronyc": "Leap status : Not synchronised"}, "warning"),
])
def test_the_clock_is_asked_of_systemd_then_chrony(monkeypatch: pytest.MonkeyPatch, answers: dict[str, str],
                                                   status: str) -> None:
    monkeypatch.setattr(checks, "output", lambda program, *_: answers.get(program))
    assert found("clock").status == status
    assert found("clock").blocks == ()


def test_a_port_in_use_is_seen() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert found("port", port=port).status == "warning"
    assert found("port", port=port).status == "ok"


def test_gpus_are_listed() -> None:
    gpu = found("GPU", replace(MACHINE, gpus=(Gpu("A card", 80 * GIB),)))
    assert gpu.found == "A card 80 GiB"


@pytest.fixture
def poor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "probe", lambda: replace(MACHINE, available_bytes=GIB // 2))


@pytest.mark.usefixtures("poor")
@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--for", "train"], 1), (["--for", "doctor"], 0)])
def test_the_exit_code_is_one_only_if_the_asked_verb_cannot_run(arguments: list[str], code: int,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_import_fault", lambda module: None)
    result = CliRunner().invoke(doctor.app, arguments)
    assert result.exit_code == code, result.output
    assert "0.5 GiB free" in result.output
    assert "not ready: run, search, train" in result.output


@pytest.mark.usefixtures("poor")
def test_json_holds_all_findings() -> None:
    result = CliRunner().invoke(doctor.app, ["--format", "json"])
    facts = json.loads(result.output)
    assert facts["ready"]["train"] is False
    memory = next(finding for finding in facts["findings"] if finding["name"] == "memory")
    assert memory["status"] == "failure"
    assert memory["remedy"]


@pytest.mark.parametrize("arguments", [["--for", "fly"], ["--format", "xml"]])
def test_unknown_words_are_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(doctor.app, arguments)
    assert result.exit_code == 2


def test_the_needs_name_every_verb_of_the_command_line() -> None:
    from openautoglm.cli.main import VERBS

    assert set(NEEDS) == set(VERBS)


def test_a_missing_module_names_the_extra_of_its_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "installed", lambda module: module not in ("sqlalchemy", "polars"))
    found = {finding.name: finding for finding in installation.modules(())}
    assert "[serve]" in found["sqlalchemy"].remedy
    assert {"models", "keys"} <= set(found["sqlalchemy"].blocks)
    assert "[train]" in found["polars"].remedy
