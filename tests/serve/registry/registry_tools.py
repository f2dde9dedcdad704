"""What the tests of the registry share: a PostgreSQL server of their own, a clock to set."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from openautoglm.serve.registry.settings import RegistrySettings

QUICK = RegistrySettings(retry_s=0.2, lock_wait_s=2, connect_s=2)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.at_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at_s


class Postgres:
    """A server of our own on a socket in a temporary folder, run by a user without rights."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self.programs, self.folder, self.user = programs, folder, user

    def call(self, program: str, *arguments: str) -> None:
        log = (self.folder / "log").open("ab")
        with log:
            subprocess.run([self.programs / program, *arguments], check=True, user=self.user, stdin=subprocess.DEVNULL,
                           stdout=log, stderr=log, cwd=self.folder, timeout=60, env={"PATH": os.environ["PATH"]})

    def make(self) -> None:
        self.call("initdb", "-D", str(self.folder / "data"), "-U", "autoglm", "-A", "trust", "-E", "UTF8",
                  "--locale=C", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off -c max_connections=60"
        self.call("pg_ctl", "-D", str(self.folder / "data"), "-w", "-t", "30", "-o", options, "start")

    def stop(self) -> None:
        self.call("pg_ctl", "-D", str(self.folder / "data"), "-w", "-t", "30", "-m", "immediate", "stop")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://autoglm@/{database}?host={self.folder}"

    def database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"t{uuid.uuid4().hex[:12]}"
        engine = create_engine(self.url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url(name)


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return found[-1].parent if found else Path(on_path or "").resolve().parent


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return name
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


def start_postgres() -> tuple[Postgres, Path]:
    programs, user = _programs(), _user()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: a socket's path has at most 107 bytes
    if user is not None:
        shutil.chown(folder, user)
    server = Postgres(programs, folder, user)
    try:
        server.make()
        server.start()
    except (OSError, subprocess.SubprocessError) as error:
        told = (folder / "log").read_text(errors="replace")[-500:] if (folder / "log").exists() else ""
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"PostgreSQL does not start: {error} {told}")
    return server, folder
