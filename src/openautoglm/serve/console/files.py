"""The files of the console: by the path that a browser asks for, never by a path that it made up.

They hold no secret and no figure: what the page shows it asks the server for, with the key that its user types.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8",
          "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_PARTS = ("page.css", "playground.css", "charts.css", "icon.svg", "main.js", "access.js", "calls.js", "sse.js",
          "prometheus.js", "figures.js", "scale.js", "chart.js", "panels.js", "watch.js", "state.js", "ask.js",
          "talk.js", "transcript.js", "playground.js", "words.js")

NAMES: Mapping[str, str] = {"/": "index.html", **{f"/console/{name}": name for name in _PARTS}}
"""All there is: paths of URLs, and the files that stand behind them."""
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'")
"""The page's Content-Security-Policy: its own files and its own server alone, and no text that becomes markup."""


class File(NamedTuple):
    """One file.

    Attributes:
        etag: of its bytes, in quotes as HTTP has it.
    """

    body: bytes
    media_type: str
    etag: str


@cache
def file(path: str) -> File:
    """The file behind a path of `NAMES`; read once.

    Raises:
        KeyError: there is none.
    """
    name = NAMES[path]
    body = files(__package__).joinpath("static", name).read_bytes()
    return File(body, _TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def unchanged(asked: str, etag: str) -> bool:
    """Whether a browser that sent ``If-None-Match`` has the file already."""
    return any(known.strip().removeprefix("W/") in (etag, "*") for known in asked.split(","))
