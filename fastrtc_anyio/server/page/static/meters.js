"use strict";

// Levels of audio, and the meters that show them.

const BAR_MS = 60;      // duration of one bar of a meter
const FLOOR_DB = -50;   // level shown as silence
const AUDIBLE = 0.02;   // levels above this are sound

/** Measures the level of a MediaStream. */
class Analyser {
  constructor(context, stream) {
    this.source = context.createMediaStreamSource(stream);
    this.node = context.createAnalyser();
    this.node.fftSize = 1024;
    this.source.connect(this.node);
    this.samples = new Float32Array(this.node.fftSize);
  }

  /** The current level, from 0 (FLOOR_DB or below) to 1 (full scale). */
  level() {
    this.node.getFloatTimeDomainData(this.samples);
    let sum = 0;
    for (const sample of this.samples) sum += sample * sample;
    const db = 10 * Math.log10(sum / this.samples.length + 1e-12);
    return Math.min(1, Math.max(0, 1 - db / FLOOR_DB));
  }

  close() {
    this.source.disconnect();
  }
}

const stillMotion = matchMedia("(prefers-reduced-motion: reduce)");

/** A strip of bars, the newest at the right; with reduced motion, one bar that grows. */
class Meter {
  constructor(canvas, direction, colour) {
    Object.assign(this, { canvas, direction, colour, levels: [], newestAt: 0 });
  }

  push(time) {
    const level = call?.level(this.direction) ?? 0;
    if (time - this.newestAt >= BAR_MS) {
      this.levels.push(level);
      this.newestAt = time;
      if (this.levels.length > 400) this.levels.shift();
    } else {
      const last = this.levels.length - 1;
      this.levels[last] = Math.max(this.levels[last], level);
    }
    return level;
  }

  paint() {
    const { canvas } = this;
    if (!canvas.clientWidth) return;  // hidden: the stream has no audio in this direction
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const style = getComputedStyle(document.documentElement);
    const quiet = style.getPropertyValue("--idle-bar"), loud = style.getPropertyValue(this.colour);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const bar = (x, y, w, h, colour) => {
      context.fillStyle = colour;
      context.beginPath();
      context.roundRect(x, y, w, h, Math.min(w, h) / 2);
      context.fill();
    };
    if (stillMotion.matches) {
      const level = this.levels.at(-1) ?? 0;
      bar(0, height / 2 - 5, width, 10, quiet);
      if (level > AUDIBLE) bar(0, height / 2 - 5, Math.max(10, width * level), 10, loud);
      return;
    }
    const thick = 3, step = 5;
    for (let i = 0, x = width - thick; x >= 0; i += 1, x -= step) {
      const level = this.levels[this.levels.length - 1 - i] ?? 0;
      const tall = Math.max(thick, level * height);
      bar(x, (height - tall) / 2, thick, tall, level > AUDIBLE ? loud : quiet);
    }
  }
}
