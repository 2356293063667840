// Names that were not known when the page was made, filled in when they are. A name is text, whatever it says.

const NAMES = "subscription ($ids: [ID!]!) { names(ids: $ids) { id name } }";
const MOST = 1000;
// Rows arrive many a second: they are gathered before the names are asked for.
const PAUSE_MS = 500;

export class Names {
  constructor(live) {
    this.live = live;
    this.asked = "";
  }

  // The page may hold other unknown names now.
  look() {
    this.timer ??= setTimeout(() => this.ask(), PAUSE_MS);
  }

  ask() {
    this.timer = undefined;
    const unknown = new Set([...document.querySelectorAll("[data-name-of]")].map((each) => each.dataset.nameOf));
    const ids = [...unknown].sort().slice(0, MOST);
    if (ids.join() === this.asked) return;
    if (this.running) this.live.stop(this.running);
    this.asked = ids.join();
    this.running = ids.length ? this.live.subscribe(NAMES, () => ({ ids }), ({ names }) => this.fill(names)) : undefined;
  }

  fill(names) {
    for (const { id, name } of names) {
      for (const place of document.querySelectorAll(`[data-name-of="${CSS.escape(id)}"]`)) place.replaceWith(named(name));
    }
  }
}

export function named(name) {
  const element = document.createElement("bdi");
  element.textContent = name;
  return element;
}

// An entity, its id where the name is not known, or that there is none.
export function entity(thing, what) {
  const name = thing?.name ?? (thing?.id === document.body.dataset.pilotId ? document.body.dataset.pilotName : null);
  if (thing && name) return named(name);
  const element = document.createElement("span");
  element.className = thing ? "unnamed" : "dim";
  element.textContent = thing ? `${what} ${thing.id}` : `no ${what}`;
  if (thing) element.dataset.nameOf = thing.id;
  return element;
}

// Whoever there is: the pilot, else the corporation, else the faction, else the ship.
export function party(who) {
  if (!who) return nobody();
  if (who.character) return entity(who.character, "pilot");
  if (who.corporation) return entity(who.corporation, "corporation");
  if (who.faction) return entity(who.faction, "faction");
  return entity(who.shipType, "ship");
}

function nobody() {
  const element = document.createElement("span");
  element.className = "dim";
  element.textContent = "nobody";
  return element;
}
