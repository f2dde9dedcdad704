"""Optional dependencies: present, absent, and broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openautoglm.core.errors import MissingExtraError
from openautoglm.core.extras import installed, require


def test_a_module_that_is_there_is_returned() -> None:
    assert require("json", "train") is json
    assert require("json.decoder", "train").JSONDecoder is json.JSONDecoder
    assert installed("json.decoder")


def test_an_absent_one_names_package_and_extra() -> None:
    with pytest.raises(MissingExtraError) as caught:
        require("no_such_package_here.part", "serve")
    assert "no_such_package_here is not installed" in str(caught.value)
    assert "openautoglm[serve]" in (caught.value.remedy or "")
    assert not installed("no_such_package_here.part")


def test_a_broken_package_is_not_an_absent_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import another_missing_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="another_missing_package"):
        require("broken_package", "train")
