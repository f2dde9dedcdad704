"""Where a registry lies: option, environment, data folder; passwords are never told."""

from __future__ import annotations

from pathlib import Path

import pytest

from openautoglm.serve.faults import BadRequest
from openautoglm.serve.registry.places import place


def test_the_data_folder_is_the_default(tmp_path: Path) -> None:
    found = place(environment={"XDG_DATA_HOME": str(tmp_path)})
    assert found.file == tmp_path / "openautoglm" / "registry.db"
    assert found.store == tmp_path / "openautoglm" / "bundles"
    home = place(environment={"XDG_DATA_HOME": "relative/is/ignored"})
    assert home.file == Path.home() / ".local/share/openautoglm/registry.db"


def test_the_environment_and_the_option(tmp_path: Path) -> None:
    variables = {"OPENAUTOGLM_REGISTRY": str(tmp_path / "a.db"), "OPENAUTOGLM_STORE": str(tmp_path / "kept")}
    assert place(environment=variables).file == tmp_path / "a.db"
    assert place(environment=variables).store == tmp_path / "kept"
    assert place(tmp_path / "b.db", environment=variables).file == tmp_path / "b.db"
    assert place(f"sqlite:///{tmp_path}/c.db", environment={}).store == tmp_path / "bundles"


def test_postgres_goes_by_psycopg_and_hides_its_password(tmp_path: Path) -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        found = place(f"{scheme}://me:secret@host/models", environment={"XDG_DATA_HOME": str(tmp_path)})
        assert found.url.drivername == "postgresql+psycopg"
        assert "secret" not in str(found)
        assert "host/models" in str(found)
        assert found.file is None
        assert found.store == tmp_path / "openautoglm" / "bundles"


@pytest.mark.parametrize("text", ["mysql://me:secret@host/x", "sqlite://", "sqlite:///:memory:", "://",
                                  "sqlite:///x.db?mode=memory", "postgresql://me:secret@host:port/x"],
                         ids=["mysql", "nowhere", "memory", "nothing", "query", "port"])
def test_other_urls_are_refused_without_their_password(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        place(text, environment={})
    assert "secret" not in str(caught.value)
    assert "postgresql://USER" in str(caught.value)
