// A page that may not know everything yet.

import { Live } from "./live.js";
import { Unknown } from "./unknown.js";

if (Unknown.any()) {
  const live = new Live();
  new Unknown(live).look();
  live.connect();
}
