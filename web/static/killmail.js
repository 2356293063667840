// One killmail: names, security and value, when they come to be known.

import { Live } from "./live.js";
import { swap } from "./swap.js";
import { Unknown } from "./unknown.js";

const VALUE = "query ($id: ID!) { killmail(id: $id) { value { total } } }";
const PAUSE_MS = 3000;
const MOST_TRIES = 100;

const value = document.getElementById("value");

async function awaitValue(live) {
  for (let tries = 0; tries < MOST_TRIES; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    const data = await live.ask(VALUE, { id: value.dataset.killmail }).catch(() => undefined);
    if (data?.killmail?.value) return swap("value");
  }
}

const missing = "missing" in value.dataset;
if (missing || Unknown.any()) {
  const live = new Live();
  new Unknown(live).look();
  live.connect();
  if (missing) awaitValue(live);
}
