from __future__ import annotations

import tomllib
from pathlib import Path

import openautoglm
from openautoglm.core.version import __version__


def test_package_and_packaging_name_one_version():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__ == openautoglm.__version__
