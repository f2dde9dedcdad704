// The six charts, and what each of them shows.

import { Chart, SPANS_MS, words } from "/console/chart.js";
import { asked, between, together } from "/console/figures.js";
import { number, percent, seconds } from "/console/words.js";

const LONGEST_MS = 7_000; // readings further apart, after the page was hidden, say nothing of this moment
const QUIET = "No requests yet";

const PANELS = {
  ttft: { name: "Time to first token", lines: ["p50", "p99"], fields: ["ttft50", "ttft99"], unit: "seconds",
    words: seconds },
  itl: { name: "Time per token", lines: ["p50", "p99"], fields: ["itl50", "itl99"], unit: "seconds", words: seconds },
  tokens: { name: "Throughput", lines: ["answers", "prompts"], fields: ["generated", "prompts"], unit: "rate",
    words: perSecond },
  requests: { name: "Requests", lines: ["running", "waiting"], fields: ["running", "waiting"], unit: "count",
    words: number },
  cache: { name: "Cache in use", lines: ["held"], fields: ["cache"], unit: "share", words: percent, most: 1 },
  prefix: { name: "Prompts found in the cache", lines: ["found"], fields: ["prefix"], unit: "share", words: percent,
    most: 1 },
};

/** Draws what is read, for one model or all. */
export class Panels {
  #charts = new Map();
  #readings = []; // {at, models}, oldest first
  #pick; #label;

  constructor(root, pick, label) {
    this.#pick = pick;
    this.#label = label;
    for (const article of root.querySelectorAll("[data-panel]")) {
      const panel = PANELS[article.dataset.panel];
      const chart = new Chart(article.querySelector(".plot"), panel);
      this.#charts.set(article.dataset.panel, { chart, now: article.querySelector(".now") });
      this.#tell(article.dataset.panel, null);
    }
    pick.addEventListener("change", () => this.#draw());
  }

  /** A page of figures was read. */
  add(models, at = Date.now()) {
    this.#readings = [...this.#readings.filter((one) => one.at > at - SPANS_MS.at(-1) - LONGEST_MS), { at, models }];
    this.#offer([...models.keys()].sort());
    this.#draw();
  }

  /** There is nothing to be shown, and why; what was read before is forgotten where it is another's. */
  none(why, { forget = true } = {}) {
    if (forget) this.#readings = [];
    this.#draw(why);
  }

  #draw(why = "") {
    const points = this.#points();
    const last = this.#readings.at(-1);
    const quiet = last !== undefined && !asked(together(last.models, this.#pick.value));
    const now = last?.at ?? Date.now();
    for (const [name, { chart }] of this.#charts) {
      const { fields } = PANELS[name];
      const shown = quiet ? [] : points.map(({ at, found }) => ({ at, values: fields.map((field) => found[field]) }));
      const none = quiet ? QUIET : points.length > 1 ? "No answers in the last minutes" : "Reading…";
      chart.draw(shown, now, why || none, this.#readings[0]?.at ?? now);
      this.#tell(name, chart.none ? null : shown.at(-1).values);
    }
  }

  #points() {
    const stands = this.#readings.map(({ at, models }) => ({ at, stand: together(models, this.#pick.value) }));
    return stands.slice(1).flatMap(({ at, stand }, index) => {
      const before = stands[index];
      const long = at - before.at > LONGEST_MS || at <= before.at;
      return long ? [] : [{ at, found: between(before.stand, stand, (at - before.at) / 1000) }];
    });
  }

  #tell(name, values) {
    const panel = PANELS[name];
    this.#charts.get(name).now.replaceChildren(...panel.lines.map((line, index) => {
      const part = words("span", "", "");
      part.append(words("i", `key s${index}`, ""), line, words("b", "", panel.words(values?.[index] ?? null)));
      return part;
    }));
  }

  #offer(names) {
    const known = [...this.#pick.options].slice(1).map((option) => option.value);
    if (names.join("\n") === known.join("\n")) return;
    const chosen = this.#pick.value;
    this.#pick.replaceChildren(this.#pick.options[0], ...names.map((name) => new Option(name, name)));
    this.#pick.value = names.includes(chosen) ? chosen : "";
    this.#label.hidden = names.length < 2;
  }
}

function perSecond(value) {
  return value === null ? "–" : `${number(value < 10 ? value : Math.round(value))} / s`;
}
