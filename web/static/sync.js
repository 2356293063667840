// The sync as it goes on: steps, bar, counts, what it waits for; and the buttons, without leaving the page.

import { ask } from "./ask.js";
import { swap } from "./swap.js";

export const SYNC =
  "id phase summary progress found saved skipped failed pending waitingFor waitingUntil error finishedAt";
export const SYNC_PROGRESS = `subscription { syncProgress { ${SYNC} } }`;

const SYNC_NOW = "mutation ($full: Boolean!) { syncMyKillmails(full: $full) { message sync { id } } }";
// Long enough to be read and heard.
const SHOWN_MS = 1000;
// What a step of a sync changes on the page besides this panel, and what its end does.
const CHANGED_BY_A_STEP = ["pilot", "actions", "history"];
const CHANGED_BY_THE_END = ["banner", "pilot", "actions", "history", "picture"];

// Between two looks where our clock is ahead of the server's.
const AHEAD_MS = 15_000;

const byId = (id) => document.getElementById(id);

export class SyncPanel {
  constructor(announce) {
    this.announce = announce;
    this.panel = byId("sync");
    this.panel.addEventListener("submit", (event) => this.submit(event));
    this.awaitCoolDown();
  }

  show(sync) {
    const { id, phase } = this.panel.dataset;
    if (phase !== sync.phase || id !== sync.id) {
      this.panel.dataset.phase = sync.phase;
      this.panel.dataset.id = sync.id;
      this.showStep(sync.phase);
      if (sync.finishedAt) this.end(sync);
      else this.refresh(CHANGED_BY_A_STEP);
    }
    byId("sync-summary").textContent = sync.summary;
    this.showBar(sync);
    for (const place of this.panel.querySelectorAll("[data-count]")) {
      place.textContent = sync[place.dataset.count].toLocaleString("en");
    }
    const until = sync.waitingUntil?.slice(11, 16);
    const waiting = sync.waitingFor ? `${sync.waitingFor}, goes on at ${until} EVE time` : "";
    if (waiting && byId("sync-waiting").textContent !== waiting) this.announce(waiting);
    say(byId("sync-waiting"), waiting);
    say(byId("sync-error"), sync.error ?? "");
  }

  // The steps on the way there are on the page for who looks; told is what came of it.
  end(sync) {
    this.endedId = sync.id;
    byId("message").textContent = "";
    this.announce(sync.error ? `${sync.summary}: ${sync.error}` : sync.summary);
    this.refresh(CHANGED_BY_THE_END);
  }

  showStep(phase) {
    for (const step of this.panel.querySelectorAll("[data-step]")) {
      if (step.dataset.step === phase) step.setAttribute("aria-current", "step");
      else step.removeAttribute("aria-current");
    }
  }

  showBar(sync) {
    const bar = byId("sync-bar");
    if (sync.progress !== null) bar.value = sync.progress;
    else if (sync.finishedAt) bar.value = 0;
    else bar.removeAttribute("value");
  }

  async refresh(parts) {
    await swap(...parts);
    this.awaitCoolDown();
  }

  // The buttons come back by themselves.
  awaitCoolDown() {
    clearTimeout(this.coolDown);
    const ends = byId("actions").querySelector("time");
    if (!ends) return;
    const left = Date.parse(ends.dateTime) - Date.now();
    // Where it is over by this clock and not by the server's, this one is ahead: look now and then.
    this.coolDown = setTimeout(() => this.refresh(["actions"]), left > 0 ? left + 1000 : AHEAD_MS);
  }

  async submit(event) {
    event.preventDefault();
    const full = event.submitter?.id === "sync-full";
    const { data, errors } = await ask(SYNC_NOW, { full });
    const message = data?.syncMyKillmails?.message ?? errors?.[0]?.message;
    byId("message").textContent = message ?? "That did not get through. Please try again.";
    // The sync may have ended before this answer came: then nothing else would take the text away.
    if (this.endedId && data?.syncMyKillmails?.sync?.id === this.endedId) {
      setTimeout(() => (byId("message").textContent = ""), SHOWN_MS);
    }
  }
}

function say(place, text) {
  place.textContent = text;
  place.hidden = !text;
}
