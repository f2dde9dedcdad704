// How the server stands: its version, whether it is ready and why not, its models, and what it says to the key.

import { key } from "/console/access.js";
import { call } from "/console/calls.js";
import { words } from "/console/chart.js";
import { number } from "/console/words.js";

const READY_MS = 5_000, PROBED_MS = 30_000, MODELS_MS = 30_000, LATEST_MS = 20_000;
const at = (id) => document.getElementById(id);

/** onmodels: is told the models' names; onkey: is told a fault of the key, or null where it was taken. */
export class State {
  #onmodels; #onkey;
  #refused = false;
  #probedAt = 0;
  #round = 0;

  constructor({ onmodels, onkey }) {
    this.#onmodels = onmodels;
    this.#onkey = onkey;
    const every = (pause, work) => setInterval(() => document.hidden || work(), pause);
    every(READY_MS, () => this.#probe());
    every(MODELS_MS, () => this.#refused || this.models());
    document.addEventListener("visibilitychange", () => document.hidden || this.ready());
  }

  /** Ask for all of it. */
  async start() {
    this.ready();
    await this.models();
  }

  async #version() {
    if (at("version").dataset.known) return;
    try {
      const { version } = await (await call("/version")).json();
      at("version").textContent = `console, server ${version}`;
      at("version").dataset.known = "yes";
    } catch {
      at("version").textContent = "console"; // asked again when the server answers
    }
  }

  /** Ask again after a while, and sooner where the server was not ready: asking may cost it a token. */
  #probe() {
    const well = at("health").dataset.state === "ready";
    if (!well || performance.now() - this.#probedAt > PROBED_MS) this.ready();
  }

  /** Whether the server can serve. */
  async ready() {
    this.#probedAt = performance.now();
    try {
      const signal = AbortSignal.timeout(LATEST_MS);
      const reply = await fetch("/ready", { cache: "no-store", credentials: "omit", signal });
      const told = await reply.json();
      if (reply.ok) this.#health("ready", "ready", "");
      else this.#health("unready", "not ready", String(told.reason ?? told.error?.message ?? ""));
      await this.#version();
    } catch {
      this.#health("gone", "no answer", "the server, or the network before it, is gone");
    }
  }

  #health(state, word, why) {
    if (at("health").dataset.state === state && at("health-why").textContent === why) return;
    at("health").dataset.state = state;
    at("health-word").textContent = word;
    at("health-why").textContent = why;
  }

  /** Ask for the models; this is also where a key is tried first. */
  async models() {
    const round = this.#round += 1;
    let found;
    try {
      found = (await (await call("/v1/models")).json()).data;
      if (!Array.isArray(found)) throw new TypeError("no list");
    } catch (error) {
      if (round !== this.#round) return;
      this.#refused = error.kind === "key";
      this.#rows([], error.kind ? error.message : "The server sent no list of models.");
      this.#key(error);
      return;
    }
    if (round !== this.#round) return;
    this.#refused = false;
    this.#rows(found, "There are no models.");
    this.#key(null);
    this.#onmodels(found.map((model) => String(model.id)));
  }

  #key(error) {
    const told = at("key-state");
    const bad = error?.kind === "key";
    if (bad || !error) {
      told.dataset.state = bad ? "bad" : "good";
      told.textContent = bad ? error.message : key() ? "This key is taken." : "No key is needed here.";
    } else if (error.kind === "scope") {
      told.dataset.state = "";
      told.textContent = "This key is known, but may not ask the models.";
    } else told.textContent = "";
    at("key").setAttribute("aria-invalid", String(bad && Boolean(key())));
    this.#onkey(error);
  }

  #rows(models, none) {
    at("models-note").textContent = models.length > 1 ? `${models.length} in all` : "";
    const rows = models.map((model) => row(model));
    if (!rows.length) {
      const cell = words("td", "soft", none);
      cell.colSpan = 5;
      rows.push(document.createElement("tr"));
      rows[0].append(cell);
    }
    at("models-rows").replaceChildren(...rows);
  }
}

/** One model; fields that a server does not tell are dashes, and a version or aliases stand behind the name. */
function row(model) {
  const made = document.createElement("tr");
  const version = model.version && `version ${model.version}`;
  const more = [version, model.stage, ...[model.aliases ?? []].flat()].filter(Boolean);
  const name = words("td", "", "");
  name.append(words("b", "", String(model.id)), more.length ? words("span", "soft", ` ${more.join(", ")}`) : "");
  const cells = [
    ["tokens at most", "n", number(model.max_model_len)],
    ["", "", model.state ? String(model.state).toLowerCase() : model.max_model_len ? "loaded" : "not loaded"],
    ["fingerprint", "", model.fingerprint ? String(model.fingerprint).slice(0, 12) : "–"],
    ["since", "", model.created ? day(model.created) : "–"],
  ].map(([label, kind, said]) => {
    const cell = words("td", kind, said);
    if (label) cell.dataset.name = label;
    return cell;
  });
  if (model.fingerprint) cells[2].title = String(model.fingerprint);
  made.append(name, ...cells);
  return made;
}

function day(created) {
  return new Date(created * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}
