"""``make audit``: bandit over the sources, and pip-audit over every pinned version.

Exit status: 0 nothing was found; 1 something was found; 3 nothing was found, but the advisory service did not answer
for some pins, so that nobody knows. A package that the service does not know counts as not answered: a mirror without
advisories would make everything look safe.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FOUND, UNKNOWN = 1, 3
TIMEOUT_S = 900
NAMED = 8


class Pins(NamedTuple):
    """What the advisory service said: pins that it knows, those it does not, and advisories, one line each."""

    known: list[str]
    unknown: list[str]
    advisories: list[str]


def read(report: dict[str, Any]) -> Pins:
    """Read pip-audit's JSON report."""
    found = Pins([], [], [])
    for package in report["dependencies"]:
        name = f"{package['name']} {package.get('version', '')}".strip()
        (found.unknown if "skip_reason" in package else found.known).append(name)
        for fault in package.get("vulns", []):
            fixed = ", ".join(fault.get("fix_versions", [])) or "no version yet"
            found.advisories.append(f"{name}: {fault['id']}, fixed in {fixed}")
    return found


def bandit(tools: Path) -> bool:
    """Look through the sources; whether nothing was found."""
    done = subprocess.run(  # nosec B603  # our own command, no shell
        [tools / "bandit", "--quiet", "--configfile", "pyproject.toml", "--recursive", "src", "deploy"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, timeout=TIMEOUT_S)
    if done.returncode not in (0, 1):  # else it only warns of marks on lines that need none
        print(done.stderr, file=sys.stderr)
    return done.returncode == 0


def pins(tools: Path) -> Pins | None:
    """Ask for advisories on every version of constraints.txt; None where nobody answers."""
    done = subprocess.run(  # nosec B603  # our own command, no shell
        [tools / "pip-audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip", "--format", "json",
         "--progress-spinner", "off", "--timeout", "15"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    try:
        return read(json.loads(done.stdout))
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"pip-audit has no report: {last}", file=sys.stderr)
        return None


def verdict(clean: bool, found: Pins | None) -> tuple[int, list[str]]:
    """The exit status, and what to print."""
    lines = [] if clean else ["bandit: see above; mend it, or mark the line with `# nosec ID` and a reason"]
    if found is None:
        return (UNKNOWN if clean else FOUND), [*lines, "advisories: NOT CHECKED, the advisory service did not answer"]
    lines += found.advisories
    lines.append(f"advisories: {len(found.known)} pins checked, {len(found.advisories)} advisories")
    if found.unknown:
        lines.append(f"advisories: {len(found.unknown)} pins NOT CHECKED, unknown to the advisory service: "
                     + ", ".join(found.unknown[:NAMED]) + (", ..." if len(found.unknown) > NAMED else ""))
    if not clean or found.advisories:
        return FOUND, lines
    return (UNKNOWN if found.unknown else 0), lines


def main() -> int:
    """Check, print, and return the exit status."""
    tools = Path(sys.executable).parent
    clean = bandit(tools)
    if clean:
        print("bandit: nothing found")
    status, lines = verdict(clean, pins(tools))
    print("\n".join(lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
