"""The edge program, compiled on the user's machine from the sources in the package: a static executable.

The kernels are those of the extension, compiled for all instruction paths of the processor's kind; which one runs is
decided when the program starts.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from openautoglm.core.errors import ResourceError
from openautoglm.core.progress import Progress, progress

FEATURES = ("http", "log")
"""What may be left out of the program."""
_ROOT = Path(__file__).resolve().parents[1]
_ENGINE, _OWN = _ROOT / "runtime" / "cpp", _ROOT / "edge" / "cpp"
_INCLUDES = (_ENGINE, _ROOT / "runtime" / "include", _OWN)
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mprefer-vector-width=512")
_FLAGS = ("-std=c++17", "-O2", "-ffp-contract=off", "-ffunction-sections", "-fdata-sections")
_LINK = ("-static", "-pthread", "-Wl,--gc-sections", "-s")
_PACKING = ("packing.cpp", "pack_stored.cpp")  # packing is done before
_LIMIT_S = 600


@dataclass(frozen=True)
class _Unit:
    source: Path
    flags: tuple[str, ...]


def compile_program(target: Path, *, without: Collection[str] = (), compiler: str | None = None) -> Path:
    """Compile and link the program; it is whole or absent.

    Args:
        target: where it shall lie.
        without: features to leave out: `FEATURES`.
        compiler: the command; None: that of the environment's CXX, or g++, c++, clang++.

    Raises:
        ResourceError: there is no compiler, it fails, or it cannot link statically.
    """
    check_wanted(without, compiler)
    command = _compiler(compiler)
    x86 = _is_x86(command)
    units = _units(without, x86)
    with tempfile.TemporaryDirectory(prefix=".autoglm-edge-", dir=target.parent) as folder:
        objects = [Path(folder) / f"{number}.o" for number in range(len(units))]
        with (progress(len(units) + 1, "compiling the edge program", "files") as bar,
              ThreadPoolExecutor(len(os.sched_getaffinity(0))) as workers):
            jobs = [workers.submit(_object, command, unit, out, without, x86=x86)
                    for unit, out in zip(units, objects, strict=True)]
            _wait(jobs, bar)
            made = Path(folder) / "program"
            _run([*command, *map(str, objects), *_LINK, "-o", str(made)], "static linking")
            bar.advance()
        os.replace(made, target)
    return target


def check_wanted(without: Collection[str], compiler: str | None) -> None:
    """See, before anything long is begun, that there is a compiler and that the features exist.

    Raises:
        ResourceError: there is none, or no such feature.
    """
    if unknown := set(without) - set(FEATURES):
        raise ResourceError(f"{', '.join(sorted(unknown))} cannot be left out", where="--without",
                            remedy=f"there are {', '.join(FEATURES)}")
    _compiler(compiler)


def _wait(jobs: Sequence[object], bar: Progress) -> None:
    """Wait for all; the first fault ends what has not begun."""
    try:
        for job in jobs:
            job.result()  # type: ignore[attr-defined]
            bar.advance()
    except BaseException:
        for job in jobs:
            job.cancel()  # type: ignore[attr-defined]
        raise


def _compiler(given: str | None) -> list[str]:
    asked = given or os.environ.get("CXX")
    for name in [asked] if asked else ["g++", "c++", "clang++"]:
        words = shlex.split(name)
        if words and shutil.which(words[0]):
            return words
    raise ResourceError(f"there is no C++ compiler{f' {asked!r}' if asked else ''}", where="edge",
                        remedy="install g++ (12 or later), or name one with --compiler, "
                               "or give a compiled program with --program")


def _is_x86(command: Sequence[str]) -> bool:
    """Whether the compiler makes programs for 64-bit x86: it may be one for another machine."""
    machine = _run([*command, "-dumpmachine"], "asking the compiler for its machine").strip()
    return machine.startswith(("x86_64", "amd64"))


def _units(without: Collection[str], x86: bool) -> list[_Unit]:
    """Sources and their own flags, those that take longest first."""
    units = [_Unit(path, ()) for path in sorted(_ENGINE.glob("core/*.cpp")) if path.name not in _PACKING]
    for path in sorted(_ENGINE.glob("kernels/*.cpp")):
        special = _AVX512 if path.name.startswith("avx512") else _AVX2 if path.name.startswith("avx2") else ()
        if x86 or not special:
            units.append(_Unit(path, special))
    left_out = ("http",) if "http" in without else ()
    units += [_Unit(path, ()) for path in sorted(_OWN.glob("*.cpp")) if not path.name.startswith(left_out)]
    if not units or not _OWN.is_dir():
        raise ResourceError("the package was installed without its C++ sources", where=str(_OWN),
                            remedy="install it again from a wheel or a clone of this version")
    return sorted(units, key=lambda unit: unit.source.parent.name != "kernels")


def _object(command: Sequence[str], unit: _Unit, out: Path, without: Collection[str], *, x86: bool) -> None:
    macros = [f"-DAUTOGLM_EDGE_{name.upper()}" for name in FEATURES if name not in without]
    macros += ["-DAUTOGLM_X86"] if x86 else []
    includes = [f"-I{path}" for path in _INCLUDES]
    _run([*command, *_FLAGS, *unit.flags, *macros, *includes, "-c", str(unit.source), "-o", str(out)],
         f"compiling {unit.source.name}")


def _run(command: Sequence[str], what: str) -> str:
    try:
        done = subprocess.run(  # nosec B603  # a compiler found on this machine, our arguments, no shell
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResourceError(f"{what} failed: {error}", where=command[0], remedy="install g++ (12 or later)") from error
    if done.returncode:
        words = "\n".join(done.stderr.strip().splitlines()[-20:])
        raise ResourceError(f"{what} failed:\n{words}", where=command[0],
                            remedy="install g++ (12 or later) with its static libraries, or name a compiler with "
                                   "--compiler")
    return done.stdout


def runs_here(program: Path) -> bool:
    """Whether a program can be started on this machine; one for another processor cannot."""
    try:
        done = subprocess.run(  # nosec B603  # the program that was just built, no shell
            [program.resolve(), "--help"], capture_output=True, check=False, timeout=60)
    except OSError:
        return False
    return done.returncode == 0 and sys.platform == "linux"
