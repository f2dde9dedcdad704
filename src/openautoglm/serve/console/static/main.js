// The page begins.

import { key, onchange, use } from "/console/access.js";
import { Panels } from "/console/panels.js";
import { Playground } from "/console/playground.js";
import { State } from "/console/state.js";
import { Watch } from "/console/watch.js";

const at = (id) => document.getElementById(id);
const panels = new Panels(at("charts"), at("figures-model"), at("figures-pick"));
const playground = new Playground({ after: () => state.models() });
const watch = new Watch({ found: (models) => panels.add(models), trouble: troubled });
const state = new State({
  onmodels: (names) => playground.models(names),
  onkey: (error) => {
    if (error?.kind === "key") {
      watch.refuse();
      silent(error);
    } else watch.start();
  },
});

function troubled(error) {
  if (error?.kind === "network") state.ready(); // the server is gone: say so at once
  if (error) silent(error);
}

/** No figures can be read: why stands in every chart. */
function silent(error) {
  if (error.kind === "scope") {
    panels.none("This key may not read the figures: it lacks the scope “metrics”.");
  } else if (error.kind === "key") panels.none(key() ? error.message : "The figures need a key.");
  else panels.none("The server does not answer.", { forget: false });
}

at("key").value = key();
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  use(at("key").value);
});
at("key-forget").addEventListener("click", () => {
  at("key").value = "";
  use("");
  at("key").focus();
});
onchange(() => {
  at("key-state").textContent = "";
  panels.none("Reading…");
  state.start();
});
state.start();
