// What was said: texts as texts, whatever they hold.

import { words } from "/console/chart.js";

const NEAR = 40; // pixels from the end: the reader follows

export class Transcript {
  #root;
  #said = null; // the text node that grows
  #waiting = "";
  #frame = 0;

  constructor(root) {
    this.#root = root;
    this.clear();
  }

  /** Forget everything. */
  clear(said = "The answer comes here.") {
    this.#settle();
    this.#root.replaceChildren(words("p", "soft empty", said));
  }

  /** Somebody's turn; `who` is "user" or "model". */
  turn(who, said, name) {
    this.#settle();
    this.#root.querySelector(".empty")?.remove();
    const made = words("div", `turn ${who}`, "");
    if (name) made.append(words("h3", "", name));
    const text = words("div", "said", said);
    made.append(text);
    this.#root.append(made);
    this.#end();
    if (who === "model") {
      made.classList.add("running");
      this.#said = text.appendChild(document.createTextNode(""));
      this.#root.setAttribute("aria-busy", "true");
    }
  }

  /** More of the model's turn; drawn once a frame, however fast it comes. */
  more(text) {
    this.#waiting += text;
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  /** The model's turn is over. */
  end() {
    this.#settle();
  }

  /** What went wrong stands where the answer would. */
  trouble(said, detail = "") {
    this.#settle();
    this.#root.querySelector(".empty")?.remove();
    const turns = [...this.#root.querySelectorAll(".turn.model")];
    turns.filter((turn) => !turn.querySelector(".said").textContent).forEach((turn) => turn.remove());
    const made = words("div", "trouble", "");
    made.setAttribute("role", "alert");
    made.append(words("b", "", said), words("span", "", detail));
    this.#root.append(made);
    this.#end();
  }

  #flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const follows = this.#root.scrollHeight - this.#root.scrollTop - this.#root.clientHeight < NEAR;
    this.#said?.appendData(this.#waiting);
    this.#waiting = "";
    if (follows) this.#end();
  }

  #settle() {
    if (this.#waiting) this.#flush();
    this.#said = null;
    for (const turn of this.#root.querySelectorAll(".running")) turn.classList.remove("running");
    this.#root.setAttribute("aria-busy", "false");
  }

  #end() {
    this.#root.scrollTop = this.#root.scrollHeight;
  }
}
