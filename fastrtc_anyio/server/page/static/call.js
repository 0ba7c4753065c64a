"use strict";

// One call is one object: everything it opens is its own, `end` closes all of it once, and a late event
// of a call that has ended finds `ended` set and changes nothing. A call whose way to the server was lost hands
// the microphone and the camera to the one that is tried next, so that nobody is asked for them again.

const CONNECT_TIMEOUT_MS = 30_000;  // the server's own limit for a connection to come up
const INTERRUPTED_MS = 5_000;       // ICE seldom recovers later; the server has given the call up by then
const RETRIES_MS = [300, 1000, 2000, 4000, 8000, 15_000];  // between attempts to come back; then the last
const RETRY_FOR_MS = 10 * 60_000;
const GHOST_MS = 20_000;            // for so long a lost call may still hold its place at the server
const STEADY_MS = 10_000;           // a call that held so long begins the attempts anew
const OUTPUTS_AGAIN_MS = 3_000;     // until outputs that were cut off are asked for again
const REPLY_OVER_MS = 1_500;        // silence after which a reply is taken to be over

class Call {
  /** `before` is the call that was lost, if this is to replace one. */
  constructor(before = null) {
    this.lostAt = before ? before.lostAt : 0;       // 0 in a call that was not lost
    this.attempt = before ? before.attempt + 1 : 0;
    this.id = randomId();
    this.ended = false;
    this.startedAt = null;
    this.serverError = "";
    this.turn = "";
    this.turnSince = 0;
    this.waiting = this.interrupted = 0;            // timers
    this.abort = new AbortController();
    this.timers = [];
    this.sources = before?.sources ?? { audio: null, video: null };   // streams of the microphone and the camera
    this.senders = { audio: null, video: null };
    this.attempts = { audio: 0, video: 0 };
    this.pc = null;
    this.channel = null;
    this.audioContext = before?.audioContext ?? (plan.kinds.includes("audio") ? new AudioContext() : null);
    this.analysers = before ? { in: before.analysers.in } : {};
    this.inputs = { wanted: false, busy: false };
    this.lastCounts = null;
  }

  async start() {
    clearTimeout(this.waiting);
    this.waiting = 0;
    try {
      this.showProgress();
      setConfig(await loadConfig(this.abort.signal));  // anew: credentials grow old
      await this.openSources();
      if (this.ended) return;
      this.showProgress();
      this.timers.push(setTimeout(() => this.noConnection(), CONNECT_TIMEOUT_MS));
      await this.negotiate();
    } catch (error) {
      if (this.ended) return;
      if (!(error instanceof CallError)) console.error(error);
      const since = performance.now() - this.lostAt;
      if (this.lostAt && (error.passing === "gone" || (error.passing === "full" && since < GHOST_MS))) this.lose();
      else if (error.status === 401) this.turnAway(error);
      else this.end(error instanceof CallError ? error.message : `The call could not be made: ${error.message}`);
    }
  }

  showProgress() {
    if (this.lostAt) show("Reconnecting", "The connection was lost. It is being made again.");
    else show("Connecting", "");
  }

  noConnection() {
    if (this.lostAt) this.lose();
    else this.end("No connection came up. A firewall may block UDP between you and the server.");
  }

  /** The way to the server was lost, nobody wanted it: close this call, and try for another one. */
  lose() {
    if (this.ended) return;
    const now = performance.now();
    const steady = this.startedAt !== null && now - this.startedAt > STEADY_MS;
    if (!this.lostAt || steady) [this.lostAt, this.attempt] = [now, 0];
    if (now - this.lostAt > RETRY_FOR_MS) {
      this.end("The connection was lost, and the server has not come back.");
      return;
    }
    this.close();
    call = new Call(this);
    render();
    call.showProgress();
    const delay = RETRIES_MS[Math.min(this.attempt, RETRIES_MS.length - 1)];
    const next = call;  // not all pages of a server that restarts at the same moment
    next.waiting = setTimeout(() => { if (!next.ended) next.start(); }, delay * (0.75 + Math.random() / 2));
    next.timers.push(next.waiting);
  }

