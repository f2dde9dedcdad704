// The form: asks, shows the answer as it comes, stops.

import { request, Wrong } from "/console/ask.js";
import { Talk } from "/console/talk.js";
import { Transcript } from "/console/transcript.js";
import { number, seconds } from "/console/words.js";

const at = (id) => document.getElementById(id);
const FIELDS = { // of the request, and of the form
  max_tokens: "max_tokens", temperature: "temperature", seed: "seed", stop: "stop", prompt: "input", messages: "input",
};
const MODES = {
  text: { name: "Text to be answered", placeholder: "Write a text…" },
  chat: { name: "Your message", placeholder: "Say something…" },
  record: { name: "Record, a JSON object", placeholder: '{"name": "The Punter", "food": "Italian"}' },
};
const ENDS = { stop: "by itself", length: "at the limit", tool_calls: "with a call" };

export class Playground {
  #transcript = new Transcript(at("transcript"));
  #talk = null;
  #turns = []; // of the chat so far
  #kept = { text: "", chat: "", record: "" }; // what stood in the field of each mode
  #mode = "text";
  #after;

  /** after: called when a request has ended, well or not. */
  constructor({ after }) {
    this.#after = after;
    at("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    at("ask").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
        event.preventDefault();
        this.#send();
      } else if (event.key === "Escape" && this.#talk) this.#talk.stop();
    });
    at("ask").addEventListener("input", (event) => event.target.removeAttribute("aria-invalid"));
    at("halt").addEventListener("click", () => this.#talk?.stop());
    at("anew").addEventListener("click", () => this.#anew());
    for (const radio of document.getElementsByName("mode")) {
      radio.addEventListener("change", () => this.#switch(radio.value));
    }
    this.#switch(document.querySelector("[name=mode]:checked").value); // a browser may remember another one
  }

  /** These are the models that there are. */
  models(names) {
    const pick = at("model");
    if (names.join("\n") === [...pick.options].map((option) => option.value).join("\n")) return;
    const chosen = pick.value;
    pick.replaceChildren(...(names.length ? names : [""]).map((name) => new Option(name || "none", name)));
    if (names.includes(chosen)) pick.value = chosen;
  }

  #switch(mode) {
    this.#talk?.stop();
    this.#kept[this.#mode] = at("input").value;
    this.#mode = mode;
    at("input").value = this.#kept[mode];
    at("input").placeholder = MODES[mode].placeholder;
    at("input").classList.toggle("code", mode === "record");
    at("input").removeAttribute("aria-invalid");
    at("input-name").textContent = MODES[mode].name;
    at("system-field").hidden = mode !== "chat";
    this.#anew();
  }

  #anew() {
    this.#talk?.stop();
    this.#talk = null;
    this.#turns = [];
    this.#transcript.clear(this.#mode === "chat" ? "The conversation comes here." : undefined);
    this.#buttons();
    this.#counts(null);
  }

  async #send() {
    if (this.#talk) return;
    for (const field of at("ask").querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    const mode = this.#mode;
    const input = at("input").value;
    let asked;
    try {
      asked = request({ mode, input, turns: this.#turns, model: at("model").value, ...Object.fromEntries(
        ["system", "max_tokens", "temperature", "seed", "stop"].map((id) => [id, at(id).value])) });
    } catch (error) {
      if (!(error instanceof Wrong)) throw error;
      this.#refused(error);
      return;
    }
    if (mode !== "chat") this.#transcript.clear("");
    else {
      this.#transcript.turn("user", input, "You");
      at("input").value = "";
    }
    this.#transcript.turn("model", "", mode === "chat" ? "Model" : "");
    const talk = this.#talk = new Talk();
    this.#buttons();
    this.#counts(talk); // at once: the last answer's figures are not this one's
    const ticking = setInterval(() => this.#talk === talk && this.#counts(talk), 100);
    let trouble = null;
    try {
      await talk.run(asked, (text) => this.#talk === talk && this.#transcript.more(text));
    } catch (error) {
      trouble = error.name === "AbortError" ? null : error;
    } finally {
      clearInterval(ticking);
    }
    if (this.#talk === talk) this.#ended(talk, mode, input, trouble);
    this.#after();
  }

  #ended(talk, mode, input, trouble) {
    this.#talk = null;
    this.#transcript.end();
    this.#counts(talk);
    if (trouble) this.#transcript.trouble(trouble.message, trouble.detail);
    else if (!talk.text && talk.stopped) this.#transcript.trouble("Stopped before the first token.");
    else if (!talk.text) this.#transcript.trouble("The answer is empty.");
    if (mode === "chat") {
      if (talk.text) this.#turns.push({ role: "user", content: input }, { role: "assistant", content: talk.text });
      else if (!at("input").value) at("input").value = input; // to be sent again
    }
    at(FIELDS[trouble?.field])?.setAttribute("aria-invalid", "true");
    const end = talk.stopped ? "stopped" : "complete";
    at("told").textContent = trouble ? "" : `Answer ${end}: ${talk.tokens} tokens.`;
    this.#buttons();
  }

  #refused(wrong) {
    const field = at(wrong.field);
    field.setAttribute("aria-invalid", "true");
    field.focus();
    if (this.#mode !== "chat") this.#transcript.clear("");
    this.#transcript.trouble(wrong.message);
  }

  #buttons() {
    const running = this.#talk !== null && !this.#talk.stopped;
    const held = [at("send"), at("halt")].includes(document.activeElement);
    at("send").hidden = running;
    at("halt").hidden = !running;
    at("anew").hidden = this.#mode !== "chat";
    if (held) at(running ? "halt" : "send").focus();
  }

  #counts(talk) {
    const about = talk && !talk.usage && talk.pieces ? "≈ " : "";
    const show = (id, said) => {
      if (at(id).textContent !== said) at(id).textContent = said;
    };
    show("count-tokens", talk ? `${about}${number(talk.tokens)}` : "–");
    show("count-first", seconds(talk?.firstS));
    show("count-rate", number(talk?.rate));
    show("count-prompt", number(talk?.usage?.prompt_tokens));
    show("count-time", seconds(talk ? talk.endS ?? talk.now : null));
    show("count-end", !talk || talk.endS === null ? "–" : talk.stopped ? "stopped" : ENDS[talk.finish] ?? "early");
    const dropped = talk?.usage?.dropped;
    at("count-prompt").title = dropped ? `${dropped.messages} messages and ${dropped.tokens} tokens were left out` : "";
  }
}
