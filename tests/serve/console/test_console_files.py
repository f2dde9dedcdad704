"""The console's files: what is sent, with which headers, to whom; and what stands in them."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from rest_tools import Running, engine_backend

from openautoglm.serve.console import files
from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.guard.rights import Record
from openautoglm.serve.rest.access import PAGES, scope_of
from openautoglm.serve.service.language import Language

STATIC = Path(files.__file__).parent / "static"
MOST_LINES, WIDEST = 300, 120


class NoKeys:
    """A store in which no key is."""

    def get(self, key_id: str) -> Record | None:
        return None

    def touch(self, key_id: str) -> None:
        raise AssertionError(key_id)


def text(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def test_all_files_are_listed_and_no_others() -> None:
    assert sorted(files.NAMES.values()) == sorted(path.name for path in STATIC.iterdir())
    for path in files.NAMES:
        assert files.file(path).body == (STATIC / files.NAMES[path]).read_bytes()
    with pytest.raises(KeyError):
        files.file("/console/../files.py")


def test_files_come_with_their_types_and_a_policy(server: Running) -> None:
    kinds = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8",
             "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
    for path, name in files.NAMES.items():
        reply = httpx.get(server.url + path)
        assert (reply.status_code, reply.headers["content-type"]) == (200, kinds[name.rpartition(".")[2]])
        assert reply.content == (STATIC / name).read_bytes()
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-cache"
        rules = dict(rule.strip().split(" ", 1) for rule in reply.headers["content-security-policy"].split(";"))
        assert {rules[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
        assert {rules[name] for name in ("default-src", "frame-ancestors", "base-uri", "form-action")} == {"'none'"}
        assert "unsafe" not in reply.headers["content-security-policy"]


def test_a_file_is_sent_again_only_where_it_changed(server: Running) -> None:
    first = httpx.get(server.url + "/")
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = httpx.get(server.url + "/", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    for other in ('"other"', etag.strip('"'), ""):
        assert httpx.get(server.url + "/", headers={"if-none-match": other}).status_code == 200
    head = httpx.head(server.url + "/")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(first.content)))
    assert len({files.file(path).etag for path in files.NAMES}) == len(files.NAMES)


@pytest.mark.parametrize("path", ["/console", "/console/", "/console/index.html", "/console/../files.py",
                                  "/console/%2e%2e/files.py", "/console/..%2ffiles.py", "/console//main.js", "//",
                                  "/console/main.js/", "/CONSOLE/main.js", "/static/main.js", "/favicon.ico"], ids=str)
def test_nothing_else_is_there(server: Running, path: str) -> None:
    assert httpx.get(httpx.URL(server.url).copy_with(raw_path=path.encode())).status_code == 404


def test_the_page_is_open_and_what_it_shows_is_not(language: Language) -> None:
    assert frozenset(files.NAMES) == PAGES
    with (Running(language, lambda: engine_backend(language), guard=Guard(NoKeys())) as server,
          httpx.Client(base_url=server.url) as client):
        for path in files.NAMES:
            assert client.get(path).status_code == 200
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                assert client.request(method, path).status_code == 401
        for path in ("/v1/models", "/metrics", "/console", "/console/", "/console/none.js"):
            assert client.get(path).status_code == 401
    assert scope_of("/", "GET") is None
    assert scope_of("/", "POST") == "infer"


def test_they_ask_for_nothing_from_elsewhere_and_run_nothing_in_markup() -> None:
    for name in files.NAMES.values():
        code = re.sub(r'xmlns="http://www\.w3\.org/2000/svg"|"http://www\.w3\.org/2000/svg"', "", text(name))
        assert not re.search(r"https?://|//[a-z]+\.[a-z]|@import|url\(", code), name
        assert not re.search(r"(inner|outer|Adjacent)HTML|document\.write|\beval\b|new Function", code), name
        assert not re.search(r"localStorage|document\.cookie|indexedDB|console\.", code), name
    page = text("index.html")
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page)
    assert re.findall(r"<script[^>]*>([^<]*)</script>", page) == [""]
    asked = re.findall(r'(?:src|href)="(/[^"]*)"', page)
    asked += [path for name in files.NAMES.values() for path in re.findall(r'from "([^"]+)"', text(name))]
    assert asked
    assert set(asked) <= set(files.NAMES)


def test_they_are_short_and_documented() -> None:
    for name in files.NAMES.values():
        lines = text(name).splitlines()
        assert len(lines) <= MOST_LINES, name
        assert [line for line in lines if len(line) > WIDEST] == [], name
        if name.endswith((".js", ".css")):
            assert lines[0].startswith(("// ", "/* ")), name


def test_what_the_charts_read_is_what_the_server_tells(server: Running) -> None:
    names = set(re.findall(r'"(vllm:[a-z_]+)"', text("figures.js")))
    assert len(names) == 10
    told = set(re.findall(r"^# TYPE (\S+)", httpx.get(f"{server.url}/metrics").text, re.MULTILINE))
    assert {name for name in names if name not in told} == set()


def test_every_id_that_a_script_asks_for_is_in_the_page() -> None:
    known = set(re.findall(r'\sid="([^"]+)"', text("index.html")))
    for name in files.NAMES.values():
        if name.endswith(".js"):
            assert set(re.findall(r'\bat\("([^"]+)"\)', text(name))) <= known, name
