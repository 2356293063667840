// What a screen reader is told: gathered for a moment and said together, so that nothing is talked over.

const PAUSE_MS = 2000;

export class Announcer {
  constructor(place) {
    this.place = place;
    this.arrived = 0;
    this.texts = [];
  }

  arrive() {
    this.arrived += 1;
    this.later();
  }

  say(text) {
    this.texts.push(text);
    this.later();
  }

  // Emptied first: the same words again would be no change, and not be read.
  later() {
    this.place.textContent = "";
    this.timer ??= setTimeout(() => this.speak(), PAUSE_MS);
  }

  speak() {
    const arrived = this.arrived ? [`${this.arrived} new killmail${this.arrived === 1 ? "" : "s"}`] : [];
    this.place.textContent = [...arrived, ...this.texts].join(". ");
    this.timer = undefined;
    this.arrived = 0;
    this.texts = [];
  }
}
