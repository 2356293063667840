// graphql-transport-ws for one page: a socket that comes back, and subscriptions that go on where they were.
// The protocol: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md

import { at } from "./place.js";

const PROTOCOL = "graphql-transport-ws";
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
// The server has no room for another page: come back after minutes, or thousands of pages ask all the time.
const NO_ROOM = 1013;
const FIRST_NO_ROOM_MS = 60_000;
const LONGEST_NO_ROOM_MS = 480_000;
// A connection may be dead without anybody saying so: ask, and give the answer some time.
const PING_MS = 15_000;
const PATIENCE_MS = 10_000;
// Closed for good: we speak wrongly, or the session is over.
const FINAL_CODES = new Set([4400, 4401, 4403, 4406]);

export class Live {
  // `onState` gets "live", "catching up", "paused", "reconnecting", "no room" or "signed out". `catchUp` is awaited
  // before "live" whenever the connection was away; `poll` is called now and then while there is no room for one.
  constructor({ onState = () => {}, catchUp = async () => {}, poll = async () => {} } = {}) {
    this.onState = onState;
    this.catchUp = catchUp;
    this.poll = poll;
    this.noRoomPause = FIRST_NO_ROOM_MS;
    this.polledAt = Date.now(); // the page is new
    this.operations = new Map();
    this.refused = new Set(); // ids of what lasts and was refused for now
    this.lastId = 0;
    this.pause = FIRST_PAUSE_MS;
    this.acknowledged = false;
    this.wasLive = false;
    addEventListener("online", () => this.comeBack());
    document.addEventListener("visibilitychange", () => document.hidden || this.comeBack());
  }

  comeBack() {
    if (this.noRoom) this.look();
    else this.connectNow();
  }

  // `variables` is a function: asked anew at every connection, so that a subscription can say where it stopped.
  subscribe(query, variables, onData) {
    return this.start({ query, variables, onData, lasting: true });
  }

  // One answer; rejects when the connection goes away first.
  ask(query, variables = {}) {
    return new Promise((resolve, reject) => {
      this.start({ query, variables: () => variables, onData: resolve, onEnd: reject, lasting: false });
    });
  }

  stop(id) {
    if (this.operations.delete(id) && this.acknowledged) this.send({ id, type: "complete" });
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${at("graphql")}`, PROTOCOL);
    this.socket = socket;
    socket.addEventListener("open", () => this.send({ type: "connection_init" }));
    socket.addEventListener("message", (event) => this.socket === socket && this.receive(JSON.parse(event.data)));
    socket.addEventListener("close", (event) => this.socket === socket && this.closed(event.code));
  }

  connectNow() {
    if (this.retry === undefined) return;
    clearTimeout(this.retry);
    this.retry = undefined;
    this.connect();
  }

  start(operation) {
    const id = String(++this.lastId);
    this.operations.set(id, operation);
    if (this.acknowledged) this.sendOperation(id, operation);
    return id;
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  sendOperation(id, { query, variables }) {
    this.send({ id, type: "subscribe", payload: { query, variables: variables() } });
  }

  receive(message) {
    clearTimeout(this.silence);
    const operation = this.operations.get(message.id);
    switch (message.type) {
      case "connection_ack":
        this.opened();
        break;
      case "ping":
        this.send({ type: "pong" });
        break;
      case "next":
        if (message.payload.data) operation?.onData(message.payload.data);
        break;
      case "error":
        console.warn("refused", message.payload);
        if (message.payload.some((error) => error.extensions?.code === "UNAUTHENTICATED")) this.leave();
        else if (operation?.lasting) this.again(message.id, operation);
        else this.end(message.id);
        break;
      case "complete":
        this.end(message.id);
        break;
    }
  }

  // The session has ended while the connection was away.
  leave() {
    const socket = this.socket;
    this.socket = undefined;
    this.forget();
    for (const id of [...this.operations.keys()]) this.end(id);
    socket?.close();
    this.onState("signed out");
  }

  // Refused for now: too many operations, or a database that is away. What lasts is asked for again.
  again(id, operation) {
    const socket = this.socket;
    this.refused.add(id);
    this.onState("paused");
    setTimeout(() => {
      if (this.socket !== socket || !this.refused.delete(id) || !this.operations.has(id)) return;
      this.sendOperation(id, operation);
      this.follows();
    }, LONGEST_PAUSE_MS);
  }

  follows() {
    this.onState(this.refused.size ? "paused" : "live");
  }

  async opened() {
    this.acknowledged = true;
    this.noRoom = false;
    this.noRoomPause = FIRST_NO_ROOM_MS;
    this.pause = FIRST_PAUSE_MS;
    this.operations.forEach((operation, id) => this.sendOperation(id, operation));
    this.heart = setInterval(() => this.beat(), PING_MS);
    const socket = this.socket;
    if (this.wasLive) {
      this.onState("catching up");
      await this.catchUp().catch(() => {});
      if (this.socket !== socket || !this.acknowledged) return;
    }
    this.wasLive = true;
    this.follows();
  }

  beat() {
    this.send({ type: "ping" });
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      this.socket.close();
      this.closed();
    }, PATIENCE_MS);
  }

  // What belonged to a connection that is over.
  forget() {
    this.acknowledged = false;
    this.refused.clear();
    clearInterval(this.heart);
    clearTimeout(this.silence);
  }

  closed(code) {
    this.socket = undefined;
    this.forget();
    for (const [id, { lasting }] of [...this.operations]) if (!lasting) this.end(id);
    if (FINAL_CODES.has(code)) {
      this.onState("signed out");
      return;
    }
    if (code === NO_ROOM) {
      this.waitForRoom();
      return;
    }
    this.noRoom = false;
    this.onState("reconnecting");
    // Spread out, so that a restarted server is not met by everybody at once.
    this.retry = setTimeout(() => this.connectNow(), this.pause * (0.5 + Math.random()));
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS);
  }

  waitForRoom() {
    this.noRoom = true;
    this.wasLive = true; // what the page shows grows old
    this.onState("no room");
    this.look();
    this.retry = setTimeout(() => this.connectNow(), this.noRoomPause * (0.5 + Math.random()));
    this.noRoomPause = Math.min(this.noRoomPause * 2, LONGEST_NO_ROOM_MS);
  }

  // Without a socket: what is new, if somebody looks at the page, and not too often.
  look() {
    if (document.hidden || Date.now() - this.polledAt < FIRST_NO_ROOM_MS / 2) return;
    this.polledAt = Date.now();
    this.poll().catch(() => {});
  }

  end(id) {
    const operation = this.operations.get(id);
    this.operations.delete(id);
    operation?.onEnd?.(new Error("the connection ended"));
  }
}
