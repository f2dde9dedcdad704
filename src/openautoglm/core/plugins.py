"""Plug-ins: objects that other distributions offer through entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from openautoglm.core.errors import PluginError


def distribution_of(entry: EntryPoint) -> str:
    """Return name and version of the distribution that offers `entry`, for messages."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown distribution"


def plugin_entries(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of `group` by name, not yet loaded.

    Raises:
        PluginError: two distributions offer the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise PluginError(
                f"{distribution_of(other)} and {distribution_of(entry)} both offer {entry.name!r}",
                where=group, remedy="uninstall one of the two")
    return found


def load_plugins(group: str) -> dict[str, Any]:
    """Load every object that installed distributions offer under the entry point `group`, by name.

    Raises:
        PluginError: an entry does not load, or two distributions offer one name; the distribution is named.
    """
    return {name: _load(entry) for name, entry in plugin_entries(group).items()}


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # a plug-in may fail in any way; all of them end in one clear error
        cause = f"{type(error).__name__}: {error}"
        raise PluginError(
            f"plug-in {entry.name!r} of {distribution_of(entry)} does not load: {cause}",
            where=f"{entry.group}: {entry.name} = {entry.value}",
            remedy="update or uninstall the distribution") from error
