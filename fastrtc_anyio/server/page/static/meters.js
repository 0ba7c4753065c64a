"use strict";

const BAR_MS = 60;      // one bar of a level meter
const FLOOR_DB = -50;   // what a level meter shows as nothing
const AUDIBLE = 0.02;   // of a level: more is a sound

const stillMotion = matchMedia("(prefers-reduced-motion: reduce)");

// A level meter is a strip of bars, the newest at the right; with reduced motion one bar that grows.
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
    if (!canvas.clientWidth) return;  // there is no such sound
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
