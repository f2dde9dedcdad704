"""Settings of a process are really set, in a process of their own; refusals name the setting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from openautoglm.core.errors import ResourceError
from openautoglm.core.process import ProcessSettings, apply

SHOW = """
import json, os, resource, sys
from openautoglm.core.process import ProcessSettings, apply
done = apply(ProcessSettings.model_validate_json(sys.argv[1]))
print(json.dumps([done, os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0)),
                  resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.getrlimit(resource.RLIMIT_DATA)]))
try:
    bytearray(400 << 20)
except MemoryError:
    print("refused")
"""


def test_all_of_it_holds_for_the_process() -> None:
    cpu, nice = min(os.sched_getaffinity(0)), min(19, os.getpriority(os.PRIO_PROCESS, 0) + 1)
    asked = {"nice": nice, "cpus": [cpu], "open_files": 128, "data_bytes": 300 << 20}
    source = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run([sys.executable, "-c", SHOW, json.dumps(asked)], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": source})
    first, last = done.stdout.splitlines()
    assert json.loads(first)[1:] == [nice, [cpu], 128, [300 << 20] * 2]
    assert len(json.loads(first)[0]) == 4
    assert last == "refused"


def test_nothing_asked_nothing_done() -> None:
    assert apply(ProcessSettings()) == []
    assert apply(ProcessSettings(nice=os.getpriority(os.PRIO_PROCESS, 0))) == []


def test_refusals_name_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "setpriority", refuse)
    with pytest.raises(ResourceError, match=r"nice -20 cannot be had") as caught:
        apply(ProcessSettings(nice=-20))
    assert caught.value.where == "process.nice"
    assert "CAP_SYS_NICE" in str(caught.value.remedy)
    with pytest.raises(ResourceError, match="cannot be had"):
        apply(ProcessSettings(cpus=(60_000,)))
    monkeypatch.setattr("resource.setrlimit", refuse)
    with pytest.raises(ResourceError, match="128 cannot be had"):
        apply(ProcessSettings(open_files=128))


def test_where_processors_cannot_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(ResourceError, match="lets no process choose"):
        apply(ProcessSettings(cpus=(0,)))


@pytest.mark.parametrize("wrong", [{"nice": 20}, {"cpus": []}, {"open_files": 3}, {"speed": 1}], ids=str)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProcessSettings.model_validate(wrong)
