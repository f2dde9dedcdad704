"""From a bundle or checkpoint on disk to an engine with all that orders need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openautoglm.core.files import sha256_file
from openautoglm.engine.engine import Engine
from openautoglm.engine.grammar import GrammarCompiler
from openautoglm.engine.open import open_engine
from openautoglm.models.bundle import Bundle, open_bundle
from openautoglm.models.card import CARD_NAME
from openautoglm.serve.backend import InProcess
from openautoglm.serve.intake import Intake
from openautoglm.serve.orders import Facts
from openautoglm.serve.worker.settings import WorkerSettings
from openautoglm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Opened:
    """A model that can serve.

    Attributes:
        compiler: of grammars; to be closed.
        bundle: keeps an unpacked archive on disk; None for a checkpoint without a card.
    """

    engine: Engine
    tokenizer: Tokenizer
    compiler: GrammarCompiler
    fingerprint: str
    bundle: Bundle | None

    @property
    def facts(self) -> Facts:
        """What it serves with."""
        return Facts.of(self.engine, self.fingerprint)

    @property
    def intake(self) -> Intake:
        """What makes requests of orders for it."""
        return Intake(self.engine, self.tokenizer.decode, self.compiler)


def open_model(path: str | Path, settings: WorkerSettings | None = None) -> Opened:
    """Load a bundle, or a released checkpoint: a folder without our card.

    Raises:
        BundleError, SpecError, TokenizerError, GraphError, ResourceError, MissingExtraError: it cannot be loaded.
    """
    path, settings = Path(path), settings or WorkerSettings()
    bundle: Bundle | None = None
    stop_ids: Sequence[int] | None = None
    folder = path
    if not path.is_dir() or (path / CARD_NAME).is_file():
        bundle = open_bundle(path)
        folder, tokenizer = bundle.path, bundle.tokenizer
        stop_ids = bundle.template.stop_ids(tokenizer)
    else:
        tokenizer = Tokenizer.load(folder)
    engine = open_engine(folder, settings.program, settings.engine, stop_ids=stop_ids, vocab_size=tokenizer.vocab_size)
    named = folder / (CARD_NAME if bundle is not None else "config.json")
    return Opened(engine, tokenizer, GrammarCompiler(tokenizer.pieces, settings.grammars), sha256_file(named), bundle)


def open_in_process(path: str | Path, settings: WorkerSettings | None = None) -> InProcess:
    """A backend whose engine runs in this process.

    Raises:
        AutoGLMError: as `open_model`.
    """
    opened = open_model(path, settings)
    return InProcess(opened.engine, decode=opened.tokenizer.decode, pieces=opened.tokenizer.pieces,
                     fingerprint=opened.fingerprint, keep=opened.bundle,
                     stalled_s=(settings or WorkerSettings()).stall_s)
