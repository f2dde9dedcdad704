// Prometheus's text form.

const NAME = /[a-zA-Z_:][a-zA-Z0-9_:]*/y;
const ESCAPES = { n: "\n", "\\": "\\", '"': '"' };

/**
 * The samples of a page; lines that are none are left out.
 * @returns {{name: string, labels: Record<string, string>, value: number}[]}
 */
export function samples(text) {
  return text.split("\n").map(sample).filter((found) => found !== null);
}

/** One line, or null where it is a comment, empty or broken. */
export function sample(line) {
  const at = { line: line.trim(), index: 0 };
  if (!at.line || at.line[0] === "#") return null;
  const name = word(at);
  if (name === null) return null;
  blank(at);
  const labels = at.line[at.index] === "{" ? braces(at) : Object.create(null);
  if (labels === null) return null;
  const [value = "", stamp, more] = at.line.slice(at.index).trim().split(/[ \t]+/);
  if (more !== undefined || (stamp !== undefined && !/^-?\d+$/.test(stamp))) return null;
  const read = real(value);
  return read === null ? null : { name, labels, value: read };
}

/** A number as Prometheus writes it; null where it is none. */
export function real(text) {
  if (/^[+-]?inf(inity)?$/i.test(text)) return text[0] === "-" ? -Infinity : Infinity;
  if (/^[+-]?nan$/i.test(text)) return NaN;
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : null;
}

function braces(at) {
  const labels = Object.create(null); // a label may be called __proto__
  at.index += 1;
  for (;;) {
    blank(at);
    if (at.line[at.index] === "}") {
      at.index += 1;
      return labels;
    }
    const name = word(at);
    blank(at);
    if (name === null || at.line[at.index] !== "=") return null;
    at.index += 1;
    blank(at);
    const value = quoted(at);
    if (value === null) return null;
    labels[name] = value;
    blank(at);
    if (at.line[at.index] === ",") at.index += 1;
    else if (at.line[at.index] !== "}") return null;
  }
}

function quoted(at) {
  if (at.line[at.index] !== '"') return null;
  let text = "";
  for (let index = at.index + 1; index < at.line.length; index += 1) {
    const sign = at.line[index];
    if (sign === '"') {
      at.index = index + 1;
      return text;
    }
    if (sign === "\\") {
      index += 1;
      text += ESCAPES[at.line[index]] ?? `\\${at.line[index] ?? ""}`;
    } else text += sign;
  }
  return null;
}

function word(at) {
  NAME.lastIndex = at.index;
  const found = NAME.exec(at.line);
  if (found === null) return null;
  at.index = NAME.lastIndex;
  return found[0];
}

function blank(at) {
  while (at.line[at.index] === " " || at.line[at.index] === "\t") at.index += 1;
}
