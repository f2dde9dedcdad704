"""Build the native extension with AddressSanitizer and UndefinedBehaviorSanitizer and run its tests under them.

Everything happens in a temporary folder: the package is copied there, the extension built into the copy. Each test file
runs in a process of its own on each instruction path, so that one fault does not hide the next. The exit status is 1
where a sanitizer, or a test, has found something.

    python benchmarks/sanitize.py [--isa portable,avx2,avx512] [--jobs 2] [--keep FOLDER] [TESTS ...]

Needs g++ with its sanitizer libraries, cmake and ninja, and nanobind (extra `dev`). Leaks are not looked for: Python
keeps much memory until it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SANITIZERS = "address,undefined"
LIBRARIES = ("libasan.so", "libubsan.so", "libstdc++.so")
MEASURED = "the_memory_that_is_taken or stays_below_it"
"""Tests that measure what a process takes, which a sanitizer multiplies; they are left out."""
_FAULT = re.compile(r"^.*(?:ERROR: AddressSanitizer|runtime error:|AddressSanitizer:DEADLYSIGNAL).*$", re.MULTILINE)
_FRAME = re.compile(r"^\s*#\d+ .*runtime/cpp/.*$", re.MULTILINE)
_TOTALS = re.compile(r"^(?=.*\d+ (?:passed|failed|skipped|error)).*$", re.MULTILINE)


class Outcome(NamedTuple):
    """What one file of tests gave on one path."""

    tests: str
    isa: str
    status: int
    faults: list[str]
    frames: list[str]
    totals: str
    tail: str

    @property
    def bad(self) -> bool:
        """Whether a sanitizer or a test found something; 5 is pytest's status where no test was chosen."""
        return self.status not in (0, 5) or bool(self.faults)


class ToolError(Exception):
    """A tool is missing or failed; the message says which and what to do."""


def environment() -> dict[str, str]:
    """The environment, with this Python's own tools first."""
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def call(*command: str) -> str:
    """Run a tool and return what it printed."""
    tool = shutil.which(command[0], path=environment()["PATH"])
    if tool is None:
        raise ToolError(f"{command[0]} is not here; install g++, cmake and ninja")
    done = subprocess.run([tool, *command[1:]], capture_output=True, text=True, check=False, env=environment())
    if done.returncode:
        raise ToolError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def libraries() -> list[str]:
    """The libraries that must be loaded before Python itself."""
    found = [call("g++", f"-print-file-name={name}").strip() for name in LIBRARIES]
    missing = [path for path in found[:2] if not Path(path).is_absolute()]
    if missing:
        raise ToolError(f"g++ has no {', '.join(missing)}; install its sanitizer libraries (libasan, libubsan)")
    return [path for path in found if Path(path).is_absolute()]


def build(folder: Path, jobs: int) -> Path:
    """Copy the package and build the extension into the copy; the folder for the search path."""
    source = folder / "src"
    shutil.copytree(ROOT / "src" / "openautoglm", source / "openautoglm", dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("_native*.so", "__pycache__"))
    made = folder / "build"
    call("cmake", "-S", str(ROOT), "-B", str(made), "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}",
         f"-DAUTOGLM_SANITIZE={SANITIZERS}")
    call("cmake", "--build", str(made), "--parallel", str(jobs))
    call("cmake", "--install", str(made), "--prefix", str(source))
    return source


def test(tests: Path, isa: str, source: Path, preload: Sequence[str]) -> Outcome:
    """Run one file of tests on one instruction path."""
    paths = [str(source), str(tests.parent), str(ROOT / "tests")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", f"not ({MEASURED})",
         str(tests)], cwd=ROOT,
        capture_output=True, text=True, check=False, errors="replace",
        env={**environment(), "PYTHONPATH": os.pathsep.join(paths), "LD_PRELOAD": ":".join(preload),
             "OPENAUTOGLM_ISA": isa, "PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "1",
             "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1:strict_string_checks=1",
             "UBSAN_OPTIONS": "print_stacktrace=1"})
    output = done.stdout + done.stderr
    totals = _TOTALS.findall(done.stdout)
    return Outcome(str(tests.relative_to(ROOT)), isa, done.returncode, _FAULT.findall(output),
                   _FRAME.findall(output)[:3], totals[-1] if totals else "did not finish", output[-3000:])


def paths_here(source: Path, preload: Sequence[str]) -> list[str]:
    """The instruction paths of the sanitized extension on this processor."""
    code = "from openautoglm.runtime.native import *; print(*native_module().supported_isas())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={**environment(), "PYTHONPATH": str(source), "LD_PRELOAD": ":".join(preload),
                               "ASAN_OPTIONS": "detect_leaks=0"})
    if done.returncode:
        raise ToolError(f"the sanitized extension does not load:\n{done.stderr[-4000:]}")
    return done.stdout.split()


def tell(outcome: Outcome) -> None:
    """Print what was found."""
    print(f"{outcome.isa:>9}  {outcome.tests}: {outcome.totals}", flush=True)
    for line in (*outcome.faults, *outcome.frames):
        print(f"           {line.strip()}", flush=True)
    if outcome.bad and not outcome.faults:
        print(outcome.tail, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, test, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tests", nargs="*", type=Path, help="files of tests; all of tests/runtime_native")
    parser.add_argument("--isa", help="instruction paths, with commas; all that this processor has")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    options = parser.parse_args(arguments)
    tests = [path.resolve() for path in options.tests] or sorted((ROOT / "tests/runtime_native").rglob("test_*.py"))
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            preload = libraries()
            source = build(folder, options.jobs)
            isas = options.isa.split(",") if options.isa else paths_here(source, preload)
        except ToolError as error:
            print(error, file=sys.stderr)
            return 2
        outcomes = []
        for isa in isas:
            for path in tests:
                outcomes.append(test(path, isa, source, preload))
                tell(outcomes[-1])
        bad = sum(outcome.bad for outcome in outcomes)
        print(f"{len(outcomes)} runs, {bad} with findings")
        return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
