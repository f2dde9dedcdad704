"""The command line itself: help, unknown verbs, global options, errors without tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import ENVIRONMENT, autoglm
from openautoglm.cli import failure, main
from openautoglm.core.errors import BundleError, DataError, Fault, TaskError


def test_help_names_every_verb_and_imports_none_of_them() -> None:
    probe = ("import sys; from openautoglm.cli.main import main\n"
             "try: main(['--help'])\nexcept SystemExit: pass\n"
             "heavy = {'torch', 'transformers', 'numpy', 'rich', 'pydantic', 'optuna'} & set(sys.modules)\n"
             "sys.exit(f'imported {heavy}' if heavy else 0)")
    done = subprocess.run([sys.executable, "-c", probe], env=ENVIRONMENT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    for verb in main.VERBS:
        assert f"  {verb} " in done.stdout.decode()


@pytest.mark.parametrize("verb", main.VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main([verb, "--help"])
    assert caught.value.code == 0
    assert "Usage: autoglm" in capsys.readouterr().out


def test_an_unknown_verb_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["rum"])
    assert caught.value.code == 2
    assert "Did you mean 'run'?" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("openautoglm ")


def test_global_options_may_stand_anywhere() -> None:
    assert main.hoist(["run", "t.yaml", "--quiet", "--log-format", "json", "--debug"]) == [
        "--quiet", "--log-format", "json", "--debug", "run", "t.yaml"]
    assert main.hoist(["generate", "b", "--", "--quiet"]) == ["generate", "b", "--", "--quiet"]


def test_a_faulty_task_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("data: {trian: a.csv}\n")
    done = autoglm("run", tmp_path / "t.yaml")
    assert done.returncode == 2
    assert "did you mean train?" in done.stderr
    assert "Traceback" not in done.stderr
    as_json = autoglm("run", tmp_path / "t.yaml", "--log-format", "json")
    entry = json.loads(as_json.stderr.splitlines()[-1])
    assert entry["error"] == "TaskError"
    assert entry["faults"][0]["line"] == 1


@pytest.mark.parametrize(("error", "code", "said"), [
    (DataError("bad row", where="a.csv:3", remedy="mend it"), 2, "remedy: mend it"),
    (BundleError("not a bundle"), 1, "not a bundle"),
    (TaskError("1 fault", faults=(Fault("a.b", 2, 3, "wrong", "use c"),)), 2, "line 2, column 3: a.b: wrong (use c)"),
    (KeyboardInterrupt(), 130, "again goes on where this stopped"),
    (PermissionError(13, "Permission denied", "/x"), 1, "/x"),
])
def test_what_is_said_of_errors(error: BaseException, code: int, said: str,
                                capsys: pytest.CaptureFixture[str]) -> None:
    assert failure.tell(error, ["run", "t.yaml"]) == code
    assert said in capsys.readouterr().err


def test_bugs_and_debug_keep_their_traceback() -> None:
    assert failure.tell(ZeroDivisionError(), ["run"]) is None
    assert failure.tell(DataError("x"), ["run", "--debug"]) is None
