"use strict";

// When the page calls again: after a lost connection; and if the server has no free slot, or is restarting. Then it waits
// as long as the server asks for, and shows a countdown.

const RETRIES_MS = [300, 1000, 2000, 4000, 8000, 15_000];  // delay before each attempt to reconnect; then the last one
const RETRY_FOR_MS = 10 * 60_000;
const GHOST_MS = 20_000;         // a lost call may occupy its slot at the server for this long
const RETRY_AFTER_S = [1, 120];  // bounds of Retry-After
const RETRY_DEFAULT_S = 5;
const RETRY_JITTER_S = 1;        // so that waiting pages do not all call at the same moment

/** Seconds that a response asks to wait, by its Retry-After: a number of seconds or a date. Undefined without it. */
function retryAfter(response) {
  const given = response.headers.get("Retry-After");
  if (!given) return undefined;
  const seconds = /^\d+$/.test(given.trim()) ? Number(given) : (Date.parse(given) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(RETRY_AFTER_S[1], Math.max(RETRY_AFTER_S[0], seconds)) : undefined;
}

/** Whether a call that failed with this error is repeated. */
const isBusy = ({ status, retryAfter: seconds }) => status === 503 || (status === 429 && seconds !== undefined);

const WAITING = { full: "All lines are busy", restarting: "The server is restarting" };

/** The status while the page waits to call again. A server that restarts does not answer for a moment. */
const waitingFor = (error) => WAITING[error.passing] ?? (isBusy(error) ? "The server is busy" : "The server does not answer");

class Countdown {
  /** Show the seconds left, then call `done`. */
  constructor(error, done) {
    Object.assign(this, { error, done });
    const seconds = (error.retryAfter ?? RETRY_DEFAULT_S) + Math.random() * RETRY_JITTER_S;
    this.until = performance.now() + seconds * 1000;
    this.timer = setInterval(() => this.tick(), 200);
    this.tick();
  }

  tick() {
    const left = Math.ceil((this.until - performance.now()) / 1000);
    if (left > 0) {
      show(waitingFor(this.error), `${this.error.note} Trying again in ${left} s.`.trim());
    } else {
      this.stop();
      this.done();
    }
  }

  stop() {
    clearInterval(this.timer);
  }
}
