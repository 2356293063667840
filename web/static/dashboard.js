// The dashboard, live: new killmails on top, the sync as it moves, names and the like as they are known.

import { Announcer } from "./announce.js";
import { ask } from "./ask.js";
import { Live } from "./live.js";
import { ROW, rowOf } from "./rows.js";
import { SYNC, SYNC_PROGRESS, SyncPanel } from "./sync.js";
import { Unknown } from "./unknown.js";

const NEWEST = 25;
const NEW_KILLMAIL = `subscription ($after: ID) { newKillmail(after: $after) { ${ROW} } }`;
const NEWEST_KILLMAILS = `{ killmails(first: ${NEWEST}) { nodes { ${ROW} } } }`;
const NEWS = `{ killmails(first: ${NEWEST}) { nodes { ${ROW} } } syncs(first: 1) { nodes { ${SYNC} } } }`;

const STATES = {
  live: "Live: new killmails appear by themselves",
  "catching up": "Connected again, catching up …",
  paused: "Not live for the moment, trying again soon",
  reconnecting: "Connection lost, reconnecting …",
  "no room": "Live updates are paused: too many pages are open. This one looks for news every few minutes",
  "signed out": "You are signed out. Reload the page to log in again",
};

const rows = document.getElementById("killmails");
const state = document.getElementById("live");
const announcer = new Announcer(document.getElementById("announce"));
// Those that are shown or were: a replay overlaps with what the page knows.
const known = new Set([...rows.children].map((row) => row.dataset.id));
let after = rows.dataset.after;

function show(killmail) {
  if (known.has(killmail.id)) return;
  known.add(killmail.id);
  const shown = [...rows.children];
  // What lies below the last row of a full list is no news.
  if (shown.length >= NEWEST && BigInt(killmail.id) < BigInt(shown.at(-1).dataset.id)) return;
  const row = rowOf(killmail);
  row.classList.add("fresh");
  // Ids grow with time. BigInt: they have up to 64 bits.
  const older = shown.find((each) => BigInt(each.dataset.id) < BigInt(killmail.id));
  rows.insertBefore(row, older ?? null);
  trim();
  document.getElementById("none").hidden = true;
  unknown.look();
  if (row.isConnected) announcer.arrive();
}

async function showNews({ killmails, syncs }) {
  killmails.nodes.reverse().forEach(show);
  syncs?.nodes.forEach((sync) => panel.show(sync));
  await panel.refresh(["banner", "pilot", "actions", "history", "picture"]);
}

// A row that has the focus stays, and the one above it goes.
function trim() {
  for (const row of [...rows.children].reverse()) {
    if (rows.children.length <= NEWEST) return;
    if (!row.contains(document.activeElement)) row.remove();
  }
}

const live = new Live({
  onState(now) {
    state.textContent = STATES[now];
    state.dataset.state = now;
  },
  // The subscription replays what was missed; this says when the page shows the newest again.
  async catchUp() {
    await showNews(await live.ask(NEWEST_KILLMAILS));
  },
  async poll() {
    const { data } = await ask(NEWS);
    if (data?.killmails && data.syncs) await showNews(data);
  },
});
const unknown = new Unknown(live);
const panel = new SyncPanel((text) => announcer.say(text));
live.subscribe(NEW_KILLMAIL, () => ({ after }), ({ newKillmail }) => {
  after = newKillmail.id;
  show(newKillmail);
});
live.subscribe(SYNC_PROGRESS, () => ({}), (data) => panel.show(data.syncProgress));
unknown.look();
live.connect();
