"""A headless Chromium, and pages that watch what they load and what they complain about."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Seen:
    """What went on in a page.

    Attributes:
        urls: that it asked for.
        complaints: errors and warnings of its console, and exceptions.
    """

    urls: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")  # no longer: while Playwright runs, asyncio.run() runs nothing in its thread
def chromium() -> Iterator[Any]:
    """The browser of this machine."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--disable-gpu", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., tuple[Any, Seen]]]:
    """Opens pages in contexts of their own, of a width and a colour scheme."""
    contexts: list[Any] = []

    def opened(url: str, width: int = 1280, scheme: str = "light", **options: Any) -> tuple[Any, Seen]:
        context = chromium.new_context(viewport={"width": width, "height": 860}, color_scheme=scheme, **options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page, seen = context.new_page(), Seen()
        page.on("request", lambda request: seen.urls.append(request.url))
        page.on("console", lambda line: seen.complaints.append(f"{line.type}: {line.text}")
                if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.goto(f"{url}/")
        return page, seen

    yield opened
    for context in contexts:
        context.close()
