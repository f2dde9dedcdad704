"""Launch profiles: written, read, and taken where the command line says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from openautoglm.core.errors import TaskError
from openautoglm.engine.open import ProgramSettings
from openautoglm.graph.recipe import Quantisation
from openautoglm.pipeline.engines import program_settings
from openautoglm.pipeline.profile import Profile, read_profile, with_profile, write_profile

SETTINGS = {"program": {"threads": 2, "cache_tokens": 4096, "load": "map", "quantise": {"format": "int4"}},
            "process": {"nice": 3, "cpus": [0, 1]}}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "profile.yaml"
    written = write_profile(path, SETTINGS, "how to serve a: b")
    assert path.read_text().startswith("# how to serve a: b\n")
    assert read_profile(path) == written
    assert written.program.quantise == Quantisation(format="int4")
    assert written.process.cpus == (0, 1)
    (tmp_path / "empty.yaml").write_text("")
    assert read_profile(tmp_path / "empty.yaml") == Profile()


def test_the_command_line_goes_before() -> None:
    profile = Profile.model_validate(SETTINGS)
    given = program_settings({"target": "auto", "threads": 1, "memory_limit": "1GiB"})
    merged = with_profile(given, profile)
    assert (merged.threads, merged.memory_limit) == (1, 1 << 30)
    assert (merged.cache_tokens, merged.load, merged.quantise) == (4096, "map", Quantisation(format="int4"))
    native = Profile(program=ProgramSettings(target="native"))
    assert with_profile(given, native).target == "native"
    assert with_profile(program_settings({"target": "torch:cpu"}), native).target == "torch:cpu"


@pytest.mark.parametrize(("text", "says"), [
    ("program: {treads: 2}", "program.treads"), ("process: {nice: 30}", "process.nice"), ("- 1", "profile.yaml"),
    ("program: {", "cannot be read"), ("program: {target: abacus}", "no target 'abacus'"), ("\x00", "cannot be read"),
], ids=["unknown key", "range", "no mapping", "no YAML", "target", "bytes"])
def test_damaged_profiles_are_refused_with_their_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(TaskError) as caught:
        read_profile(path)
    assert says in str(caught.value)
    assert caught.value.where == str(path)
    assert "autoglm doctor" in str(caught.value.remedy)


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="cannot be read"):
        read_profile(tmp_path / "none.yaml")
