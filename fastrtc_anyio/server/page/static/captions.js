"use strict";

// Captions: the part of a reply's text that has been heard. They have no clock: `advance` takes the time that has passed.

const CAPTION_HELD_S = 3;  // a sentence without sound waits this long for it, in total

class Caption {
  constructor() {
    Object.assign(this, { text: "", heard: 0, from: 0, seconds: 0, elapsed: 0, held: 0 });
  }

  /** Begin a sentence of `seconds`. `text` is the reply up to the end of the sentence. */
  begin(text, sentence, seconds) {
    const from = text.endsWith(sentence) ? text.length - sentence.length : text.length;
    Object.assign(this, { text, from, seconds, heard: from, elapsed: 0, held: 0 });
    if (!(seconds > 0 && seconds < Infinity)) this.heard = text.length;
  }

  /** Let time pass, in seconds. Captions wait for sound. Returns whether `heard` has changed. */
  advance(seconds, sounding) {
    if (this.heard >= this.text.length) return false;
    if (!sounding && this.held < CAPTION_HELD_S) {
      this.held += seconds;
      return false;
    }
    this.elapsed += seconds;
    const { heard, from, text } = this;
    const share = Math.min(1, this.elapsed / this.seconds);
    this.heard = Math.max(heard, wordEnd(text, from + Math.floor(share * (text.length - from))));
    return this.heard !== heard;
  }

  /** The text that was spoken but not heard, after `heard`, the text that was. */
  unheard(heard) {
    return this.text.startsWith(heard) ? this.text.slice(heard.length) : "";
  }
}

/** The end of the word at a position. Writing without spaces is cut between characters. */
function wordEnd(text, at) {
  const rest = text.slice(at).search(/\s/);
  const end = rest < 0 ? text.length : at + rest;
  if (end - at <= 24) return end;
  return /[\uDC00-\uDFFF]/.test(text[at]) ? at + 1 : at;
}