  /** The network is back: do not wait for the next attempt. */
  hurry() {
    if (this.waiting && !this.ended) this.start();
  }

  /** Open what the call needs; by one question to the person, if there is one. */
  async openSources() {
    for (const kind of ["audio", "video"]) this.adopt(kind);
    const kinds = plan.sends.filter((kind) => (kind === "audio" || cameraOn) && !this.sources[kind]);
    if (this.ended) return;
    if (kinds.length && !this.lostAt) show(`Waiting for ${named(kinds)}`, `Allow ${them(kinds)} where the browser asks.`);
    const stream = kinds.length ? await openDevices(kinds) : null;
    for (const kind of kinds) {
      await this.use(kind, new MediaStream(stream.getTracks().filter((track) => track.kind === kind)));
    }
    // The camera may have been turned off or on meanwhile.
    while (!this.ended && plan.sends.includes("video") && cameraOn !== Boolean(this.sources.video)) {
      await this.reopen("video");
    }
  }

  /** Go on with what the call before has opened. */
  adopt(kind) {
    const stream = this.sources[kind];
    const track = stream?.getTracks()[0];
    if (track?.readyState === "ended") this.sources[kind] = null;
    else if (track) track.onended = () => { if (this.sources[kind] === stream) this.sourceLost(kind); };
  }

  /** Open the microphone or the camera as the page now says. Of several attempts the last one counts. */
  async reopen(kind) {
    const attempt = ++this.attempts[kind];
    if (kind === "video") await this.use(kind, null);  // telephones cannot open two cameras at a time
    if (kind === "video" && !cameraOn) return;
    const stream = await openDevices([kind]);
    if (attempt === this.attempts[kind]) await this.use(kind, stream);
    else stop(stream);
  }

  /** Send what a stream captures; or nothing, if it is null. The stream before is stopped. */
  async use(kind, stream) {
    if (this.ended) {
      stop(stream);
      return;
    }
    const before = this.sources[kind];
    this.sources[kind] = stream;
    const track = stream?.getTracks()[0] ?? null;
    if (track) {
      this.adopt(kind);
      listDevices(kind, track.getSettings().deviceId);
      listSpeakers();
    }
    if (kind === "video") {
      $("local").srcObject = stream;
      renderStage();
    } else {
      track.enabled = $("mute").getAttribute("aria-pressed") !== "true";
      this.listen("in", stream);
    }
    await this.senders[kind]?.replaceTrack(track);
    stop(before);
  }

  sourceLost(kind) {
    if (kind === "audio") {
      this.end("The microphone was taken away.");
    } else {
      setCamera(false);
      setAlert("The camera was taken away.");
    }
  }

  async negotiate() {
    const pc = this.pc = new RTCPeerConnection(config.rtc_configuration ?? {});
    pc.onicecandidate = ({ candidate }) => {
      // Firefox tells the end of each section by an empty one.
      if (candidate?.candidate) this.sendCandidate(candidate);
    };
    pc.ontrack = ({ track }) => this.play(track);
    pc.onconnectionstatechange = () => this.connectionStateChanged();
    for (const kind of plan.kinds) {
      const [sends, receives] = [plan.sends.includes(kind), plan.receives.includes(kind)];
      const direction = sends && receives ? "sendrecv" : sends ? "sendonly" : "recvonly";
      const { sender } = pc.addTransceiver(this.sources[kind]?.getTracks()[0] ?? kind, { direction });
      if (sends) this.senders[kind] = sender;
    }

    // Before the offer, so that the offer asks for it.
    const channel = this.channel = pc.createDataChannel("text");
    channel.onopen = () => renderTextBox();
    channel.onmessage = ({ data }) => this.received(data);
    channel.onclose = () => this.cutOff();

    const { type, sdp: plain } = await pc.createOffer();
    if (this.ended) return;
    const sdp = withStereo(plain);
    await pc.setLocalDescription({ type, sdp });
    const answer = await this.post({ sdp, type, webrtc_id: this.id });
    if (this.ended) return;
    await pc.setRemoteDescription(answer);
    if (this.ended) return;
    if (fields.inputs.length) this.sendInputs();
    if (fields.outputs.length) this.readOutputs();
    const wanted = wantsStereo();
    handlerIsStereo = takesStereo(answer.sdp);  // a handler that is made for each call says so no sooner
    if (this.sources.audio && handlerIsStereo && !wanted) await reopen("audio");
    for (const kind of plan.sends) await this.tune(this.senders[kind], config.rtp_params ?? {});
  }

