// How names and the lack of them are shown. A name is text, whatever it says.

// As much of a name as the server shows (web/filters.py): bytes of HTML.
const NAME_BYTES = 100;
const ESCAPED = { "&": 5, "<": 4, ">": 4, "'": 5, '"': 5 };

export function named(name) {
  const element = document.createElement("bdi");
  element.textContent = short(name);
  return element;
}

function short(name) {
  let [end, weight] = [0, 0];
  for (const letter of name) {
    weight += ESCAPED[letter] ?? new TextEncoder().encode(letter).length;
    if (weight > NAME_BYTES) return `${name.slice(0, end)}…`;
    end += letter.length;
  }
  return name;
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
