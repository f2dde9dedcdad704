// One chart: lines over the last minutes, with the values under the pointer or the arrow keys.

import { ticks, units } from "/console/scale.js";
import { clock, number } from "/console/words.js";

export const SPANS_MS = [60_000, 120_000, 300_000]; // how much is shown: the shortest that holds all, or the last
const LEFT = 40, RIGHT = 8, TOP = 22, BOTTOM = 22;
const GAP_MS = 7_000; // a line does not go on over a pause that is longer

/** lines: their names; unit: one of `units`; words: writes a value; most: where the axis ends, if that is fixed. */
export class Chart {
  #plot; #lines; #unit; #words; #most; #name;
  #points = [];
  #now = 0;
  #span = SPANS_MS[0];
  #pointed = null;
  #tip = null;

  constructor(plot, { name, lines, unit, words, most = null }) {
    this.#plot = plot;
    this.#name = name;
    this.#lines = lines;
    this.#unit = units[unit];
    this.#words = words;
    this.#most = most;
    plot.tabIndex = 0;
    plot.setAttribute("role", "img");
    plot.addEventListener("pointermove", (event) => this.#point(event));
    plot.addEventListener("pointerdown", (event) => this.#point(event));
    plot.addEventListener("pointerleave", () => this.#leave());
    plot.addEventListener("blur", () => this.#leave());
    plot.addEventListener("keydown", (event) => this.#step(event));
    new ResizeObserver(() => this.#draw()).observe(plot);
    this.draw([], Date.now(), "Reading…");
  }

  /**
   * Show points `{at, values}`, oldest first; a value that is null breaks its line.
   * @param none what is said where there is nothing to be shown.
   * @param since when the readings began.
   */
  draw(points, now, none, since = now) {
    this.#span = SPANS_MS.find((span) => span >= now - since) ?? SPANS_MS.at(-1);
    this.#points = points.filter((point) => point.at >= now - this.#span);
    this.#now = now;
    this.none = this.#points.some((point) => point.values.some((value) => value !== null)) ? "" : none;
    this.#draw();
  }

  #draw() {
    const width = this.#plot.clientWidth, height = this.#plot.clientHeight;
    if (!width || !height) return;
    this.#width = width;
    const high = Math.max(0, ...this.#points.flatMap((point) => point.values.filter((value) => value !== null)));
    const unit = this.#unit(this.#most ?? high);
    const marks = this.#most === null ? ticks(high * unit.factor, 4, unit.whole) : ticks(this.#most * unit.factor);
    const floor = height - BOTTOM, top = marks.at(-1);
    this.#y = (value) => floor - (floor - TOP) * Math.min(1, value * unit.factor / top);
    const root = shape("svg", { width, height, "aria-hidden": "true" });
    root.append(text(0, 10, unit.name, ""));
    for (const mark of this.none ? [0] : marks) {
      const at = this.#y(mark / unit.factor);
      root.append(shape("line", { class: mark ? "grid" : "axis", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
      root.append(text(LEFT - 6, at + 4, number(mark), "end"));
    }
    const step = this.#span / (this.#span > 120_000 ? 5 : 4);
    for (let ago = 0; ago < this.#span; ago += step) {
      const said = !ago ? "now" : step < 60_000 ? `−${ago / 1000} s` : `−${ago / 60_000} min`;
      root.append(text(this.#x(this.#now - ago), height - 6, said, ago ? "mid" : "end"));
    }
    this.#lines.forEach((_, index) => root.append(...this.#line(index)));
    this.#cross = shape("g", {});
    root.append(this.#cross);
    const parts = [root];
    if (this.none) parts.push(words("p", "none", this.none));
    this.#tip = words("div", "tip", "");
    this.#tip.hidden = true;
    this.#plot.replaceChildren(...parts, this.#tip);
    this.#show();
  }

  #width = 0; #cross = null; #y = () => 0;

  #x(at) {
    return LEFT + (this.#width - LEFT - RIGHT) * (1 - (this.#now - at) / this.#span);
  }

  #line(index) {
    const found = [];
    let run = [], last = -Infinity;
    const end = () => {
      if (run.length > 1) found.push(shape("path", { class: `line s${index}`, d: `M${run.join("L")}` }));
      else if (run.length) {
        const [cx, cy] = run[0].split(" ");
        found.push(shape("circle", { class: `dot s${index}`, cx, cy, r: 2 }));
      }
      run = [];
    };
    for (const { at, values } of this.#points) {
      if (values[index] === null || at - last > GAP_MS) end();
      if (values[index] !== null) run.push(`${this.#x(at).toFixed(1)} ${this.#y(values[index]).toFixed(1)}`);
      last = at;
    }
    end();
    return found;
  }

  #point(event) {
    const at = this.#now - this.#span * (1 - (event.clientX - this.#plot.getBoundingClientRect().left - LEFT)
      / (this.#width - LEFT - RIGHT));
    this.#pointed = this.#nearest(at)?.at ?? null;
    this.#show();
  }

  #step(event) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.#leave();
    if (!way || !this.#points.length) return;
    event.preventDefault();
    const found = this.#points.findIndex((point) => point.at === this.#pointed);
    const next = found < 0 ? this.#points.length - 1 : Math.min(this.#points.length - 1, Math.max(0, found + way));
    this.#pointed = this.#points[next].at;
    this.#show();
  }

  #leave() {
    this.#pointed = null;
    this.#show();
  }

  /** What is shown, for those who hear it. */
  #said(point) {
    if (this.none) return `: ${this.none}`;
    const values = (point ?? this.#points.at(-1)).values;
    const said = this.#lines.map((name, index) => `${name} ${this.#words(values[index])}`).join(", ");
    return point ? ` at ${clock(point.at)}: ${said}` : `: ${said}; arrow keys read the line`;
  }

  #nearest(at) {
    return this.#points.reduce((best, point) => (best === null || Math.abs(point.at - at) < Math.abs(best.at - at)
      ? point : best), null);
  }

  #show() {
    const point = this.#points.find((one) => one.at === this.#pointed) ?? null;
    this.#cross.replaceChildren();
    this.#tip.hidden = point === null || Boolean(this.none);
    this.#plot.setAttribute("aria-label", `${this.#name}${this.#said(point)}`);
    if (this.#tip.hidden) return;
    const x = this.#x(point.at);
    this.#cross.append(shape("line", { class: "cross", x1: x, x2: x, y1: TOP, y2: this.#plot.clientHeight - BOTTOM }));
    this.#tip.replaceChildren(words("div", "", clock(point.at)), ...this.#lines.map((name, index) => {
      if (point.values[index] !== null) {
        this.#cross.append(shape("circle", { class: `dot s${index}`, cx: x, cy: this.#y(point.values[index]), r: 4 }));
      }
      const row = words("div", "", "");
      row.append(words("i", `key s${index}`, ""), name, words("b", "", this.#words(point.values[index])));
      return row;
    }));
    const room = this.#tip.offsetWidth;
    this.#tip.style.left = `${Math.max(0, x + 12 + room > this.#width ? x - 12 - room : x + 12)}px`;
  }
}

/** An element with a class and a text; never markup. */
export function words(tag, kind, said) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.textContent = said;
  return made;
}

function shape(tag, facts) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(facts)) made.setAttribute(name, String(value));
  return made;
}

function text(x, y, said, kind) {
  const made = shape("text", { x, y, class: kind });
  made.textContent = said;
  return made;
}
