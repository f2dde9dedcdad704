// The key that the user typed. It lies in sessionStorage, so that it ends with the tab, and nowhere else.

const NAME = "autoglm-key";
const heard = new EventTarget();

export function key() {
  return sessionStorage.getItem(NAME) ?? "";
}

/** Use another key, or none; an empty one is forgotten. */
export function use(text) {
  const found = text.trim();
  if (found) sessionStorage.setItem(NAME, found);
  else sessionStorage.removeItem(NAME);
  heard.dispatchEvent(new Event("change"));
}

export function onchange(listener) {
  heard.addEventListener("change", listener);
}

/** Whether a text can be a key at all: headers take no other characters. */
export function possible(text) {
  return /^[\x21-\x7e]*$/.test(text);
}
