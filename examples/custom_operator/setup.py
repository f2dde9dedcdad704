"""Builds the C kernel against the header that openautoglm brings; without a compiler the package installs without."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup

found = find_spec("openautoglm.runtime")
if found is None or found.origin is None:
    raise SystemExit("install openautoglm first, and this package with `pip install --no-build-isolation`")
setup(ext_modules=[Extension(
    "sandwich_norm._native", ["src/sandwich_norm/kernel.c"], include_dirs=[str(Path(found.origin).parent / "include")],
    extra_compile_args=["-O3", "-std=c11"], optional=True)])
