"""The log: text for people, JSON for machines, nothing lost and nothing doubled."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator

import pytest

from openautoglm.core import log
from openautoglm.core.errors import TaskError


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    logger = log.get()
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


def test_text_has_level_room_message_and_extras(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("text")
    facts = {"rows": 12, "share": 0.123456789, "file": "a b.csv"}
    log.get("openautoglm.data.clean").info("cleaned", extra=facts)
    line = capsys.readouterr().err
    assert line.endswith('INFO    data.clean: cleaned  rows=12 share=0.123457 file="a b.csv"\n')


def test_json_is_one_object_a_line_with_the_extras(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "debug")
    log.get("train").debug("step\nnext", extra={"loss": math.nan, "shape": (2, math.inf), "kind": ValueError})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    entry = json.loads(lines[0], parse_constant=lambda name: pytest.fail(f"not JSON: {name}"))
    assert entry["time"].endswith("+00:00")
    assert entry["level"] == "debug"
    assert entry["logger"] == "openautoglm.train"
    assert entry["message"] == "step\nnext"
    assert entry["loss"] == "nan"
    assert entry["shape"] == [2, "inf"]
    assert entry["kind"] == "<class 'ValueError'>"


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_a_traceback_is_kept(capsys: pytest.CaptureFixture[str], fmt: log.Format) -> None:
    log.configure(fmt)
    try:
        raise ValueError("broken")
    except ValueError:
        log.get("x").exception("failed")
    text = capsys.readouterr().err
    assert "failed" in text
    assert "ValueError: broken" in text


def test_an_extra_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("text")
    log.get("x").info("read", extra={"file": "a\n12:00:00 ERROR all is lost"})
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_configuring_again_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("text")
    log.configure("text", "error")
    log.get("x").warning("not shown")
    log.get("x").error("shown once")
    assert capsys.readouterr().err.count("shown") == 1


def test_a_closed_standard_error_loses_the_record_only(monkeypatch: pytest.MonkeyPatch) -> None:
    log.configure("text")
    monkeypatch.setattr(sys, "stderr", None)
    log.get("x").error("to nobody")
    assert log.write_line("to nobody") is False


@pytest.mark.parametrize(("fmt", "level"), [("xml", "info"), ("text", "loud")])
def test_unknown_settings_are_refused(fmt: log.Format, level: str) -> None:
    with pytest.raises(TaskError, match="unknown log"):
        log.configure(fmt, level)


def test_every_logger_is_ours() -> None:
    assert log.get("x").name == "openautoglm.x"
    assert log.get("openautoglm.data").name == "openautoglm.data"
    assert log.get("openautoglmx").name == "openautoglm.openautoglmx"
    assert isinstance(log.get(), logging.Logger)
