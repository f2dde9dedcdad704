// Server-sent events, from text that comes in pieces of any size.

/** Feed it text as it comes; it returns the data of the events that are whole. */
export class EventReader {
  #rest = "";
  #data = [];
  #began = false;
  #skipFeed = false;

  /** @returns {string[]} the data of each event that has ended, its lines joined by line feeds. */
  feed(text) {
    if (!this.#began && text) {
      this.#began = true;
      if (text.charCodeAt(0) === 0xfeff) text = text.slice(1);
    }
    if (this.#skipFeed && text) {
      this.#skipFeed = false;
      if (text[0] === "\n") text = text.slice(1); // its carriage return came with the piece before
    }
    const found = [];
    let all = this.#rest + text;
    for (let end = all.search(/[\r\n]/); end >= 0; end = all.search(/[\r\n]/)) {
      const next = all[end] === "\r" && all[end + 1] === "\n" ? end + 2 : end + 1;
      if (all[end] === "\r" && end + 1 === all.length) this.#skipFeed = true;
      this.#line(all.slice(0, end), found);
      all = all.slice(next);
    }
    this.#rest = all;
    return found;
  }

  #line(line, found) {
    if (line === "") {
      if (this.#data.length) found.push(this.#data.join("\n"));
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    if (name !== "data") return; // comments, and fields that are of no use here
    const value = colon < 0 ? "" : line.slice(colon + 1);
    this.#data.push(value.startsWith(" ") ? value.slice(1) : value);
  }
}
