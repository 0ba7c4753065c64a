"use strict";

// The HTTP requests of one call: offer, candidates, inputs and outputs.

const OUTPUTS_RETRY_MS = 3_000;

/** A secret of the latest call, with which a lost one continues in another session. */
let resumeToken;

class Signaling {
  constructor() {
    this.id = randomId();
    this.abort = new AbortController();
    this.inputs = { changed: false, sending: false };
  }

  get closed() {
    return this.abort.signal.aborted;
  }

  close() {
    this.abort.abort();
  }

  loadConfig() {
    return loadConfig(this.abort.signal);
  }

  /** Send the offer. Returns the answer. */
  async offer({ type, sdp, restart }) {
    const answer = await this.post({ type, sdp, restart, resume_token: restart ? undefined : resumeToken });
    if (!restart && !this.closed) resumeToken = answer.resume_token;
    return answer;
  }

  sendCandidate(candidate) {
    if (this.closed) return;
    // Not an error for the call: the answer to the offer says whether the server has a session, and a candidate
    // that fails is one path less.
    this.post({ type: "ice-candidate", candidate: candidate.toJSON() })
      .catch((error) => { if (!this.closed) console.warn("candidate:", error.message); });
  }

  /** Send the values of all inputs. Changes made during a request are sent together after it. */
  async sendInputs() {
    this.inputs.changed = true;
    if (this.inputs.sending) return;
    this.inputs.sending = true;
    while (this.inputs.changed && !this.closed) {
      this.inputs.changed = false;
      try {
        await this.post(fields.values(), "input_hook");
      } catch (error) {
        if (!this.closed) warn(`Could not send the inputs: ${error.message}`);
      }
    }
    this.inputs.sending = false;
  }

  /** Show the outputs of the session as they arrive, until it ends. */
  async readOutputs() {
    const path = `outputs?webrtc_id=${encodeURIComponent(this.id)}`;
    while (!this.closed) {
      try {
        for await (const [event, data] of readEvents(path, this.abort.signal)) {
          if (event === "output") fields.show(JSON.parse(data));
          else if (event === "problem") warn(JSON.parse(data));
          else if (event === "end") return;
        }
      } catch (error) {
        if (this.closed) return;
        if (error instanceof CallError && !error.passing) {
          // 404: the session ended a moment ago.
          if (error.status !== 404) warn(`Could not read the outputs: ${error.message}`);
          return;
        }
      }
      await new Promise((done) => { setTimeout(done, OUTPUTS_RETRY_MS); });
    }
  }

  post(body, path = "webrtc/offer") {
    return ask(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ webrtc_id: this.id, ...body }),
      signal: this.abort.signal,
    });
  }
}

/** Add stereo=1 to an offer's Opus parameters (RFC 7587, 7.1). Without it the browser plays mono. */
function withStereo(sdp) {
  const payload = opusPayload(sdp);
  return payload ? sdp.replace(new RegExp(`^(a=fmtp:${payload} .*?)(\\r?)$`, "m"), "$1;stereo=1$2") : sdp;
}

/** Whether a description asks for stereo Opus. */
function takesStereo(sdp) {
  return new RegExp(`^a=fmtp:${opusPayload(sdp)} (.*;)?\\s*stereo=1\\s*(;|$)`, "m").test(sdp);
}

const opusPayload = (sdp) => /^a=rtpmap:(\d+) opus\/48000\/2/im.exec(sdp)?.[1];

/** 128 random bits in hexadecimal. crypto.randomUUID is missing on pages without https. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
