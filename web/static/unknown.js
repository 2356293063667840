// What was not known when the page was made, filled in when it is: names, and how safe solar systems are.

import { named } from "./names.js";
import { security } from "./security.js";

const NAMES = "subscription ($ids: [ID!]!) { names(ids: $ids) { id name } }";
const STATUSES = "subscription ($ids: [ID!]!) { securityStatuses(ids: $ids) { id securityStatus } }";
const MOST = 1000;
// Rows arrive many a second: they are gathered before anything is asked for.
const PAUSE_MS = 500;

export class Unknown {
  constructor(live) {
    this.kinds = [
      new Kind(live, "data-name-of", NAMES, ({ names }) => names, ({ name }) => named(name)),
      new Kind(live, "data-security-of", STATUSES, (data) => data.securityStatuses,
        ({ id, securityStatus }) => security(securityStatus, id)),
    ];
  }

  // Whether the page lacks anything.
  static any() {
    return document.querySelector("[data-name-of], [data-security-of]") !== null;
  }

  // The page may lack other things now.
  look() {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      for (const kind of this.kinds) kind.ask();
    }, PAUSE_MS);
  }
}

// Places of the page whose `attribute` is the id of what they wait for. `found` takes it out of an answer to `query`,
// `made` makes what is shown of one.
class Kind {
  constructor(live, attribute, query, found, made) {
    Object.assign(this, { live, attribute, query, found, made, asked: "" });
  }

  ask() {
    const unknown = new Set([...document.querySelectorAll(`[${this.attribute}]`)].map((each) => this.idOf(each)));
    const ids = [...unknown].sort().slice(0, MOST);
    if (ids.join() === this.asked) return;
    if (this.running) this.live.stop(this.running);
    this.asked = ids.join();
    this.running = ids.length
      ? this.live.subscribe(this.query, () => ({ ids }), (data) => this.fill(this.found(data)))
      : undefined;
  }

  idOf(place) {
    return place.getAttribute(this.attribute);
  }

  // A row that was made before may come after: what was asked for once is no reason not to ask again.
  fill(known) {
    this.asked = "";
    for (const one of known) {
      for (const place of document.querySelectorAll(`[${this.attribute}="${CSS.escape(one.id)}"]`)) {
        place.replaceWith(this.made(one));
      }
    }
  }
}
