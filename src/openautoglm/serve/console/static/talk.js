// One request under way: its text as it comes, and its times.

import { call, inWords, lost, Trouble } from "/console/calls.js";
import { EventReader } from "/console/sse.js";

const STATUS = { // of errors that come under way, by their code
  timed_out: 408, overloaded: 429, rate_limit_exceeded: 429, engine_lost: 503, unavailable: 503, store_unavailable: 503,
};
const SILENT = "The server ended it without a word.";
const GONE = "Is the server still running, and is there a network?";

/** Times in seconds from when it was sent; `usage`, `finish` and `firstS` are null as long as they are not known. */
export class Talk {
  text = "";
  pieces = 0;
  usage = null;
  finish = null;
  firstS = null;
  lastS = null;
  endS = null;
  #began = performance.now();
  #stop = new AbortController();
  #done = false;

  /** Give up; the server frees what the request holds. */
  stop() {
    this.#stop.abort();
  }

  get stopped() {
    return this.#stop.signal.aborted;
  }

  get now() {
    return (performance.now() - this.#began) / 1000;
  }

  /** Tokens of the answer: as the server counts them; until it has, the pieces that came, which may hold several. */
  get tokens() {
    return this.usage?.completion_tokens ?? this.pieces;
  }

  /** Tokens a second after the first; null where there are no two. */
  get rate() {
    return this.tokens > 1 && this.lastS > this.firstS ? (this.tokens - 1) / (this.lastS - this.firstS) : null;
  }

  /** Send it and read its answer; `piece` is called with each text that comes. Throws Trouble, or AbortError. */
  async run({ path, json }, piece) {
    this.#began = performance.now();
    try {
      const reply = await call(path, { json, signal: this.#stop.signal });
      const body = reply.body.getReader();
      const events = new EventReader(), decoder = new TextDecoder();
      while (!this.#done) {
        const { done, value } = await body.read();
        const text = done ? decoder.decode() : decoder.decode(value, { stream: true });
        for (const data of events.feed(text)) this.#event(data, piece);
        if (done && !this.#done) throw new Trouble("broken", "The answer broke off.", { detail: SILENT });
      }
      body.cancel().catch(() => undefined); // whatever may follow the end is of no interest
    } catch (error) {
      throw error instanceof Trouble ? error : lost(error, "The connection broke off.", GONE);
    } finally {
      this.endS = this.now;
    }
  }

  #event(data, piece) {
    if (data === "[DONE]") {
      this.#done = true;
      return;
    }
    let told;
    try {
      told = JSON.parse(data);
    } catch {
      throw new Trouble("broken", "The server sent what this page does not understand.");
    }
    if (told.error) throw inWords(STATUS[told.error.code] ?? 500, told.error);
    const choice = told.choices?.[0];
    const text = choice?.text ?? choice?.delta?.content ?? "";
    if (text && typeof text === "string") {
      this.lastS = this.now;
      this.firstS ??= this.lastS;
      this.pieces += 1;
      this.text += text;
      piece(text);
    }
    this.finish = choice?.finish_reason ?? this.finish;
    this.usage = told.usage ?? this.usage;
  }
}
