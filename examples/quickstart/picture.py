"""Draw the picture of the README: what the last demo printed, as an SVG without outside resources.

    python examples/quickstart/picture.py [--folder runs] [--output docs/images/demo.svg]
"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

from planted import score

HERE = Path(__file__).resolve().parent
WIDTH, LINE, MARGIN, COLUMNS = 860, 19, 20, 98
SHOWN = ("bleu", "rouge_l", "coverage")
STYLE = """text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#d6deeb;white-space:pre}
.dim{fill:#7f8ea3}.good{fill:#7ddba3}.model{fill:#ffd580}"""

Line = tuple[str, str]


def draw(lines: list[Line]) -> str:
    """Return an SVG with one row of text a line; a line is (class, text)."""
    height = LINE * len(lines) + 2 * MARGIN
    places = [(MARGIN + round(LINE * (at + 0.75)), *line) for at, line in enumerate(lines)]
    rows = "\n".join(f'<text x="{MARGIN}" y="{y}" class="{kind}">{escape(text)}</text>'
                     for y, kind, text in places if text)
    face = f'viewBox="0 0 {WIDTH} {height}" role="img" xml:space="preserve"'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" {face}>\n'
            f"<title>Output of make demo</title>\n<style>{STYLE}</style>\n"
            f'<rect width="{WIDTH}" height="{height}" rx="10" fill="#14202e"/>\n{rows}\n</svg>\n')


def lines_of(data: Path, run: Path) -> list[Line]:
    """What the picture says, read from the folders of a finished demo."""
    lines: list[Line] = [("dim", "$ make demo"), ("", "")]
    lines.append(("dim", f"{'planted fault':<18}{'planted':>9}{'found':>9}{'precision':>12}{'recall':>9}"))
    for row in score(data, run / "data"):
        figures = f"{row.planted:>9}{row.found:>9}{row.precision:>12.3f}{row.recall:>9.3f}"
        lines.append(("good" if min(row.precision, row.recall) > 0.9 else "", f"{row.fault:<18}{figures}"))
    scores = json.loads((run / "evaluate" / "scores.json").read_text(encoding="utf-8"))
    test = scores["splits"]["test"][scores["chosen"]]
    lines += [("", ""), ("dim", f"test set, {test['cases']} records, decoding {scores['chosen']}")]
    for key in SHOWN:
        if key in test["scores"]:
            one = test["scores"][key]
            lines.append(("", f"{one['name'][:66]:<68}{one['value']:>7.2f}"))
    with (run / "evaluate" / "predictions.jsonl").open(encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["split"] == "test"]
    for row in rows[:2]:
        lines.append(("", ""))
        lines += _wrapped("dim", "record    ", row["source"])
        lines += _wrapped("model", "model     ", row["prediction"])
        lines += _wrapped("", "reference ", row["references"][0])
    return lines


def _wrapped(kind: str, head: str, text: str) -> list[Line]:
    rows = textwrap.wrap(text, COLUMNS - len(head)) or [""]
    return [(kind, (head if at == 0 else " " * len(head)) + row) for at, row in enumerate(rows)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / "runs")
    parser.add_argument("--output", type=Path, default=HERE.parents[1] / "docs" / "images" / "demo.svg")
    chosen = parser.parse_args()
    picture = draw(lines_of(chosen.folder / "quickstart-data", chosen.folder / "quickstart"))
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(picture, encoding="utf-8")
    print(f"written: {chosen.output}")
