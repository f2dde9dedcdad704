"""Fixtures for all rooms."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background; what tests interrupt would not hear it
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]


def shared_data_folder() -> Path:
    """Where the real data lies: ``OPENAUTOGLM_DATA``, else ``../shared/data`` beside the checkout."""
    return Path(os.environ.get("OPENAUTOGLM_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that need it skip where it is absent."""
    folder = shared_data_folder()
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set OPENAUTOGLM_DATA to its folder")
    return folder
