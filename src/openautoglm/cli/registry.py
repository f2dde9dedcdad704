"""What the verbs `models` and `keys` share: where the registry is, who acts, how tables and times look."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from openautoglm.serve.registry.registry import Registry

Place = Annotated[str | None, typer.Option(
    "--registry", metavar="FILE|URL", help="The registry: a file, or postgresql://...; by default "
    "$OPENAUTOGLM_REGISTRY, else a file in the user's data folder.")]
Store = Annotated[Path | None, typer.Option(
    "--store", metavar="FOLDER", help="Where copied bundles are kept; by default $OPENAUTOGLM_STORE, else beside "
    "the registry's file.")]
Form = Annotated[str, typer.Option("--format", metavar="table|json", help="How to print.")]


def opened(registry: str | None, store: Path | None = None) -> Registry:
    """Open the registry that the options name."""
    from openautoglm.core.extras import require

    for module in ("sqlalchemy", "alembic"):
        require(module, "serve")
    from openautoglm.serve.registry.registry import open_registry

    return open_registry(registry, store)


def actor() -> str:
    """Who acts, for the audit log."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user without an entry
        return f"cli:{os.getuid()}"


def show(form: str, columns: Sequence[str], rows: Iterable[Sequence[object]], facts: object, empty: str) -> None:
    """Print `facts` as JSON, or `rows` as a table; `empty` where there are none."""
    if form not in ("table", "json"):
        raise typer.BadParameter(f"{form!r} is neither table nor json", param_hint="--format")
    if form == "json":
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        typer.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def when(seconds: float | None) -> str:
    """A time as ``2027-01-31 12:00`` (UTC); a dash for none."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def iso(seconds: float | None) -> str | None:
    """A time for JSON."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def size(count: int) -> str:
    """Bytes for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def plain(value: Any) -> str:
    """JSON-like detail on one line: ``key=value key=value``, ``one, two``; a dash for nothing."""
    if value in (None, "", [], {}):
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if not isinstance(value, dict):
        return str(value)
    return " ".join(f"{key}={json.dumps(item, ensure_ascii=False) if isinstance(item, dict | list) else item}"
                    for key, item in value.items() if item is not None)
