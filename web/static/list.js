// A page whose names may not be known yet.

import { Live } from "./live.js";
import { Names } from "./names.js";

if (document.querySelector("[data-name-of]")) {
  const live = new Live();
  new Names(live).look();
  live.connect();
}