  /** Apply the stream's parameters to a sender. */
  async tune(sender, { encodings, ...others }) {
    if (!encodings && !Object.keys(others).length) return;
    try {
      const before = sender.getParameters();
      const merged = before.encodings.map((encoding, i) => ({ ...encoding, ...encodings?.[i] }));
      await sender.setParameters({ ...before, ...others, encodings: merged });
    } catch (error) {
      if (!this.ended) addMessage("warning", `The browser does not take the stream's rtp_params: ${error.message}`);
    }
  }

  /** Play what comes. */
  play(track) {
    if (this.ended || !plan.receives.includes(track.kind)) return;
    const stream = new MediaStream([track]);
    if (track.kind === "video") {
      $("remote").srcObject = stream;
      return;
    }
    $("audio").srcObject = stream;
    $("audio").play().catch(() => addMessage("warning", "The browser does not play the sound by itself."));
    this.listen("out", stream);
  }

  /** Send what is set on the page. Changes meanwhile are sent together, after it. */
  async sendInputs() {
    this.inputs.wanted = true;
    if (this.inputs.busy || this.ended || !this.pc?.remoteDescription) return;
    this.inputs.busy = true;
    while (this.inputs.wanted && !this.ended) {
      this.inputs.wanted = false;
      try {
        await this.post({ webrtc_id: this.id, ...fields.values() }, "input_hook");
      } catch (error) {
        if (!this.ended) addMessage("warning", `The inputs did not arrive: ${error.message}`);
      }
    }
    this.inputs.busy = false;
  }

  async readOutputs() {
    const path = `outputs?webrtc_id=${encodeURIComponent(this.id)}`;
    while (!this.ended) {
      try {
        for await (const [event, data] of readEvents(path, this.abort.signal)) {
          if (event === "output") fields.show(JSON.parse(data));
          else if (event === "problem") addMessage("warning", JSON.parse(data));
          else if (event === "end") return;
        }
      } catch (error) {
        if (this.ended) return;
        if (error instanceof CallError && !error.passing) {
          // 404 is a call that ended a moment ago.
          if (error.status !== 404) addMessage("warning", `The outputs do not come: ${error.message}`);
          return;
        }
      }
      await new Promise((done) => { setTimeout(done, OUTPUTS_AGAIN_MS); });
    }
  }

  /** Send a text message. */
  say(text) {
    if (this.channel?.readyState !== "open") return;
    this.channel.send(text);
    addMessage("you", text);
  }

