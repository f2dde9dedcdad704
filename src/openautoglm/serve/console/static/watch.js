// Reads the figures every other second, while somebody looks.

import { onchange } from "/console/access.js";
import { call } from "/console/calls.js";
import { standing } from "/console/figures.js";
import { samples } from "/console/prometheus.js";

const EVERY_MS = 2_000, LATEST_MS = 10_000, SLOWEST_MS = 16_000, DENIED_MS = 60_000;

/** found: is told each standing; trouble: is told what went wrong, and null when that is over. */
export class Watch {
  #found; #trouble;
  #timer = 0;
  #pause = EVERY_MS;
  #going = null; // what is under way
  #refused = false; // a wrong key is not sent again and again

  constructor({ found, trouble }) {
    this.#found = found;
    this.#trouble = trouble;
    document.addEventListener("visibilitychange", () => this.#again());
    onchange(() => {
      this.#going?.abort();
      this.#going = null;
      this.#pause = EVERY_MS;
      this.refuse(); // until it is known whether the new key is taken
    });
  }

  /** Begin to read; of no effect while that goes on. */
  start() {
    this.#refused = false;
    if (!this.#timer && !this.#going) this.#again();
  }

  /** Read no more until `start`. */
  refuse() {
    this.#refused = true;
    this.#again();
  }

  #again(after = 0) {
    clearTimeout(this.#timer);
    this.#timer = document.hidden || this.#refused ? 0 : setTimeout(() => this.#read(), after);
  }

  async #read() {
    this.#timer = 0;
    if (this.#going) return;
    const going = this.#going = new AbortController();
    const late = setTimeout(() => going.abort(), LATEST_MS);
    const began = performance.now();
    try {
      const page = await (await call("/metrics", { signal: going.signal })).text();
      if (going !== this.#going) return;
      this.#pause = EVERY_MS;
      this.#trouble(null);
      this.#found(standing(samples(page)));
    } catch (error) {
      if (going !== this.#going) return; // the key has changed meanwhile
      const slower = Math.max((error.retryS ?? 0) * 1000, Math.min(2 * this.#pause, SLOWEST_MS));
      this.#pause = error.kind === "scope" ? DENIED_MS : slower;
      this.#refused = error.kind === "key";
      this.#trouble(error);
    } finally {
      clearTimeout(late);
      if (going === this.#going) {
        this.#going = null;
        this.#again(Math.max(0, this.#pause - (performance.now() - began)));
      }
    }
  }
}
