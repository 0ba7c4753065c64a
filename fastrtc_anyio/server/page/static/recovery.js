"use strict";

// ICE restarts: after a change of network the call continues on another path, in the same session of the server.

const SILENCE_MS = 1_900;       // browsers report an interruption after 5 s or more: the server has given up by then
const RESTART_AFTER_MS = 500;
const RESTART_EVERY_MS = 3_000; // time for one restart to connect
const RESTARTS = 4;

class Recovery {
  constructor(call) {
    this.call = call;
    this.attempts = 0;
    this.running = this.silent = false;
    this.timer = 0;
    this.received = this.receivedAt = 0;
  }

  /** Look for silence of the server in the connection's statistics, once a second. */
  watch(report) {
    let received = 0;
    for (const { type, bytesReceived, responsesReceived } of report.values()) {
      if (type === "candidate-pair") received += (bytesReceived ?? 0) + (responsesReceived ?? 0);
    }
    const now = performance.now();
    if (received !== this.received) {
      [this.received, this.receivedAt] = [received, now];
      if (this.silent) this.stop();
    } else if (now - this.receivedAt > SILENCE_MS && !this.silent) {
      this.interrupted();
    }
  }

  interrupted() {
    this.silent = true;
    show("Connection interrupted", "Looking for another path to the server.");
    if (!this.timer && !this.running) this.begin(0);
  }

  /** Restart ICE after a delay, and again until the connection is back. Gives up after some attempts. */
  begin(delay = RESTART_AFTER_MS) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.restart(), delay);
    this.call.timers.push(this.timer);
  }

  /** The connection is back. */
  stop() {
    clearTimeout(this.timer);
    this.timer = this.attempts = 0;
    this.silent = false;
    this.call.showTurn();
  }

  async restart() {
    const { call } = this;
    this.timer = 0;
    if (call.ended || this.running) return;
    if (this.attempts === RESTARTS) {
      call.cutOff();
      return;
    }
    this.attempts += 1;
    this.running = true;
    try {
      await call.describe({ iceRestart: true });
    } catch (error) {
      // The server may have ended the session, or not know ICE restarts. Without a network, try again.
      if (!call.ended && !error.passing) call.cutOff();
    }
    this.running = false;
    if (call.ended) return;
    if (this.silent) this.begin(RESTART_EVERY_MS);
    else this.attempts = 0;
  }
}
