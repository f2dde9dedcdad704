"""Hostile requests over REST, from four sources, and a tally of the replies; `hostile.py` runs them all.

Every source takes the server's address, a tally and its options. A reply is a violation where it is none that the
document knows, where its status is 5xx, or where it takes too long; a source may know more of what must be.
"""

from __future__ import annotations

import copy
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

TIMEOUT_S = 60.0
MOST_VIOLATIONS = 50
STRICT = {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}
"""JSON by its grammar, but a key stands twice: others read it, each in another way; it is refused here."""
NO_JSON = ("body: is not ", "body: is nested ", "body: holds half ")
_GENERATES = {"temperature", "top_p", "messages", "stop"}
Place = Callable[[str], Any]
SHORT = 3
"""Tokens of an answer at most: requests are many, and long answers teach nothing."""


class Tally:
    """Counts replies by source, status and code, and keeps what must not be."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.violations: list[str] = []
        self.slowest_s = 0.0
        self.found = 0

    def count(self, source: str, kind: str, seconds: float = 0.0) -> None:
        """A reply came."""
        self.counts[source, kind] += 1
        self.slowest_s = max(self.slowest_s, seconds)

    def violate(self, sentence: str) -> None:
        """Something must not be."""
        self.found += 1
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(sentence[:1000])

    @property
    def cases(self) -> int:
        """Replies so far."""
        return sum(self.counts.values())


def document_of(url: str, model: str) -> dict[str, Any]:
    """The server's own, but for the model's name, so that most requests reach it."""
    made: dict[str, Any] = copy.deepcopy(httpx.get(f"{url}/openapi.json", timeout=TIMEOUT_S).json())
    for form in made["components"]["schemas"].values():
        fields = form.get("properties", {})
        if "model" in fields and _GENERATES & fields.keys():
            fields["model"] = {"const": model, "type": "string"}
    for methods in made["paths"].values():
        for route in methods.values():
            for content in route.get("requestBody", {}).get("content", {}).values():
                for example in content.get("examples", {}).values():
                    example["value"]["model"] = model
    return made


def routes_with_bodies(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The schema of the body of each route that takes one by POST."""
    return {path: route["requestBody"]["content"]["application/json"]["schema"]
            for path, methods in document["paths"].items() for method, route in methods.items()
            if method == "post" and "requestBody" in route}


class Fields:
    """Finds every place of a schema where a text may stand."""

    def __init__(self, document: dict[str, Any], model: str) -> None:
        self._schemas, self._model = document["components"]["schemas"], model

    def places(self, schema: dict[str, Any], seen: tuple[str, ...] = ()) -> Iterator[tuple[str, Place]]:
        """The name of each place, and what makes a value with a given text there."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name not in seen:
                yield from self.places(self._schemas[name], (*seen, name))
            return
        for other in schema.get("anyOf", schema.get("oneOf", ())):
            yield from self.places(other, seen)
        kind = schema.get("type")
        if kind == "string" or "const" in schema or "enum" in schema:
            yield "", lambda text: text
        elif kind == "array":
            for name, place in self.places(schema.get("items", {}), seen):
                yield f"[]{name}", lambda text, place=place: [place(text)]
        elif kind == "object":
            yield from self._of_object(schema, seen)

    def _of_object(self, schema: dict[str, Any], seen: tuple[str, ...]) -> Iterator[tuple[str, Place]]:
        base, more = self.least(schema), schema.get("additionalProperties", True)
        yield ".<key>", lambda text: {**base, text: 1}
        if more is not False:
            yield ".<key and value>", lambda text: {**base, text: text}
        for field, inner in schema.get("properties", {}).items():
            for name, place in self.places(inner, seen):
                yield f".{field}{name}", lambda text, field=field, place=place: {**base, field: place(text)}

    def least(self, schema: dict[str, Any]) -> Any:
        """A value that fits a schema."""
        if "$ref" in schema:
            return self.least(self._schemas[schema["$ref"].rpartition("/")[2]])
        for known in ("const", "default"):
            if schema.get(known) is not None:
                return schema[known]
        if "enum" in schema:
            return schema["enum"][0]
        if "anyOf" in schema or "oneOf" in schema:
            return self.least(schema.get("anyOf", schema.get("oneOf"))[0])
        kind = schema.get("type", "string")
        if kind == "object":
            fields = schema.get("properties", {})
            made = {name: self._model if name == "model" else self.least(fields[name])
                    for name in schema.get("required", ())}
            return {**made, "max_tokens": 1} if "max_tokens" in fields else made
        if kind == "array":
            return [self.least(schema.get("items", {}))] if schema.get("minItems") else []
        return {"string": "x", "integer": 1, "number": 1.0, "boolean": True}.get(kind)


def by_fields(url: str, model: str, tally: Tally, texts: Sequence[str], share: float = 1.0, seed: int = 0) -> None:
    """Texts through every field of text of every route, and through paths, queries and headers.

    Args:
        share: of all pairs of a place and a text; every place has at least one.
    """
    document, dice = document_of(url, model), random.Random(seed)
    fields = Fields(document, model)
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        for path, schema in routes_with_bodies(document).items():
            for name, place in fields.places(schema):
                for text in _some(texts, share, dice):
                    _send(client, tally, f"{path}{name}", text, "POST", path, json.dumps(place(text)).encode())
        for name, (path, headers) in _OUTSIDE.items():
            for text in _some(texts, share, dice):
                escaped = quote(text, safe="")
                made = {key: text.encode().replace(b"\n", b" ").replace(b"\r", b" ").strip() for key in headers}
                _send(client, tally, name, text, "GET", path.format(escaped), None, made)


_OUTSIDE: dict[str, tuple[str, tuple[str, ...]]] = {
    "path of a model": ("/v1/models/{}", ()), "path": ("/{}", ()), "query": ("/v1/models?{0}={0}", ()),
    "header of the request's id": ("/v1/models", ("x-request-id", "traceparent")),
    "header of the key": ("/v1/models", ("authorization",)), "header of the type": ("/v1/models", ("content-type",))}


def _some(texts: Sequence[str], share: float, dice: random.Random) -> Sequence[str]:
    return texts if share >= 1 else dice.sample(list(texts), max(1, round(share * len(texts))))


def _send(client: httpx.Client, tally: Tally, place: str, text: str, method: str, path: str, body: bytes | None,
          headers: dict[str, bytes] | None = None) -> None:
    given = {**({} if body is None else {"content-type": b"application/json"}), **(headers or {})}
    try:
        reply = client.request(method, path, content=body, headers=list(
            {key.encode(): value for key, value in given.items()}.items()))
    except httpx.InvalidURL:
        return  # nothing that can be sent
    except httpx.HTTPError as error:
        tally.violate(f"{place} with {text!r}: {error!r}")
        return
    tally.count("texts", kind_of(reply), reply.elapsed.total_seconds())
    if reply.status_code >= 500 or (reply.status_code >= 400 and not _in_form(reply)):
        tally.violate(f"{place} with {text!r}: {reply.status_code} {reply.text[:300]}")


def kind_of(reply: httpx.Response) -> str:
    """A reply's status, and the code of its error."""
    if reply.status_code < 400:
        return str(reply.status_code)
    try:
        return f"{reply.status_code} {reply.json()['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return f"{reply.status_code} in another form"


