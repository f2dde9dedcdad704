"""Cleaning as a whole: every row accounted for, whole outputs, the same result however it is made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from openautoglm.core.errors import DataError, RuleError
from openautoglm.core.files import sha256_file
from openautoglm.data.clean import OUTPUTS, clean
from openautoglm.data.clean_settings import CleanSettings
from openautoglm.data.jsonl import read_examples
from openautoglm.data.rules.base import Rule
from openautoglm.data.rules.whitespace import Whitespace
from openautoglm.data.settings import DataSettings

COMMAND = """
import sys
from pathlib import Path
from openautoglm.data.clean import clean
from openautoglm.data.clean_settings import CleanSettings
from openautoglm.data.settings import DataSettings
print("go", flush=True)
data = DataSettings.model_validate_json(sys.argv[1])
clean(data, CleanSettings(workers=2), Path(sys.argv[2]), base=Path(sys.argv[3]))
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from openautoglm.data import clean as room
from openautoglm.data.clean_settings import CleanSettings
from openautoglm.data.settings import DataSettings
owner = room.os if sys.argv[4] == "replace" else room
step, calls = getattr(owner, sys.argv[4]), []
def last(*args, **options):
    result = step(*args, **options)
    calls.append(1)
    if len(calls) == int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, sys.argv[4], last)
