// One killmail: names, security and value, when they come to be known.

import { Live } from "./live.js";
import { swap } from "./swap.js";
import { Unknown } from "./unknown.js";

const VALUE = "query ($id: ID!) { killmail(id: $id) { value { total } } }";
// Prices come within seconds where all is well, and after several minutes where ESI has failed once.
const PAUSE_MS = 3000;
const LONGEST_PAUSE_MS = 30_000;

const value = document.getElementById("value");

async function awaitValue(live) {
  for (let pause = PAUSE_MS; ; pause = Math.min(pause * 1.1, LONGEST_PAUSE_MS)) {
    await new Promise((resolve) => setTimeout(resolve, pause));
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
