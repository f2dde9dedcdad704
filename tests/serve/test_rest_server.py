"""The server's life, as its users start and end it: the verb, signals, TLS, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rest_tools import MODEL, Running, engine_backend

from openautoglm.cli.main import main
from openautoglm.core.errors import ResourceError
from openautoglm.serve.rest.door import listen
from openautoglm.serve.rest.settings import RestSettings
from openautoglm.serve.service.language import Language

ROOT = Path(__file__).resolve().parents[2]
LONG = {"model": "tiny", "prompt": "The Punter", "max_tokens": 4000, "ignore_eos": True, "temperature": 1.0}


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "openautoglm", "serve", *arguments], text=True, cwd=ROOT,
                            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"})


class Verb:
    """``autoglm serve`` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process, self.log = start(*arguments, "--port", "0", "--threads", "1", "--name", "tiny"), list[str]()
        self._up = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._up.wait(120), self.log
        found = re.search(r"serving (http\S+)", "".join(self.log))
        assert found, self.log
        self.url = found[1]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if "serving http" in line:
                self._up.set()
        self._up.set()

    def tell(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self, timeout_s: float = 60) -> int:
        return self.process.wait(timeout_s)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextlib.contextmanager
def verb(*arguments: str) -> Iterator[Verb]:
    made = Verb(*arguments)
    try:
        yield made
    finally:
        made.close()


def streamed(url: str, found: list[Any], begun: threading.Event, **fields: Any) -> None:
    """Read a streamed answer into a list."""
    with httpx.stream("POST", f"{url}/v1/completions", json={**LONG, "stream": True, **fields}, timeout=60) as reply:
        for line in reply.iter_lines():
            if line:
                found.append(line.removeprefix("data: "))
                begun.set()


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--in-process",)], ids=["worker", "in-process"])
def test_a_signal_lets_running_requests_finish(bundle_path: Path, more: tuple[str, ...]) -> None:
    with verb(str(bundle_path), *more) as server:
        assert httpx.get(f"{server.url}/ready", timeout=30).status_code == 200
        found: list[Any] = []
        begun = threading.Event()
        reader = threading.Thread(target=streamed, args=(server.url, found, begun))
        with httpx.Client(base_url=server.url, timeout=30) as client:
            assert client.get("/healthz").status_code == 200  # a connection that is open when the signal comes
            reader.start()
            assert begun.wait(60)
            server.tell()
            while client.get("/ready").status_code == 200:
                time.sleep(0.01)
            reply = client.post("/v1/completions", json=LONG)
            assert (reply.status_code, reply.headers["connection"]) == (503, "close")
            assert reply.json()["error"]["code"] == "unavailable"
            assert httpx.get(f"{server.url}/healthz", timeout=30).status_code == 200
        assert server.end() == 0
        reader.join(30)
        assert found[-1] == "[DONE]"
        assert json.loads(found[-2])["choices"][0]["finish_reason"] == "length"


@pytest.mark.slow
def test_a_second_signal_ends_at_once_and_clients_are_told(bundle_path: Path) -> None:
    with verb(str(bundle_path), "--shutdown-timeout", "600") as server:
        found: list[Any] = []
        begun = threading.Event()
        reader = threading.Thread(target=streamed, args=(server.url, found, begun))
        reader.start()
        assert begun.wait(60)
        server.tell(signal.SIGINT)
        time.sleep(0.05)
        server.tell()
        assert server.end(30) == 1
        reader.join(30)
        assert found[-1] == "[DONE]"
        assert json.loads(found[-2])["error"]["code"] in ("engine_lost", "unavailable")


