"""The extension is there wherever it could be built, and where it is not, the package says so."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType

import pytest
from typer.testing import CliRunner

from openautoglm.cli import doctor
from openautoglm.runtime import native


@pytest.fixture
def fresh() -> Iterator[None]:
    """Forget what was found, before and after."""
    native._found.cache_clear()
    yield
    native._found.cache_clear()


def test_the_extension_is_built_where_there_is_a_compiler() -> None:
    try:
        distribution("openautoglm")
    except PackageNotFoundError:
        pytest.skip("openautoglm is not installed as a package")
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ here, so nothing could be built")
    assert native.native_module() is not None, native.why_not()


def test_the_extension_knows_its_instruction_paths() -> None:
    module = native.native_module()
    if module is None:
        pytest.skip(native.why_not())
    paths = module.supported_isas()
    assert paths[0] == "portable"
    assert module.choose_isa("portable") == "portable"
    assert native.why_not() == ""
    with pytest.raises(ValueError, match="unknown instruction path 'mmx'"):
        module.choose_isa("mmx")


@pytest.mark.usefixtures("fresh")
def test_a_missing_extension_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, native.NAME, None)
    assert native.native_module() is None
    assert "was not built" in native.why_not()
    answer = CliRunner().invoke(doctor.app, ["--format", "json"]).stdout
    assert '"native runtime"' in answer
    assert "install g++" in answer


@pytest.mark.usefixtures("fresh")
def test_an_extension_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType(native.NAME)
    old.interface = native.INTERFACE - 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, native.NAME, old)
    assert native.native_module() is None
    assert "another version" in native.why_not()
