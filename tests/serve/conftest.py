"""Small bundles that engines of the service load quickly, and the fake program of the engine's own tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rest_tools import Running

    from openautoglm.serve.service.language import Language
    from openautoglm.text.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))

POSITIONS = 8192


@pytest.fixture(scope="session", autouse=True)
def no_authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every client reads the certificates of all authorities, which takes longer than most tests and is of no use
    here: those that speak TLS name their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("authorities")))
        patch.delenv("SSL_CERT_FILE", raising=False)
        yield


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle that writes varied nonsense; its heads are as wide as the native runtime needs."""
    from openautoglm.models import hf
    from openautoglm.models.bundle_writer import write_bundle
    from openautoglm.models.spec import GlmSpec
    from openautoglm.text.template import Template
    from openautoglm.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["The Punter is a cheap pub near Café Rouge."] * 4, 300)
    spec = GlmSpec(vocab_size=8, max_positions=POSITIONS, hidden_size=32, layers=2, heads=2, kv_heads=1, head_dim=16,
                   ffn_size=48).with_vocabulary(tokenizer.vocab_size, pad_id=tokenizer.pad_id,
                                                eos_ids=(tokenizer.special["<|endoftext|>"],))
    path: Path = tmp_path_factory.mktemp("serve") / "bundle"
    model = hf.build(spec, seed=1, init_std=0.3)
    return write_bundle(path, model=model, spec=spec, tokenizer=tokenizer, template=Template(), card_facts={}).path


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Of a few texts, with characters that take several tokens."""
    from openautoglm.text.tokenizer import Tokenizer

    return Tokenizer.train(["The Punter is a cheap pub near Café Rouge. 关关雎鸠，在河之洲。"] * 4, 320)


@pytest.fixture(scope="session")
def language(tokenizer: Tokenizer) -> Language:
    """Of a model that was trained on records of two columns."""
    from openautoglm.serve.service.language import Language
    from openautoglm.text.template import Template

    return Language(Template(), tokenizer, {"name": "pubs", "record": {"template": "{name} | {price}",
                                                                       "target": "text"}})


@pytest.fixture(scope="session")
def server(language: Language) -> Iterator[Running]:
    """A server for tests that leave it as it is."""
    from rest_tools import Running, engine_backend

    with Running(language, lambda: engine_backend(language)) as running:
        yield running


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server's certificate and a client's, made by openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    run("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    for name in ("server", "client"):
        run("req", *curve[:-2], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", f"{name}.pem", "-days", "2", "-extfile", "san")
    return folder