def test_what_takes_too_long_is_told_when_the_time_is_over(language: Language) -> None:
    gate = threading.Semaphore(3)
    with Running(language, lambda: engine_backend(language, before=lambda step: gate.acquire() and None),
                 rest={"shutdown_timeout_s": 0.2}) as server:
        found: list[Any] = []
        begun = threading.Event()
        reader = threading.Thread(target=streamed, args=(server.url, found, begun),
                                  kwargs={"model": MODEL, "max_tokens": 400})
        reader.start()
        assert begun.wait(30)
        server.tell()
        threading.Timer(1.0, gate.release, (100_000,)).start()
        server.join()
        reader.join(30)
        assert json.loads(found[-2])["error"]["code"] == "engine_lost"
        assert server.well is False


def test_an_idle_server_ends_at_once(language: Language) -> None:
    with Running(language, lambda: engine_backend(language)) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/healthz").status_code == 200  # an open connection that is idle
        began = time.monotonic()
        server.tell()
        server.join()
        assert server.well is True
        assert time.monotonic() - began < 5


def test_tls(language: Language, certificates: Path) -> None:
    rest = {"tls_cert": certificates / "server.pem", "tls_key": certificates / "server.key"}
    trusting = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    with Running(language, lambda: engine_backend(language), rest=rest) as server:
        assert server.url.startswith("https://")
        reply = httpx.get(f"{server.url}/ready", verify=trusting)
        assert reply.status_code == 200
        assert "max-age" in reply.headers["strict-transport-security"]
        with pytest.raises(httpx.HTTPError):
            httpx.get(server.url.replace("https", "http") + "/ready")


def test_clients_must_show_certificates_where_that_is_asked_for(language: Language, certificates: Path) -> None:
    rest = {"tls_cert": certificates / "server.pem", "tls_key": certificates / "server.key",
            "tls_clients": certificates / "ca.pem"}
    known = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    known.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    with Running(language, lambda: engine_backend(language), rest=rest) as server:
        assert httpx.get(f"{server.url}/ready", verify=known).status_code == 200
        unknown = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{server.url}/ready", verify=unknown)


def test_a_wrong_certificate_is_told(language: Language, certificates: Path) -> None:
    rest = {"tls_cert": certificates / "server.pem", "tls_key": certificates / "client.key"}
    with pytest.raises(ResourceError, match="certificate"), Running(language, lambda: engine_backend(language),
                                                                    rest=rest):
        pass


def test_an_address_that_is_taken_is_told() -> None:
    held = listen(RestSettings(port=0))
    with contextlib.closing(held), pytest.raises(ResourceError, match="in use") as caught:
        listen(RestSettings(port=held.getsockname()[1]))
    assert "--port" in str(caught.value.remedy)
    with pytest.raises(ResourceError, match="no address"):
        listen(RestSettings(host="no.such.name.invalid"))


@pytest.fixture
def verb_here(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[Any, str]]]:
    """``autoglm serve`` in this process, for what it refuses before it starts: exit code, and what it said."""
    loggers = [logging.getLogger(name) for name in ("openautoglm", "uvicorn.error")]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]

    def run(*arguments: str) -> tuple[Any, str]:
        with pytest.raises(SystemExit) as ended:
            main(["serve", *arguments])
        return ended.value.code, capsys.readouterr().err

    yield run
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate, logger.handlers[:] = propagate, handlers


@pytest.mark.parametrize(("arguments", "word", "code"), [
    (("--host", "0.0.0.0"), "without keys", 2), (("--tls-cert", "a.pem"), "tls_key", 2),
    (("--port", "99999"), "port", 2),
    (("--limits", "missing.yaml"), "missing.yaml", 2), (("--quantise", "int3"), "int8", 2),
], ids=["host", "tls", "port", "limits", "quantise"])
def test_wrong_options_are_told_plainly(verb_here: Callable[..., tuple[Any, str]], bundle_path: Path,
                                        arguments: tuple[str, ...], word: str, code: int) -> None:
    ended, said = verb_here(str(bundle_path), *arguments)
    assert ended == code, said
    assert word in said
    assert "remedy" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    process = start(str(tmp_path / "nothing"), "--port", "0")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "nothing: does not exist" in said
    assert "Traceback" not in said