data = DataSettings.model_validate_json(sys.argv[1])
room.clean(data, CleanSettings(workers=2), Path(sys.argv[2]), base=Path(sys.argv[3]))
"""
NO_SPLIT = {"split": {"valid": 0, "test": 0}}


def test_every_row_is_accounted_for(cleaning: Any) -> None:
    pairs = [*cleaning.pairs(20), ("record 3", cleaning.sentence(3)),
             ("twenty", "a  doubled   space in here"), ("empty", "")]
    report = cleaning.run(pairs, **NO_SPLIT)
    assert report.rows_read == {"train": 23}
    assert report.rows_out == {"train": 21}
    assert report.dropped == {"nulls": 1, "exact_duplicate": 1}
    assert cleaning.targets("train")[-1] == "a doubled space in here"
    dropped = cleaning.rows("dropped")
    assert [(row["rule"], row["line"]) for row in dropped] == [("nulls", 23), ("exact_duplicate", 21)]
    assert dropped[1]["reason"].endswith("train-raw.jsonl:4")
    whitespace = next(rule for rule in report.rules if rule.rule == "whitespace")
    assert whitespace.changed == 1
    assert whitespace.change_examples[0]["before"] == "a  doubled   space in here"


def test_rejects_are_kept_apart_and_named(cleaning: Any) -> None:
    data = cleaning.data(train=cleaning.pairs(200))
    with (cleaning.folder / "train-raw.jsonl").open("a") as file:
        file.write("{broken\n")
    report = clean(data, CleanSettings(workers=1), cleaning.out, base=cleaning.folder)
    assert report.rejects.rows == 1
    (rejected,) = cleaning.rows("rejected")
    assert rejected["line"] == 201
    assert rejected["raw"] == "{broken"
    assert next(iter(report.rejects.examples.values()))[0]["origin"].endswith(":201")


def test_too_many_rejects_stop_the_run_and_leave_no_seal(cleaning: Any) -> None:
    data = cleaning.data(train=cleaning.pairs(10))
    with (cleaning.folder / "train-raw.jsonl").open("a") as file:
        file.write("{broken\n" * 5)
    with pytest.raises(DataError, match="5 of 15 rows"):
        clean(data, CleanSettings(workers=1), cleaning.out, base=cleaning.folder)
    assert len(cleaning.rows("rejected")) == 5
    assert not (cleaning.out / "quality.json").exists()
    assert not (cleaning.out / "train.jsonl").exists()


def test_no_row_left_is_an_error(cleaning: Any) -> None:
    with pytest.raises(DataError, match="no row is left"):
        cleaning.run([("a", ""), ("b", "")])


def test_examples_come_back_with_their_origin(cleaning: Any) -> None:
    cleaning.run(cleaning.pairs(5), **NO_SPLIT)
    examples = list(read_examples(cleaning.out / "train.jsonl"))
    assert [example.origin.line for example in examples] == [1, 2, 3, 4, 5]
    assert examples[2].source == "record 2"


def test_a_rule_is_fitted_on_what_earlier_rules_leave(cleaning: Any) -> None:
    """With the null still there, its huge price would widen the limits so far that 900 passed."""
    pairs = [(f"price[{10 + number % 5}]", cleaning.sentence(number)) for number in range(60)]
    data = cleaning.data(train=[*pairs, ("price[900]", cleaning.sentence(99)), ("price[100000]", "")])
    data = data.model_copy(update={"fields": r"([\w ]+)\[([^\]]*)\]"})
    rules = ("nulls", {"outliers": {"fields": ["price"], "method": "zscore", "threshold": 5}})
    how = CleanSettings.model_validate({"rules": rules, "workers": 1, **NO_SPLIT})
    report = clean(data, how, cleaning.out, base=cleaning.folder)
    assert report.dropped == {"nulls": 1, "outliers": 1}
    assert [row["source"] for row in cleaning.rows("dropped")] == ["price[900]", "price[100000]"]


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_processes_does_not_show(cleaning: Any, workers: int) -> None:
    pairs = [(f"record {number // 3}", cleaning.sentence(number % 2500) + "  x") for number in range(3500)]
    cleaning.run(pairs)
    alone = hashes(cleaning.out)
    cleaning.run(pairs, workers=workers)
    assert hashes(cleaning.out) == alone


def test_a_failing_rule_names_its_row(cleaning: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Rule, example: Any) -> Any:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(Whitespace, "apply", fail)
    with pytest.raises(RuleError, match=r"raw.jsonl:1: rule 'whitespace' failed: ZeroDivisionError: boom"):
        cleaning.run(cleaning.pairs(3))
    assert leftovers(cleaning.out) == []


def test_one_run_at_a_time_in_a_folder(cleaning: Any) -> None:
    cleaning.out.mkdir()
    with (cleaning.out / ".clean.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another run"):
            cleaning.run(cleaning.pairs(3))


def test_other_files_and_stale_splits(cleaning: Any) -> None:
    cleaning.out.mkdir()
    (cleaning.out / "notes.txt").write_text("mine")
    cleaning.run(cleaning.pairs(40), split={"valid": 0.2, "test": 0.2})
    assert (cleaning.out / "test.jsonl").exists()
    cleaning.run(cleaning.pairs(40), split={"valid": 0.2, "test": 0})
    assert not (cleaning.out / "test.jsonl").exists()
    assert (cleaning.out / "notes.txt").read_text() == "mine"
    assert leftovers(cleaning.out) == []


@pytest.mark.slow
@pytest.mark.parametrize(("step", "call"), [("collect", 1), ("deal", 1), ("replace", 2)])
def test_a_killed_run_leaves_nothing_half_done(cleaning: Any, step: str, call: int) -> None:
    pairs = [(f"record {number // 3}", cleaning.sentence(number)) for number in range(9000)]
    data = cleaning.data(train=pairs)
    ended = subprocess.run([sys.executable, "-c", KILLED, data.model_dump_json(), str(cleaning.out),
                            str(cleaning.folder), step, str(call)], stderr=subprocess.DEVNULL, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (cleaning.out / "quality.json").exists()
    clean(data, CleanSettings(workers=2), cleaning.out, base=cleaning.folder)
    again = hashes(cleaning.out)
    clean(data, CleanSettings(workers=1), cleaning.folder / "other", base=cleaning.folder)
    assert hashes(cleaning.folder / "other") == again
    assert leftovers(cleaning.out) == []


@pytest.mark.slow
def test_an_interrupt_ends_all_processes(cleaning: Any) -> None:
    data = cleaning.data(train=[(f"record {number}", cleaning.sentence(number)) for number in range(60000)])
    process = subprocess.Popen([sys.executable, "-c", COMMAND, data.model_dump_json(), str(cleaning.out),
                                str(cleaning.folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               start_new_session=True, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    while process.poll() is None and written(cleaning.out / ".clean") < 500_000:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode != 0
    assert errors.count("Traceback") == 1
    assert "KeyboardInterrupt" in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert leftovers(cleaning.out) == []


@pytest.mark.data
@pytest.mark.slow
def test_the_planted_facts_of_e2e_are_found(shared_data: Path, tmp_path: Path) -> None:
    data = DataSettings(train=("trainset.csv",), valid=("devset.csv",), test=("testset_w_refs.csv",),
                        source="mr", target="ref")
    report = clean(data, CleanSettings(), tmp_path, base=shared_data / "e2e-nlg")
    assert report.rows_read == {"train": 42061, "valid": 4672, "test": 4693}
    assert report.duplicates_as_read["train"] == 1193
    doubled = {fault.side: fault.rows for fault in report.faults if fault.fault == "double spaces"}
    assert doubled["target"]["train"] == 5796
    shared = next(leak for leak in report.leaks if (leak.kind, leak.between) == ("target", ("train", "test")))
    assert shared.texts == 15
    assert report.rows_out["test"] == 4693
    assert sum(report.rows_out.values()) + sum(report.dropped.values()) == sum(report.rows_read.values())


def hashes(folder: Path) -> dict[str, str]:
    """Hashes of all results."""
    return {name: sha256_file(folder / name) for name in OUTPUTS if (folder / name).exists()}


def written(folder: Path) -> int:
    """Bytes of the files that stand in a folder at this moment."""
    sizes = []
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


def leftovers(folder: Path) -> list[str]:
    """What a run should not leave behind."""
    return [path.name for path in folder.iterdir() if path.name == ".clean" or path.name.endswith(".part")]
