"use strict";

// The time from the user's last word to the first sound of the reply, by the levels of the microphone and of the
// received audio. It contains the pause that the server waits for, and the network, but not the delay of a loudspeaker.

const LEVELS_KEPT = 300;      // 15 s, at 20 a second
const LONGEST_STEP_MS = 250;  // with longer steps, as in a background tab, nothing is measured

class ResponseTime {
  /** `report` is called with the milliseconds of each reply. */
  constructor(report) {
    Object.assign(this, { report, levels: [], at: 0, lastWord: null, wasSilent: false });
  }

  /** Note the levels of the microphone and of the received audio. */
  note(now, microphone, received) {
    if (now - this.at > LONGEST_STEP_MS) this.reset();
    this.at = now;
    this.levels.push([now, microphone]);
    if (this.levels.length > LEVELS_KEPT) this.levels.shift();
    if (this.lastWord === null) return;
    if (received <= AUDIBLE) {
      this.wasSilent = true;
    } else if (this.wasSilent) {
      this.report(now - this.lastWord);
      this.lastWord = null;
    }
  }

  /** Note a turn of FastRTC's `log` messages. */
  turn(turn) {
    if (turn === "pause_detected") [this.lastWord, this.wasSilent] = [lastLoud(this.levels), false];
    else if (turn === "started_talking") this.lastWord = null;
  }

  reset() {
    [this.levels, this.lastWord] = [[], null];
  }
}

/** The last time at which a level was closer to speech than to the background, or null without speech. */
function lastLoud(levels) {
  const sorted = levels.map(([, level]) => level).sort((a, b) => a - b);
  const [quiet, loud] = [sorted[Math.floor(sorted.length / 10)], sorted.at(-1)];
  const threshold = Math.max(AUDIBLE, quiet + 0.4 * (loud - quiet));
  return levels.findLast(([, level]) => level > threshold)?.[0] ?? null;
}
