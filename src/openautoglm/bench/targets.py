"""What can be put under load: a server over REST or gRPC, or a bundle on the engine in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from openautoglm.bench.client import Client, Pulse
from openautoglm.bench.direct import EngineClient, encoder
from openautoglm.bench.monitor import EngineSource, MetricsSource, ProcessSource, Source, server_pid
from openautoglm.bench.rest import RestClient, Server
from openautoglm.bench.rpc import RpcClient
from openautoglm.bench.scrape import Metrics
from openautoglm.bench.settings import Prompts
from openautoglm.bench.words import Vocabulary, id_vocabulary, word_vocabulary
from openautoglm.core.errors import LoadError, TokenizerError
from openautoglm.engine.engine import Engine
from openautoglm.engine.open import ProgramSettings, open_engine
from openautoglm.engine.settings import EngineSettings
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.card import CARD_NAME
from openautoglm.models.checkpoint import read_spec
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer


class RestTarget:
    """A server that speaks OpenAI's REST interface.

    Args:
        tokenizer: folder of its tokenizer, for prompts of exact lengths.
        pid: its process; looked for where it listens on loopback when None.
    """

    def __init__(self, server: Server, prompts: Prompts, *, tokenizer: Path | None = None, pid: int | None = None,
                 label: str | None = None) -> None:
        self._server, self._prompts, self._label, self._pid = server, prompts, label, pid
        self._tokenizer = Tokenizer.load(tokenizer) if tokenizer is not None else None
        self._client: RestClient | None = None

    @property
    def head(self) -> Mapping[str, Any]:
        """See `openautoglm.bench.run.Target`."""
        return {"backend": self._server.backend, "label": self._label, "base_url": self._server.base_url}

    def vocabulary(self) -> Vocabulary:
        """Words of one token each, as far as the tokenizer is known."""
        return word_vocabulary(self._tokenizer)

    def client(self, pulse: Pulse, now: Callable[[], float]) -> Client:
        """A client of the server."""
        self._client = RestClient(self._server, self._prompts, pulse, now)
        return self._client

    def sources(self) -> list[Source]:
        """Its metrics, and its process where that is known.

        Raises:
            LoadError: there is no such process.
        """
        assert self._client is not None
        return [MetricsSource(Metrics(self._server.base_url, self._server.headers)),
                *_process(self._pid, self._client.http.host, self._client.http.port)]


class RpcTarget(RestTarget):
    """A server that speaks the text service over gRPC; its `Server.base_url` begins with ``grpc://`` or ``grpcs://``."""

    _rpc: RpcClient | None = None

    def client(self, pulse: Pulse, now: Callable[[], float]) -> Client:
        """A client of the server."""
        self._rpc = RpcClient(self._server, self._prompts, pulse, now)
        return self._rpc

    def sources(self) -> list[Source]:
        """Its process where that is known; its metrics are read over HTTP alone.

        Raises:
            LoadError: there is no such process.
        """
        assert self._rpc is not None
        return _process(self._pid, self._rpc.host, self._rpc.port)


def _process(given: int | None, host: str, port: int) -> list[Source]:
    """The process that was named, or that listens there, if there is one."""
    pid = given or server_pid(host, port)
    try:
        return [] if pid is None else [ProcessSource(pid)]
    except psutil.Error as error:
        raise LoadError(f"there is no process {pid}", where="--server-pid",
                        remedy="give the server's, or leave it out") from error


def _form_of(tokenizer: Tokenizer | None) -> Template | None:
    """The template that a server would give a checkpoint without a card; None where its tokens are missing."""
    form = Template(kind="glm4")
    try:
        return form if tokenizer is not None and form.prompt("a", (), tokenizer) else None
    except TokenizerError:
        return None


class EngineTarget:
    """A bundle, or the folder of a checkpoint, on an engine in this process.

    Args:
        label: of the result.

    Raises:
        BundleError: it cannot be opened.
    """

    def __init__(self, folder: Path, prompts: Prompts, program: ProgramSettings, engine: EngineSettings, *,
                 label: str | None = None) -> None:
        self._prompts, self._program, self._engine, self._label = prompts, program, engine, label
        self._name = folder.resolve().name
        self._bundle: Bundle | None = None
        if folder.is_file() or (folder / CARD_NAME).is_file():
            self._bundle = open_bundle(folder)
            folder = self._bundle.path
        self._folder = folder
        has_tokenizer = (folder / "tokenizer.json").is_file()
        self._tokenizer = Tokenizer.load(folder) if has_tokenizer else None
        self._loaded: Engine | None = None
        self._client: EngineClient | None = None

    @property
    def head(self) -> Mapping[str, Any]:
        """See `openautoglm.bench.run.Target`."""
        return {"backend": "engine", "label": self._label, "program": self._program.model_dump(mode="json"),
                "engine": self._engine.model_dump(mode="json")}

    def vocabulary(self) -> Vocabulary:
        """Words, as for a server, so that both do the same work; where they are not exact, ids that are not special."""
        words = word_vocabulary(self._tokenizer)
        return words if words.exact else id_vocabulary(self._tokenizer, self._vocab_size)

    def client(self, pulse: Pulse, now: Callable[[], float]) -> Client:
        """A client of the engine, which is loaded once; one client at a time.

        Raises:
            ResourceError, GraphError: it cannot be loaded so.
        """
        bundle = self._bundle
        template = bundle.template if bundle is not None else _form_of(self._tokenizer)
        if self._loaded is None:
            stops = bundle.template.stop_ids(bundle.tokenizer) if bundle is not None else None
            self._loaded = open_engine(self._folder, self._program, self._engine, stop_ids=stops,
                                       vocab_size=self._vocab_size)
        self._client = EngineClient(self._loaded, encoder(self._tokenizer, template), self._prompts, pulse,
                                    model=self._name, now=now)
        return self._client

    def sources(self) -> list[Source]:
        """The engine, and this process: what the generator itself takes is in that, too."""
        if self._client is None:
            raise LoadError("the engine has not been loaded", remedy="ask for a client first")
        client = self._client
        return [EngineSource(lambda: client.stats), ProcessSource(os.getpid())]

    @property
    def _vocab_size(self) -> int:
        embedding = read_spec(self._folder).vocab_size
        return min(self._tokenizer.vocab_size, embedding) if self._tokenizer is not None else embedding
