// From what stands in the form to the body of a request.

/** A field of the form holds what cannot be sent; `field` is its id. */
export class Wrong extends Error {
  constructor(field, words) {
    super(words);
    this.field = field;
  }
}

/**
 * The request that a form means.
 *
 * Numbers and records go as they are written: a record's `1.50` and a seed beyond 2^53 must not change on their way.
 *
 * @param form {mode, model, input, system, turns, max_tokens, temperature, seed, stop}; `turns`: the chat so far.
 * @returns {{path: string, json: string}}
 */
export function request(form) {
  const parts = { model: JSON.stringify(form.model) };
  let path = "/v1/completions";
  if (form.mode === "chat") {
    path = "/v1/chat/completions";
    const system = form.system.trim() ? [{ role: "system", content: form.system }] : [];
    filled(form.input, "Write a message first.");
    parts.messages = JSON.stringify([...system, ...form.turns, { role: "user", content: form.input }]);
  } else if (form.mode === "record") parts.prompt = record(form.input);
  else {
    filled(form.input, "Write a text first.");
    parts.prompt = JSON.stringify(form.input);
  }
  parts.stream = "true";
  parts.stream_options = '{"include_usage":true}';
  const options = {
    max_tokens: whole("max_tokens", form.max_tokens, "Most tokens", 1n),
    temperature: real("temperature", form.temperature, "Temperature"),
    seed: whole("seed", form.seed, "Seed", null),
    stop: stops(form.stop),
  };
  for (const [name, value] of Object.entries(options)) if (value !== null) parts[name] = value;
  return { path, json: `{${Object.entries(parts).map(([name, value]) => `"${name}":${value}`).join(",")}}` };
}

function filled(text, words) {
  if (!text.trim()) throw new Wrong("input", words);
}

function record(text) {
  filled(text, 'Write a record first, e.g. {"name": "The Punter", "food": "Italian"}.');
  let read;
  try {
    read = JSON.parse(text);
  } catch (error) {
    const place = /line (\d+) column (\d+)/.exec(error.message);
    const where = place ? ` Look at line ${place[1]}, column ${place[2]}.` : "";
    const remedy = 'Names and texts stand in double quotes: {"name": "The Punter"}.';
    throw new Wrong("input", `The record is no JSON.${where} ${remedy}`);
  }
  if (read === null || typeof read !== "object" || Array.isArray(read)) {
    throw new Wrong("input", 'A record is a JSON object: {"name": "The Punter"}.');
  }
  return text.trim();
}

function whole(field, text, name, least) {
  const found = text.trim();
  if (!found) return null;
  if (!/^[+-]?\d{1,19}$/.test(found)) throw new Wrong(field, `${name} must be a whole number.`);
  const value = BigInt(found.replace("+", ""));
  if (least !== null && value < least) throw new Wrong(field, `${name} must be at least ${least}.`);
  return value.toString();
}

function real(field, text, name) {
  const found = text.trim();
  if (!found) return null;
  if (!/^(\d+\.?\d*|\.\d+)$/.test(found)) throw new Wrong(field, `${name} must be a number, e.g. 0.7.`);
  return JSON.stringify(Number(found));
}

/** One stop string a line; \n, \t and \\ stand for a line's end, a tab and a backslash. */
function stops(text) {
  const found = text.split("\n").filter((line) => line !== "")
    .map((line) => line.replace(/\\([nt\\])/g, (_, sign) => ({ n: "\n", t: "\t", "\\": "\\" })[sign]));
  return found.length ? JSON.stringify(found) : null;
}
