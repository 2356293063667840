// The dashboard, live: new killmails on top, the sync as it moves, names and the like as they are known.

import { Live } from "./live.js";
import { ROW, rowOf } from "./rows.js";
import { SYNC_PROGRESS, SyncPanel } from "./sync.js";
import { Unknown } from "./unknown.js";

const NEWEST = 25;
const NEW_KILLMAIL = `subscription ($after: ID) { newKillmail(after: $after) { ${ROW} } }`;
const NEWEST_KILLMAILS = `{ killmails(first: ${NEWEST}) { nodes { ${ROW} } } }`;
// Arrivals are announced together.
const ANNOUNCE_MS = 2000;

const STATES = {
  live: "Live: new killmails appear by themselves",
  "catching up": "Connected again, catching up …",
  paused: "Not live for the moment, trying again soon",
  reconnecting: "Connection lost, reconnecting …",
  "signed out": "You are signed out. Reload the page to log in again",
};

const rows = document.getElementById("killmails");
const state = document.getElementById("live");
const announcer = document.getElementById("announce");
let after = rows.dataset.after;
let arrived = 0;

const announce = (text) => { announcer.textContent = text; };

function show(killmail) {
  const shown = [...rows.children];
  if (shown.some((row) => row.dataset.id === killmail.id)) return false;
  // A replay overlaps with what the page knows: what lies below its last row is no news.
  if (shown.length >= NEWEST && BigInt(killmail.id) < BigInt(shown.at(-1).dataset.id)) return false;
  const row = rowOf(killmail);
  row.classList.add("fresh");
  // Ids grow with time. BigInt: they have up to 64 bits.
  const older = shown.find((each) => BigInt(each.dataset.id) < BigInt(killmail.id));
  rows.insertBefore(row, older ?? null);
  while (rows.children.length > NEWEST) rows.lastElementChild.remove();
  document.getElementById("none").hidden = true;
  unknown.look();
  return true;
}

function arrive(killmail) {
  after = killmail.id;
  if (!show(killmail)) return;
  arrived += 1;
  if (arrived > 1) return;
  setTimeout(() => {
    announce(`${arrived} new killmail${arrived === 1 ? "" : "s"}`);
    arrived = 0;
  }, ANNOUNCE_MS);
}

const live = new Live({
  onState(now) {
    state.textContent = STATES[now];
    state.dataset.state = now;
  },
  // The subscription replays what was missed; this says when the page shows the newest again.
  async catchUp() {
    const { killmails } = await live.ask(NEWEST_KILLMAILS);
    killmails.nodes.reverse().forEach(show);
    await panel.refresh(["banner", "pilot", "actions", "history", "picture"]);
  },
});
const unknown = new Unknown(live);
const panel = new SyncPanel(announce);
live.subscribe(NEW_KILLMAIL, () => ({ after }), (data) => arrive(data.newKillmail));
live.subscribe(SYNC_PROGRESS, () => ({}), (data) => panel.show(data.syncProgress));
unknown.look();
live.connect();
