"""Plug-ins through entry points; every failure names its distribution."""

from __future__ import annotations

import importlib
import sys

import pytest

from openautoglm.core.errors import PluginError
from openautoglm.core.plugins import load_plugins, plugin_entries

GROUP = "openautoglm.test_things"


@pytest.fixture
def offer(tmp_path, monkeypatch):
    made = []

    def install(distribution, code, *entries):
        folder = tmp_path / distribution
        metadata = folder / f"{distribution}-0.3.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{distribution}.py").write_text(code)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.3\n")
        (metadata / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *entries, ""]))
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        made.append(distribution)

    yield install
    for module in made:
        sys.modules.pop(module, None)


def test_objects_are_loaded_by_name(offer):
    offer("thing_maker", "class Thing: size = 4",
          "thing = thing_maker:Thing", "four = thing_maker:Thing.size")
    loaded = load_plugins(GROUP)
    assert loaded["thing"].__name__ == "Thing"
    assert loaded["four"] == 4


def test_no_plugins_is_an_empty_answer():
    assert load_plugins("openautoglm.no_such_group") == {}


def test_listing_does_not_import(offer):
    offer("thing_bomb", "raise SystemError('boom')", "thing = thing_bomb:Thing")
    assert list(plugin_entries(GROUP)) == ["thing"]
    assert "thing_bomb" not in sys.modules


@pytest.mark.parametrize(("code", "cause"), [
    ("raise SystemError('boom')", "SystemError: boom"),
    ("import there_is_no_such_module", "there_is_no_such_module"),
    ("Other = 1", "Thing"),
])
def test_failure_to_load_names_the_distribution(offer, code, cause):
    offer("thing_broken", code, "thing = thing_broken:Thing")
    with pytest.raises(PluginError, match=f"(?s)of thing_broken 0.3 does not load: .*{cause}") as caught:
        load_plugins(GROUP)
    assert caught.value.where == f"{GROUP}: thing = thing_broken:Thing"
    assert caught.value.remedy


def test_two_distributions_with_one_name_are_both_named(offer):
    offer("thing_one", "Thing = 1", "thing = thing_one:Thing")
    offer("thing_two", "Thing = 2", "thing = thing_two:Thing")
    with pytest.raises(PluginError, match=r"thing_\w+ 0.3 and thing_\w+ 0.3 both offer 'thing'"):
        load_plugins(GROUP)