def _in_form(reply: httpx.Response) -> bool:
    return not kind_of(reply).endswith("form") and bool(reply.headers.get("x-request-id"))


def by_json(url: str, model: str, tally: Tally, folder: Path, routes: Sequence[str] = ()) -> None:
    """JSONTestSuite's files as bodies and as values within bodies.

    Args:
        routes: all that take bodies where empty.
    """
    paths = routes or tuple(routes_with_bodies(document_of(url, model)))
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        for file in sorted(folder.glob("*.json")):
            raw = file.read_bytes()
            for path in paths:
                for body in (raw, b'{"model": "%s", "prompt": {"name": %s, "price": "x"}}' % (model.encode(), raw)):
                    _check_json(client, tally, file.name, path, body)


def _check_json(client: httpx.Client, tally: Tally, name: str, path: str, body: bytes) -> None:
    try:
        reply = client.post(path, content=body, headers={"content-type": "application/json"})
    except httpx.HTTPError as error:
        tally.violate(f"{name} to {path}: {error!r}")
        return
    refused = reply.status_code == 400 and reply.json()["error"]["message"].startswith(NO_JSON)
    tally.count(f"JSON {name[0]}_", "refused as no JSON" if refused else kind_of(reply), reply.elapsed.total_seconds())
    wrong = (reply.status_code not in (200, 400) or (name[0] == "n" and not refused)
             or (name[0] == "y" and refused != (name in STRICT)))
    if wrong:
        tally.violate(f"{name} to {path}: {reply.status_code} {reply.text[:300]}")


def by_broken_http(url: str, model: str, tally: Tally, cases: int, seed: int = 0) -> None:
    """Requests some of whose bytes are changed, left out or said twice: refused or answered, and always ended."""
    dice, where = random.Random(seed), urlsplit(url)
    body = json.dumps({"model": model, "prompt": "x", "max_tokens": 1}).encode()
    whole = (b"POST /v1/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nConnection: close\r\n"
             b"Content-Length: %d\r\n\r\n%s" % (where.netloc.encode(), len(body), body))
    for _ in range(cases):
        sent = _broken(whole, dice)
        began = time.monotonic()
        with socket.create_connection((where.hostname, where.port), timeout=TIMEOUT_S) as line:
            try:
                line.sendall(sent)
                line.shutdown(socket.SHUT_WR)
                found = b""
                while some := line.recv(65536):
                    found += some
            except TimeoutError:
                tally.violate(f"no end within {TIMEOUT_S:g} s of {sent!r}")
                continue
            except OSError:
                found = b""
        status = found.split(b" ", 2)[1].decode() if found.startswith(b"HTTP/1.1 ") else "closed"
        tally.count("broken HTTP", status, time.monotonic() - began)
        if status.startswith("5") or (status.startswith("4") and b'{"error": {"message": ' not in found):
            tally.violate(f"{status} after {sent!r}: {found[:300]!r}")


def _broken(whole: bytes, dice: random.Random) -> bytes:
    made = bytearray(whole)
    for _ in range(dice.choice([1, 1, 2, 8])):
        at, size = dice.randrange(len(made)), dice.choice([1, 1, 4, 40])
        match dice.randrange(4):
            case 0:
                made[at:at + 1] = bytes([dice.randrange(256)])
            case 1:
                del made[at:at + size]
            case 2:
                made[at:at] = made[at:at + size]
            case _:
                made[at:at] = dice.choice([
                    b"\0", b"\r\n", b"\n", b": ", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n",
                    b"Expect: 100-continue\r\n", b"\xff" * size, b" " * 9000])
        if not made:
            return b"\r\n"
    return bytes(made)