  post(body, path = "webrtc/offer") {
    return ask(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: this.abort.signal,
    });
  }

  sendCandidate(candidate) {
    if (this.ended) return;
    // The answer to the offer tells whether the server has this call; a candidate it could not use is
    // one path the less, not the end.
    this.post({ type: "ice-candidate", candidate: candidate.toJSON(), webrtc_id: this.id })
      .catch((error) => { if (!this.ended) console.warn("candidate:", error.message); });
  }

  connectionStateChanged() {
    if (this.ended) return;
    switch (this.pc.connectionState) {
      case "connected":
        if (this.startedAt === null) {
          this.timers.forEach(clearTimeout);
          this.startedAt = performance.now();
          this.timers.push(setInterval(() => this.everySecond(), 1000));
          this.timers.push(setInterval(() => this.watchReply(), 100));
        }
        clearTimeout(this.interrupted);
        this.showTurn();
        renderStage();
        renderTextBox();
        break;
      case "disconnected":
        show("Connection interrupted", "Waiting for it to come back.");
        this.interrupted = setTimeout(() => this.cutOff(), INTERRUPTED_MS);
        this.timers.push(this.interrupted);
        break;
      case "failed":
        if (this.startedAt === null && !this.serverError) this.noConnection();
        else this.cutOff();
        break;
      case "closed":
        this.cutOff();
    }
  }

  /** The connection ended without a word of the server's; unless it has told of an error. */
  cutOff() {
    if (this.serverError) this.end(this.serverError);
    else this.lose();
  }

  setTurn(turn) {
    this.turn = turn;
    this.turnSince = performance.now();
    // A message may be here before the news of the connection that it came by.
    if (this.startedAt !== null) this.showTurn();
  }

  showTurn() {
    const [status, hint] = TURNS[this.turn] ?? ["Connected", ""];
    show(status, off() || hint || invitation());
  }

  /** Nobody tells when a reply is over: it is when nothing is heard of it any more. */
  watchReply() {
    if (this.turn !== "response_starting") return;
    const now = performance.now();
    if (this.level("out") > AUDIBLE) this.turnSince = now;
    if (now - this.turnSince > REPLY_OVER_MS) this.setTurn("listening");
  }

  received(data) {
    if (this.ended) return;
    let message = null;
    try {
      message = JSON.parse(data);
    } catch { /* shown as it came */ }
    const text = message?.message ?? message?.data;
    switch (message?.type) {
      case "error":
        this.serverError = asText(text);
        addMessage("error", this.serverError);
        setAlert(this.serverError);
        break;
      case "warning":
        addMessage("warning", asText(text));
        break;
      case "log":
        addMessage("log", asText(text));
        if (Object.hasOwn(TURNS, text)) this.setTurn(text);
        break;
      case "send_input":
        if (fields.inputs.length) this.sendInputs();
        else addMessage("send_input", "The handler asks for inputs; the stream declares none.");
        break;
      case "end_stream":
        if (text === STOPPING) {
          this.lose();
          break;
        }
        // Without a reason `data` is empty text or an empty list.
        this.end(this.serverError, text?.length
          ? `The server ended the call: ${asText(text)}.`
          : "The handler ended the call.");
        break;
      default: {
        if (message?.type === "fetch_output" && fields.outputs.length) break;  // they come by themselves
        const said = message?.data?.text ?? message?.data?.content ?? message?.text;
        if (typeof said === "string") addMessage(asText(message.data?.role ?? message.role ?? message.type), said);
        else addMessage(asText(message?.type ?? "text"), typeof data === "string" ? data : "(binary)", "raw");
      }
    }
  }

  listen(direction, stream) {
    this.analysers[direction]?.source.disconnect();
    if (!this.audioContext) return;
    const source = this.audioContext.createMediaStreamSource(stream);
    const analyser = this.audioContext.createAnalyser();
    analyser.fftSize = 1024;
    source.connect(analyser);
    this.analysers[direction] = { source, analyser, samples: new Float32Array(analyser.fftSize) };
  }

  /** The level now, 0 (FLOOR_DB and below) to 1 (full scale). */
  level(direction) {
    const tap = this.analysers[direction];
    if (!tap) return 0;
    tap.analyser.getFloatTimeDomainData(tap.samples);
    let sum = 0;
    for (const sample of tap.samples) sum += sample * sample;
    const db = 10 * Math.log10(sum / tap.samples.length + 1e-12);
    return Math.min(1, Math.max(0, 1 - db / FLOOR_DB));
  }

  async everySecond() {
    $("timer").textContent = duration(performance.now() - this.startedAt);
    const report = await this.pc.getStats();
    if (this.ended) return;
    const stats = [...report.values()];
    const all = (type) => stats.filter((s) => s.type === type);
    const [inbound, remote] = [all("inbound-rtp"), all("remote-inbound-rtp")];
    const heard = inbound.find((s) => s.kind === "audio");
    const transport = all("transport").find((s) => s.selectedCandidatePairId);
    const pair = transport
      ? report.get(transport.selectedCandidatePairId)
      : all("candidate-pair").find((s) => s.nominated && s.state === "succeeded");
    const sum = (name) => inbound.reduce((total, s) => total + (s[name] ?? 0), 0);
    const now = {
      received: sum("packetsReceived"),
      lost: sum("packetsLost"),
      waited: heard?.jitterBufferDelay ?? 0,
      played: heard?.jitterBufferEmittedCount ?? 0,
    };
    const then = this.lastCounts ?? { received: 0, lost: 0, waited: 0, played: 0 };
    this.lastCounts = now;
    const lost = Math.max(0, now.lost - then.lost);
    const due = lost + now.received - then.received;
    const shares = remote.map((s) => s.fractionLost).filter((share) => share !== undefined);
    $("rtt").textContent = milliseconds(pair?.currentRoundTripTime ?? remote[0]?.roundTripTime);
    $("loss-in").textContent = percent(due > 0 ? lost / due : undefined);
    $("loss-out").textContent = percent(shares.length ? Math.max(...shares) : undefined);
    $("buffer").textContent = milliseconds(
      now.played > then.played ? (now.waited - then.waited) / (now.played - then.played) : undefined,
    );
    $("picture-in").textContent = picture(inbound);
    $("picture-out").textContent = picture(all("outbound-rtp"));
  }

  /** End the call. A `problem` is shown as an error, `note` says who ended a call that went well. */
  end(problem = "", note = "") {
    if (this.ended) return;
    this.close();
    Object.values(this.sources).forEach(stop);
    this.audioContext?.close();
    $("local").srcObject = null;
    if (call === this) call = null;
    const length = this.startedAt === null ? "" : `It lasted ${duration(performance.now() - this.startedAt)}.`;
    render();
    setAlert(problem);
    if (this.startedAt === null && problem) show("Not connected", "");
    else if (this.startedAt === null && !note) show("Ready", instruction());
    else show("Call ended", [note, length].filter(Boolean).join(" "));
  }

  /** End the call before it began: the server does not know who this is. */
  turnAway(error) {
    this.end();
    askForToken(error);
  }

  /** Close everything but what a person has allowed. */
  close() {
    this.ended = true;
    this.timers.forEach(clearTimeout);
    this.abort.abort();
    if (this.pc) {
      this.pc.ontrack = this.pc.onicecandidate = this.pc.onconnectionstatechange = null;
      if (this.channel) this.channel.onopen = this.channel.onmessage = this.channel.onclose = null;
      this.pc.close();
    }
    this.analysers.out?.source.disconnect();
    for (const id of ["audio", "remote"]) $(id).srcObject = null;
  }
}

// What the handler tells of a conversation, and what it means to the person.
const TURNS = {
  listening: ["Listening", "Say something."],
  started_talking: ["You are talking", "The handler hears you."],
  pause_detected: ["Thinking", "The handler heard you pause."],
  response_starting: ["Answering", "The handler replies."],
};
const STOPPING = "the server is stopping";  // said of a server that may be back in a moment

/** The offer with stereo=1 for Opus (RFC 7587, 7.1): without it the browser plays mono, whatever comes. */
function withStereo(sdp) {
  const payload = opusPayload(sdp);
  return payload ? sdp.replace(new RegExp(`^(a=fmtp:${payload} .*?)(\\r?)$`, "m"), "$1;stereo=1$2") : sdp;
}

/** Whether a side says that it wants to hear stereo. */
function takesStereo(sdp) {
  return new RegExp(`^a=fmtp:${opusPayload(sdp)} (.*;)?\\s*stereo=1\\s*(;|$)`, "m").test(sdp);
}

const opusPayload = (sdp) => /^a=rtpmap:(\d+) opus\/48000\/2/im.exec(sdp)?.[1];

/** 128 random bits, without crypto.randomUUID, which pages without https lack. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
