"""Helm's own engine over the chart, for many values; runs in the environment of `make tools`, which has it.

Reads ``{"chart": folder, "values": [...]}`` from standard input. Writes for each values either the documents of each
template, or the fault; and what `helm lint` says, and which documents Kubernetes' own schemas refuse.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import kubernetes_validate
import yaml
from helm_python import chart
from kubernetes_validate.utils import latest_version

OLDEST = "1.27"  # as Chart.yaml says


def rendered(folder: str, values: Any) -> dict[str, Any]:
    """The documents by template."""
    try:
        with chart.Chart.load(folder) as opened:
            texts = opened.render(values=values, name="demo", namespace="models")
    except Exception as error:  # tells the test, whatever it is
        return {"fault": str(error)}
    notes = next(text for name, text in texts.items() if name.endswith("NOTES.txt"))
    documents = [(name, document) for name, text in sorted(texts.items()) if name.endswith(".yaml")
                 for document in yaml.safe_load_all(text) if document is not None]
    return {"notes": notes, "documents": documents}


def refused(documents: list[Any]) -> list[str]:
    """What the strict schemas of Kubernetes say: of the oldest version that the chart is for, and of the newest."""
    told = []
    for name, document in documents:
        for version in (OLDEST, latest_version()):
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                told.append(f"no schema: {document['kind']}")
            except kubernetes_validate.ValidationError as error:
                told.append(f"{name} {version}: {error.message}")
    return sorted(set(told))


def main() -> None:
    """Answer one question."""
    asked = json.load(sys.stdin)
    found = [rendered(asked["chart"], values) for values in asked["values"]]
    for item in found:
        item["refused"] = refused(item.get("documents", []))
    json.dump({"lint": chart.lint(asked["chart"], values=asked["values"][0]), "rendered": found}, sys.stdout)


if __name__ == "__main__":
    main()
