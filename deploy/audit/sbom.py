"""``make sbom``: what an installation with the extras `serve` and `train` consists of, as CycloneDX JSON.

cyclonedx-bom writes down the whole environment, which also holds the tools of developers; this keeps what our package
needs with these two extras, and what that needs in turn. Usage: sbom.py PYPROJECT WHOLE.json SBOM.json
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("serve", "train")


def wanted(pyproject: Path, extras: Iterable[str]) -> list[str]:
    """The requirements of a project with these extras."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]


def closure(lines: Iterable[str]) -> tuple[set[str], set[str]]:
    """Names of all packages that these requirements need, and of those of them that are not installed."""
    seen: set[tuple[str, tuple[str, ...]]] = set()
    missing: set[str] = set()
    waiting = [(line, ("",)) for line in lines]
    while waiting:
        line, asked = waiting.pop()
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in asked):
            continue
        name, extras = str(canonicalize_name(requirement.name)), tuple(sorted(requirement.extras))
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            waiting += [(line, (*extras, "")) for line in requires(name) or []]
        except PackageNotFoundError:
            missing.add(name)
    return {name for name, _ in seen}, missing


def cut(bill: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The bill with the components of these names alone, and the dependencies between them."""
    components = [part for part in bill["components"] if canonicalize_name(part["name"]) in names]
    root = bill["metadata"].get("component", {}).get("bom-ref")
    refs = {part["bom-ref"] for part in components} | ({root} if root else set())
    links = []
    for link in bill.get("dependencies", []):
        if link["ref"] in refs:
            on = [ref for ref in link.get("dependsOn", []) if ref in refs]
            links.append({"ref": link["ref"], **({"dependsOn": on} if on else {})})
    return {**bill, "components": components, "dependencies": links}


def main(pyproject: Path, whole: Path, sbom: Path) -> int:
    """Write `sbom` from `whole`, a bill of the environment that runs this; 1 where a requirement is not installed."""
    bill = json.loads(whole.read_text(encoding="utf-8"))
    names, missing = closure(wanted(pyproject, EXTRAS))
    if missing:
        print(f"not installed, so the bill would be wrong: {', '.join(sorted(missing))}; run `make sbom` in a checkout "
              "whose .venv is whole", file=sys.stderr)
        return 1
    made = cut(bill, names)
    sbom.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(f"{sbom}: {len(made['components'])} components of {len(bill['components'])} that are installed")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:4])))
