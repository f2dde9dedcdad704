"""The house holds: floors, faces, sizes, types, style, pins."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import openautoglm

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for path in (ROOT / "src" / "openautoglm").rglob("*.py")
                 if not (path.parent.name == "protos" and path.name.endswith("_pb2.py")))  # made by `make protos`
MOST_LINES, MOST_FACE_LINES, MOST_FUNCTION_LINES = 300, 15, 60
DANGEROUS = ("eval", "exec", "pickle.load", "pickle.loads", "yaml.load", "os.system")
OWN_BYTES = {("contract.py", "pickle.loads")}  # a rule that was pickled on the same line
FACE_NODES = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.If)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the repository, with the package on its path whether it is installed or not."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src")})


def test_files_are_short() -> None:
    assert SOURCES
    assert [f"{name(path)}: {lines(path)}" for path in SOURCES if lines(path) > MOST_LINES] == []


def test_functions_fit_on_a_page() -> None:
    long = []
    for path in SOURCES:
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > MOST_FUNCTION_LINES:
                    long.append(f"{name(path)}:{node.lineno}: {node.name} has {size} lines")
    assert long == []


def test_faces_are_short_and_run_nothing() -> None:
    for path in SOURCES:
        if path.name == "__init__.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert lines(path) <= MOST_FACE_LINES, name(path)
            assert ast.get_docstring(tree), name(path)
            assert all(isinstance(node, FACE_NODES) for node in tree.body), name(path)
            expressions = [node.value for node in tree.body if isinstance(node, ast.Expr)]
            assert not any(isinstance(value, ast.Call) for value in expressions), name(path)


def test_there_is_no_utils_and_nothing_half_done() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")
    assert [name(path) for path in SOURCES if re.search(r"\b(utils|helpers|common|misc)\b", name(path))] == []
    assert [name(path) for path in SOURCES if marks.search(path.read_text(encoding="utf-8"))] == []


def test_no_exception_is_swallowed() -> None:
    swallowed = []
    for path in SOURCES:
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler):
                bare = node.type is None
                silent = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
                if bare or silent:
                    swallowed.append(f"{name(path)}:{node.lineno}")
    assert swallowed == []


def test_nothing_evaluates_or_unpickles_what_came_from_outside() -> None:
    forbidden = []
    for path in SOURCES:
        for node in nodes(path):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in DANGEROUS and (path.name, called) not in OWN_BYTES:
                    forbidden.append(f"{name(path)}:{node.lineno}: {called}")
                shell = [word for word in node.keywords if word.arg == "shell"]
                forbidden += [f"{name(path)}:{node.lineno}: shell=True"] if shell else []
    assert forbidden == []


def test_every_module_and_public_name_is_documented() -> None:
    silent = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            silent.append(name(path))
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if public and not node.name.startswith("_") and not ast.get_docstring(node):
                silent.append(f"{name(path)}:{node.lineno}: {node.name}")
    assert silent == []


def test_all_is_bound() -> None:
    assert "AutoTrainer" in openautoglm.__all__
    for word in openautoglm.__all__:
        assert getattr(openautoglm, word) is not None
    for path in SOURCES:
        if path.name == "__init__.py" and "__all__" in path.read_text(encoding="utf-8"):
            parts = path.parent.relative_to(ROOT / "src").parts
            module = importlib.import_module(".".join(parts))
            assert [word for word in module.__all__ if not hasattr(module, word)] == []
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = openautoglm.Nothing


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == openautoglm.__version__


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "optuna", "polars", "numpy")
    done = run("-c", f"import sys, openautoglm.cli.main; print(sys.modules.keys() & {set(heavy)})")
    assert done.stdout.strip() == "set()", done.stderr


def pins() -> dict[str, str]:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return dict(line.split("==") for line in text.splitlines() if line and not line.startswith("#"))


def requirements() -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for group in (project["dependencies"], *project["optional-dependencies"].values()):
        yield from (item for item in map(Requirement, group) if item.name != "openautoglm")


def test_every_dependency_is_pinned_inside_its_range() -> None:
    pinned = pins()
    for requirement in requirements():
        assert requirement.name.lower() in pinned, requirement.name
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement.name
    assert pinned["torch"] == "2.13.0"


def test_the_tests_run_with_the_pinned_versions() -> None:
    pinned = pins()
    for package in ("torch", "transformers", "optuna", "sacrebleu", "pydantic"):
        assert version(package).partition("+")[0] == pinned[package], package


@pytest.mark.slow
def test_imports_go_down_only() -> None:
    done = run("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


@pytest.mark.slow
def test_style() -> None:
    done = run("-m", "ruff", "check", "--no-cache", "src", "tests", "examples", "benchmarks", "deploy")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_types() -> None:
    done = run("-m", "mypy")
    assert done.returncode == 0, done.stdout
