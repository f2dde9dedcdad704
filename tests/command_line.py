"""Runs the command line in a process of its own, as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def autoglm(*arguments: str | Path, stdin: bytes | None = None, timeout_s: float = 600
            ) -> subprocess.CompletedProcess[str]:
    """Run ``autoglm`` and return code, output and errors."""
    done = subprocess.run([sys.executable, "-m", "openautoglm", *map(str, arguments)], input=stdin, env=ENVIRONMENT,
                          capture_output=True, timeout=timeout_s, check=False)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """Start ``autoglm`` in a process group of its own, to be killed."""
    return subprocess.Popen([sys.executable, "-m", "openautoglm", *map(str, arguments)], env=ENVIRONMENT,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
