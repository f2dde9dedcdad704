"""A small bundle, and ``autoglm serve`` over it in a process of its own, for scripts that try what it stands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
MODEL = "small"
COLUMNS = ("name", "price")
_KEPT_LINES = 400


def write_small(folder: Path) -> Path:
    """Write an untrained bundle whose answers are nonsense, of records with two columns."""
    from openautoglm.models import hf
    from openautoglm.models.bundle_writer import write_bundle
    from openautoglm.models.spec import GlmSpec
    from openautoglm.text.template import Template
    from openautoglm.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["The Punter is a cheap pub near Café Rouge. 关关雎鸠，在河之洲。"] * 4, 320)
    spec = GlmSpec(vocab_size=8, max_positions=8192, hidden_size=32, layers=2, heads=2, kv_heads=1, head_dim=16,
                   ffn_size=48).with_vocabulary(tokenizer.vocab_size, pad_id=tokenizer.pad_id,
                                                eos_ids=(tokenizer.special["<|endoftext|>"],))
    recipe = {"name": MODEL, "record": {"template": " | ".join(f"{{{name}}}" for name in COLUMNS), "target": "text"}}
    return write_bundle(folder / "bundle", model=hf.build(spec, seed=1, init_std=0.3), spec=spec, tokenizer=tokenizer,
                        template=Template(), card_facts={"recipe": recipe}).path


def until(condition: Callable[[], bool], timeout_s: float = 120.0) -> float:
    """Wait until something is so; returns the seconds that it took.

    Raises:
        TimeoutError: it never was.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise TimeoutError(f"it was not so within {timeout_s:g} s")
        time.sleep(0.002)
    return time.monotonic() - began


class Served:
    """``autoglm serve`` in a process of its own; use it with ``with``.

    Args:
        options: of the verb.
        variables: of the process's environment, besides those of this one.

    Attributes:
        url: where it listens.
        log: what it wrote last.
        failures: lines of its log that speak of a fault of its own.
    """

    def __init__(self, bundle: Path, *options: str, variables: dict[str, str] | None = None) -> None:
        self.log: deque[str] = deque(maxlen=_KEPT_LINES)
        self.failures: list[str] = []
        self.url = ""
        self._up = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "openautoglm", "serve", str(bundle), "--port", "0", "--threads", "1", "--name",
             MODEL, *options], cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path]), "OMP_NUM_THREADS": "1",
                 **(variables or {})})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Served:
        if not self._up.wait(180) or not self.url:
            self.__exit__(None, None, None)
            raise RuntimeError("the server did not start: " + "".join(self.log))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(r"serving (http\S+)", line)
            if found:
                self.url = found[1]
                self._up.set()
            elif "Traceback" in line or "a request failed" in line or " internal: " in line:
                self.failures.append(line.strip())
        self._up.set()

    @property
    def engine(self) -> psutil.Process | None:
        """The engine's process; None while there is none."""
        try:
            for child in psutil.Process(self.process.pid).children():
                if "openautoglm.serve.worker.child" in child.cmdline():
                    return child
        except psutil.Error:
            pass
        return None

    @property
    def memory_bytes(self) -> tuple[int, int]:
        """What the server's process and the engine's hold."""
        engine = self.engine
        return (psutil.Process(self.process.pid).memory_info().rss,
                engine.memory_info().rss if engine is not None else 0)

    def ready(self) -> bool:
        """Whether it says that it can serve."""
        try:
            return httpx.get(f"{self.url}/ready", timeout=30).status_code == 200
        except httpx.HTTPError:
            return False

    def figure(self, name: str) -> float:
        """The sum of a figure of ``/metrics`` over its labels; 0 where it is absent."""
        page = httpx.get(f"{self.url}/metrics", timeout=30).text
        found = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", page, re.MULTILINE)
        return sum(map(float, found))

    def tell(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal."""
        self.process.send_signal(number)
