"""``autoglm keys``: who may use the service, and for what."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from openautoglm.cli.registry import Form, Place, actor, iso, opened, show, when

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True,
                  help="Keys of the service: create, list, revoke.")
_UNITS_S = {"m": 60, "h": 3600, "d": 24 * 3600}
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._@-]{0,62}[A-Za-z0-9])?")


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whom or what the key is for.")],
    scope: Annotated[list[str], typer.Option(help="What it may do: infer, admin or metrics; can be given again.")],
    expires: Annotated[str | None, typer.Option(metavar="90d|12h|DATE", help="When it ends; by default never.")] = None,
    requests_per_min: Annotated[int | None, typer.Option(min=1, max=10**9, help="By default as the server says.")
                                ] = None,
    tokens_per_min: Annotated[int | None, typer.Option(min=1, max=10**9, help="Prompt and answer together.")] = None,
    registry: Place = None,
) -> None:
    """Create a key and print it, this once; only its hash is kept."""
    from openautoglm.core.extras import require
    from openautoglm.serve.guard.rights import check_scopes

    require("argon2", "serve")
    from openautoglm.serve.guard import secret

    scopes, ends_s = check_scopes(scope), _ends(expires)
    if not _NAME.fullmatch(name):
        raise typer.BadParameter("1 to 64 of letters, digits, space, . _ @ -; a letter or digit at both ends",
                                 param_hint="--name")
    with opened(registry) as use:
        from openautoglm.serve.registry.keys import KeyRecord

        key_id, token, hashed = secret.mint()
        use.keys.add(KeyRecord(key_id, name, hashed, scopes, requests_per_min, tokens_per_min, expires_s=ends_s),
                     by=actor())
    typer.echo(f"key {key_id} for {name!r}: {', '.join(sorted(scopes))}; "
               + ("never expires" if ends_s is None else f"expires {when(ends_s)} UTC")
               + ". It is shown this once:", err=True)
    typer.echo(token)


@app.command("list")
def list_keys(form: Form = "table", registry: Place = None) -> None:
    """List all keys; the keys themselves are not known here."""
    with opened(registry) as use:
        keys, now_s = use.keys.list(), use.database.now()
    rows = [(key.key_id, key.name, ", ".join(sorted(key.scopes)), _state(key.revoked_s, key.expires_s, now_s),
             when(key.created_s), when(key.expires_s), when(key.used_s),
             f"{key.requests_per_min or '-'} / {key.tokens_per_min or '-'}") for key in keys]
    facts = [{"key_id": key.key_id, "name": key.name, "scopes": sorted(key.scopes),
              "state": _state(key.revoked_s, key.expires_s, now_s), "created": iso(key.created_s),
              "created_by": key.created_by, "expires": iso(key.expires_s), "revoked": iso(key.revoked_s),
              "used": iso(key.used_s), "requests_per_min": key.requests_per_min,
              "tokens_per_min": key.tokens_per_min} for key in keys]
    show(form, ("id", "name", "scopes", "state", "created", "expires", "last used", "requests / tokens a minute"),
         rows, facts, "no keys; create one: autoglm keys create --scope infer --name NAME")


@app.command()
def revoke(key: Annotated[str, typer.Argument(metavar="ID|NAME", help="The id or the name of a key.")],
           registry: Place = None) -> None:
    """Revoke a key for good; servers stop taking it within seconds."""
    with opened(registry) as use:
        gone = use.keys.revoke(key, by=actor())
    typer.echo(f"key {gone.key_id} ({gone.name}) is revoked")


def _state(revoked_s: float | None, expires_s: float | None, now_s: float) -> str:
    if revoked_s is not None:
        return "revoked"
    return "expired" if expires_s is not None and expires_s <= now_s else "in use"


def _ends(text: str | None) -> float | None:
    """Seconds since 1970 for ``90d``, ``12h``, ``30m``, ``2027-01-31`` or a time of ISO 8601, UTC by default."""
    if text is None:
        return None
    span = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text)
    try:
        moment = None if span else datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text[:40]!r} is neither a time from now nor a date; write 90d, 12h or 2027-01-31",
                                 param_hint="--expires") from None
    if span:
        return time.time() + int(span[1]) * _UNITS_S[span[2]]
    assert moment is not None
    ends_s = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    if ends_s <= time.time():
        raise typer.BadParameter(f"{text} is past", param_hint="--expires")
    return ends_s
