"""``autoglm doctor --model``: what it prints and writes, whom it refuses, and what it starts."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from command_line import autoglm
from openautoglm.cli import doctor, doctor_model, serve
from openautoglm.core.errors import BundleError, GenerationError, TaskError
from openautoglm.core.hardware import GIB, Machine
from openautoglm.core.kernel import Kernel, Limit
from openautoglm.models import hf
from openautoglm.models.bundle import export, open_bundle
from openautoglm.models.bundle_writer import write_bundle
from openautoglm.models.spec import GlmSpec
from openautoglm.pipeline.profile import VARIABLE, read_profile
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

MACHINE = Machine(cores=2, memory_bytes=16 * GIB, available_bytes=12 * GIB, limit_bytes=None, isa=("avx2",), gpus=(),
                  python="3.11.0", platform="Linux x86_64")
KERNEL = Kernel(memory_bytes=16 * GIB, swap_bytes=4 * GIB, swap_free_bytes=4 * GIB, swappiness=60, overcommit=0,
                huge_pages="never", allowed_cpus=(0, 1), online_cpus=(0, 1), quota=1.0, nice=0, may_raise=False,
                open_files=Limit(1024, 1 << 20))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle."""
    tokenizer = Tokenizer.train(["The Punter is a cheap pub near Café Rouge."] * 4, 300)
    spec = GlmSpec(vocab_size=8, hidden_size=32, layers=1, heads=2, kv_heads=1, head_dim=16, ffn_size=48,
                   max_positions=64).with_vocabulary(tokenizer.vocab_size, pad_id=tokenizer.pad_id,
                                                     eos_ids=(tokenizer.special["<|endoftext|>"],))
    path = tmp_path_factory.mktemp("doctor") / "my bundle"
    write_bundle(path, model=hf.build(spec, seed=1), spec=spec, tokenizer=tokenizer, template=Template(), card_facts={})
    return path


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Ask the doctor on a machine of paper, in this process, whose own affairs stay as they are."""
    monkeypatch.setattr(doctor, "probe", lambda: MACHINE)
    monkeypatch.setattr(doctor, "examine", lambda machine, **how: [])
    monkeypatch.setattr(doctor_model, "look", lambda: KERNEL)
    monkeypatch.setattr("openautoglm.core.process._limit", lambda *_: None)
    monkeypatch.setenv(VARIABLE, "")

    def asked(*arguments: object) -> Any:
        return CliRunner().invoke(doctor.app, [str(word) for word in arguments])

    return asked


def test_findings_commands_and_profile_as_json(ask: Callable[..., Any], bundle: Path) -> None:
    done = ask("--for", "serve", "--model", bundle, "--target", "torch:cpu", "--cache-tokens", 1024, "--nice", 5,
               "--format", "json")
    facts = json.loads(done.stdout)
    model = facts["model"]
    found = {finding["name"]: finding for finding in model["findings"]}
    assert (done.exit_code, facts["ready"]["serve"]) == (0, True)
    assert found["swappiness"]["commands"][0] == "sudo sysctl -w vm.swappiness=10"
    assert found["CPU clock"]["status"] == "unknown"
    assert model["demand"]["cache_tokens"] == 1024
    assert model["demand"]["process_bytes"] > model["demand"]["weight_bytes"] > 0
    assert model["profile"] == {"program": {"target": "torch:cpu", "cache_tokens": 1024, "threads": 1},
                                "process": {"nice": 5, "open_files": 4352}}


def test_the_table_tells_the_commands_whole(ask: Callable[..., Any], bundle: Path) -> None:
    done = ask("--model", bundle, "--target", "torch:cpu")
    assert "    echo vm.swappiness=10 | sudo tee /etc/sysctl.d/90-autoglm.conf\n" in done.stdout
    assert "--apply sets, without root: target torch:cpu" in done.stdout
    assert "huge pages:" not in done.stdout  # the blocks of this model are too small


def test_a_model_that_does_not_fit_is_not_ready_and_nothing_is_applied(
        ask: Callable[..., Any], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "probe", lambda: replace(MACHINE, available_bytes=1 << 20))
    path = tmp_path / "profile.yaml"
    done = ask("--for", "generate", "--model", bundle, "--target", "torch:cpu", "--apply", "--profile", path)
    assert done.exit_code == 1
    assert "not ready: evaluate, generate, serve, bench, sweep" in done.stdout.replace("\n", " ")
    assert not path.exists()


def test_apply_writes_the_profile_and_becomes_the_command(ask: Callable[..., Any], bundle: Path, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, list[str], str]] = []
    monkeypatch.setattr(os, "execvp", lambda file, args: started.append((file, args, os.environ[VARIABLE])))
    path = tmp_path / "profile.yaml"
    asked = ("--model", bundle, "--target", "torch:cpu", "--quantise", "int8", "--apply", "--profile", path)
    assert ask(*asked).exit_code == 0
    assert started == []
    done = ask(*asked, "--", "autoglm", "serve", bundle, "--port", "0")
    assert done.exit_code == 0, done.output
    assert started == [("autoglm", ["autoglm", "serve", str(bundle), "--port", "0"], str(path))]
    written = read_profile(path)
    assert written.program.quantise is not None
    assert (written.program.threads, written.process.open_files) == (1, 4352)


def test_a_command_that_is_not_there(ask: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    done = ask("--model", bundle, "--target", "torch:cpu", "--apply", "--profile", tmp_path / "p", "--", "/no/such")
    assert isinstance(done.exception, TaskError)
    assert done.exception.where == "/no/such"


@pytest.mark.parametrize(("arguments", "says"), [
    (["--for", "train", "--model", "x"], "autoglm check"), (["--for", "edge", "--model", "x"], "autoglm edge"),
    (["--apply"], "give --model"), (["autoglm", "serve"], "with --apply alone"), (["--nice", "30"], "--nice"),
], ids=["train", "edge", "apply alone", "command alone", "nice"])
def test_what_cannot_be_done_says_what_can(ask: Callable[..., Any], arguments: list[str], says: str) -> None:
    done = ask(*arguments)
    assert done.exit_code == 2
    assert says in done.output


def test_wrong_models_and_options_are_refused(ask: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    (damaged / "autoglm.json").write_text("{")
    (tmp_path / "empty").mkdir()
    for model, says in ((tmp_path / "none", "does not exist"), (damaged, "is damaged"),
                        (tmp_path / "empty", "config.json cannot be read"), (__file__, "")):
        done = ask("--model", model)
        assert isinstance(done.exception, BundleError), (model, done.exception)
        assert says in str(done.exception)
        assert done.exception.remedy
    assert isinstance(ask("--model", bundle, "--group", "32").exception, GenerationError)


def test_an_archive_is_opened(ask: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    path = export(open_bundle(bundle), tmp_path / "model.zip")
    facts = json.loads(ask("--model", path, "--target", "torch:cpu", "--format", "json").stdout)
    assert facts["model"]["demand"]["model"] == str(path)
    assert facts["model"]["demand"]["pack"] == ""


def test_a_version_of_the_registry_is_found(ask: Callable[..., Any], bundle: Path, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    from openautoglm.serve.registry.registry import open_registry

    monkeypatch.setenv("OPENAUTOGLM_REGISTRY", str(tmp_path / "models.db"))
    with open_registry() as use:
        kept = use.store.path(use.versions.register(bundle, "pubs", by="test", copy=True))
    facts = json.loads(ask("--model", "models:/pubs/1", "--target", "torch:cpu", "--format", "json").stdout)
    assert facts["model"]["demand"]["model"] == str(kept)


def test_the_server_takes_the_profile(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    monkeypatch.setattr(serve, "_run", lambda places, given, more, program, engine, watch: not taken.append(program))
    path, nice = tmp_path / "profile.yaml", os.getpriority(os.PRIO_PROCESS, 0)
    path.write_text(f"program: {{threads: 3, cache_tokens: 512}}\nprocess: {{nice: {nice}}}\n")
    runner = CliRunner()
    assert runner.invoke(serve.app, [str(bundle), "--profile", str(path), "--threads", "2"]).exit_code == 0
    assert runner.invoke(serve.app, [str(bundle)], env={VARIABLE: str(path)}).exit_code == 0
    assert [(program.threads, program.cache_tokens) for program in taken] == [(2, 512), (3, 512)]
    refused = runner.invoke(serve.app, [str(bundle), "--profile", str(tmp_path / "none.yaml")])
    assert isinstance(refused.exception, TaskError)


@pytest.mark.slow
def test_a_real_process_is_set_and_becomes_the_command(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    show = "import os; print(os.getpriority(os.PRIO_PROCESS, 0), os.environ['OPENAUTOGLM_PROFILE'])"
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 1)
    done = autoglm("doctor", "--model", bundle, "--target", "torch:cpu", "--nice", str(nice), "--apply",
                   "--profile", path, "--", sys.executable, "-c", show)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{nice} {path}"
