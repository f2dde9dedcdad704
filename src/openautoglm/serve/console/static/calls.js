// Calls to this page's own server, and what is said where they fail.

import { key, possible } from "/console/access.js";
import { wait } from "/console/words.js";

/**
 * What went wrong, in words. kind: key, scope, busy, unavailable, network, request or broken;
 * field: of the request, where the server named one; retryS: when to come again, in seconds.
 */
export class Trouble extends Error {
  constructor(kind, words, { detail = "", field = null, retryS = null } = {}) {
    super(words);
    Object.assign(this, { kind, detail, field, retryS });
  }
}

/** Ask the server. Returns the reply, whose body is still to be read; throws Trouble, or AbortError after a stop. */
export async function call(path, { json = null, signal = undefined } = {}) {
  const given = key();
  if (!possible(given)) throw unknownKey();
  const headers = given ? { authorization: `Bearer ${given}` } : {};
  if (json !== null) headers["content-type"] = "application/json";
  let reply;
  try {
    reply = await fetch(path, {
      method: json === null ? "GET" : "POST", headers, body: json ?? undefined, signal, cache: "no-store",
      credentials: "omit", redirect: "error", referrerPolicy: "no-referrer",
    });
  } catch (error) {
    throw lost(error, "The server does not answer.", "Is it still running, and is there a network?");
  }
  if (!reply.ok) throw await told(reply);
  return reply;
}

/** A failure of the network, as Trouble; a stop stays what it is. */
export function lost(error, words, detail) {
  if (error.name === "AbortError") return error;
  return new Trouble("network", words, { detail });
}

async function told(reply) {
  let facts = {};
  try {
    facts = (await reply.json()).error ?? {};
  } catch {
    facts = {}; // what stands between us and the server may answer in another form
  }
  const retry = Number.parseFloat(reply.headers.get("retry-after") ?? "");
  return inWords(reply.status, facts, Number.isFinite(retry) ? retry : null);
}

/** An error of the server in words. `facts`: OpenAI's error object; it may lack anything. */
export function inWords(status, facts, retryS = null) {
  const detail = typeof facts.message === "string" ? sentence(facts.message) : "";
  const field = typeof facts.param === "string" ? facts.param : null;
  const again = retryS === null ? "Try again in a moment." : `Try again in ${wait(retryS)}.`;
  switch (status) {
    case 401:
      return key() ? unknownKey() : new Trouble("key", "This server needs a key.", {
        detail: "Type one at the top of the page; `autoglm keys create` makes it." });
    case 403:
      return facts.code === "insufficient_scope" && /scope/.test(detail)
        ? new Trouble("scope", "This key may not do that.", { detail })
        : new Trouble("scope", "The server does not let this page in.", { detail });
    case 404:
      return new Trouble("request", facts.code === "model_not_found" ? "There is no such model."
        : "There is nothing here.", { detail, field });
    case 408:
      return new Trouble("busy", "The time for this request was over.", { detail });
    case 413:
      return new Trouble("request", "That is too much for this server.", { detail, field });
    case 429:
      return new Trouble("busy", facts.code === "rate_limit_exceeded"
        ? `This key has used up its share for now. ${again}` : `The server is busy. ${again}`, { detail, retryS });
    case 502: case 503: case 504:
      return new Trouble("unavailable", `The server cannot answer now. ${again}`, { detail, retryS });
    default:
      return status < 500 ? new Trouble("request", "The server refuses this request.", { detail, field })
        : new Trouble("broken", "The server failed at this request.", { detail, retryS });
  }
}

function unknownKey() {
  return new Trouble("key", "This key is not known.", { detail: "It is wrong, expired or revoked. Type another one." });
}

function sentence(text) {
  const short = text.length > 600 ? `${text.slice(0, 600)}…` : text;
  return short.charAt(0).toUpperCase() + short.slice(1);
}
