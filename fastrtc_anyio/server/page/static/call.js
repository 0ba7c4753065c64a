"use strict";

// A call owns everything it opens. `end` closes all of it once, and sets `ended`, by which late events are ignored.
// A call that loses its connection is replaced by a new one, which takes over the microphone and the camera: the
// browser does not ask for permission again.

const CONNECT_TIMEOUT_MS = 30_000;  // longer than the default Limits.connect of the server
const STEADY_MS = 10_000;           // a call that lasted this long resets the retry delay
const REPLY_OVER_MS = 1_500;        // silence that ends a reply
const SOUNDING_MS = 400;            // shorter silence is a gap between words
const TICK_MS = 50;

class Call {
  /** `before` is the lost call that this one replaces. */
  constructor(before = null) {
    this.lostAt = before ? before.lostAt : 0;       // 0 unless the call is reconnecting
    this.lostHint = before ? before.lostHint : "";  // to show instead of the usual one
    this.attempt = before ? before.attempt + 1 : 0;
    this.busySince = before ? before.busySince : 0; // 0 unless the server has no slot
    this.signaling = new Signaling();
    this.id = this.signaling.id;
    this.ended = false;
    this.startedAt = null;
    this.serverError = this.turn = "";
    this.turnSince = this.soundAt = this.tickAt = 0;
    this.waiting = 0;                               // timer
    this.timers = [];
    this.recovery = new Recovery(this);
    this.sources = before?.sources ?? { audio: null, video: null };   // MediaStreams of the microphone and the camera
    this.senders = { audio: null, video: null };
    this.attempts = { audio: 0, video: 0 };
    this.pc = this.channel = this.countdown = null;
    this.audioContext = before?.audioContext ?? (plan.kinds.includes("audio") ? new AudioContext() : null);
    this.analysers = before ? { in: before.analysers.in } : {};
    this.numbers = new Numbers();
    this.response = new ResponseTime((ms) => {
      $("response").textContent = `${(ms / 1000).toFixed(1)} s`;
      conversation.answered(ms);
    });
  }

  async start() {
    clearTimeout(this.waiting);
    this.waiting = 0;
    try {
      this.showProgress();
      setConfig(await this.signaling.loadConfig());  // for each call: TURN credentials expire
      await this.openSources();
      if (this.ended) return;
      this.showProgress();
      this.timers.push(setTimeout(() => this.noConnection(), CONNECT_TIMEOUT_MS));
      await this.negotiate();
    } catch (error) {
      if (this.ended) return;
      if (!(error instanceof CallError)) console.error(error);
      const since = performance.now() - this.lostAt;
      const isGone = error.passing === "gone";
      const isAway = isGone || error.passing === "restarting" || (error.passing === "full" && since < GHOST_MS);
      if (this.lostAt && isAway) this.lose(error.retryAfter);
      else if (isBusy(error) || (this.busySince && isGone)) this.callAgain(error);
      else if (error.status === 401) this.turnAway(error);
      else this.end(error instanceof CallError ? error.message : `The call failed: ${error.message}`);
    }
  }

  showProgress() {
    if (this.lostAt) show("Reconnecting", this.lostHint || "The connection was lost. Trying to restore it.");
    else show("Connecting", "");
  }

  noConnection() {
    if (this.lostAt) this.lose();
    else this.end("No connection could be established. A firewall may block UDP between you and the server.");
  }

  /** Handle a lost connection: close this call and try to replace it. */
  lose(retryAfter = 0, hint = this.lostHint) {
    if (this.ended) return;
    setNotice("");  // such as that the call will end
    this.lostHint = hint;
    const now = performance.now();
    const steady = this.startedAt !== null && now - this.startedAt > STEADY_MS;
    if (!this.lostAt || steady) [this.lostAt, this.attempt] = [now, 0];
    if (now - this.lostAt > RETRY_FOR_MS) {
      this.end("The connection was lost and could not be restored.");
      return;
    }
    const next = this.replace();
    next.showProgress();
    const delay = Math.max(retryAfter * 1000, RETRIES_MS[Math.min(this.attempt, RETRIES_MS.length - 1)]);
    // Jitter, so that the pages of a restarted server do not all connect at the same moment.
    next.waiting = setTimeout(() => { if (!next.ended) next.start(); }, delay * (0.75 + Math.random() / 2));
    next.timers.push(next.waiting);
  }

  /** Call again when the server expects to have a slot. */
  callAgain(error) {
    const now = performance.now();
    this.busySince ||= now;
    if (now - this.busySince > RETRY_FOR_MS) {
      this.end(error.message);
      return;
    }
    const next = this.replace();
    next.countdown = new Countdown(error, () => next.start());
  }

  /** Close this call for a new one. */
  replace() {
    this.close();
    conversation.goOn();
    call = new Call(this);
    render();
    return call;
  }

  /** Reconnect now, or look for a better path: the network is back, or another one. */
  hurry() {
    if (this.ended) return;
    if (this.waiting) this.start();
    else if (this.startedAt !== null) this.recovery.begin();
  }

  /** Open the microphone and the camera, with one permission prompt for both. */
  async openSources() {
    for (const kind of ["audio", "video"]) this.adopt(kind);
    const kinds = plan.sends.filter((kind) => (kind === "audio" || cameraOn) && !this.sources[kind]);
    if (this.ended) return;
    if (kinds.length && !this.lostAt) show(`Waiting for ${named(kinds)}`, `Allow ${them(kinds)} in the prompt of the browser.`);
    const stream = kinds.length ? await openDevices(kinds) : null;
    for (const kind of kinds) {
      await this.use(kind, new MediaStream(stream.getTracks().filter((track) => track.kind === kind)));
    }
    // The camera may have been switched during the prompt.
    while (!this.ended && plan.sends.includes("video") && cameraOn !== Boolean(this.sources.video)) {
      await this.reopen("video");
    }
  }

  /** Take over a source of the previous call. */
  adopt(kind) {
    const stream = this.sources[kind];
    const track = stream?.getTracks()[0];
    if (track?.readyState === "ended") this.sources[kind] = null;
    else if (track) track.onended = () => { if (this.sources[kind] === stream) this.sourceLost(kind); };
  }

  /** Open the microphone or the camera with the page's current settings. The latest of concurrent calls wins. */
  async reopen(kind) {
    const attempt = ++this.attempts[kind];
    if (kind === "video") await this.use(kind, null);  // phones cannot open two cameras at the same time
    if (kind === "video" && !cameraOn) return;
    const stream = await openDevices([kind]);
    if (attempt === this.attempts[kind]) await this.use(kind, stream);
    else stop(stream);
  }

  /** Send a MediaStream's track, or nothing if it is null. Stops the previous stream. */
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
      this.end("The microphone was disconnected.");
    } else {
      setCamera(false);
      setAlert("The camera was disconnected.");
    }
  }

  async negotiate() {
    const pc = this.pc = new RTCPeerConnection(config.rtc_configuration ?? {});
    pc.onicecandidate = ({ candidate }) => {
      // Firefox signals the end of each media section by an empty candidate.
      if (candidate?.candidate) this.signaling.sendCandidate(candidate);
    };
    pc.ontrack = ({ track }) => this.play(track);
    pc.onconnectionstatechange = () => this.connectionStateChanged();
    for (const kind of plan.kinds) {
      const [sends, receives] = [plan.sends.includes(kind), plan.receives.includes(kind)];
      const direction = sends && receives ? "sendrecv" : sends ? "sendonly" : "recvonly";
      const { sender } = pc.addTransceiver(this.sources[kind]?.getTracks()[0] ?? kind, { direction });
      if (sends) this.senders[kind] = sender;
    }

    // Created before the offer, which then contains its section.
    const channel = this.channel = pc.createDataChannel("text");
    channel.onopen = () => renderTextBox();
    channel.onmessage = ({ data }) => receive(this, data);
    channel.onclose = () => this.cutOff();

    const answer = await this.describe();
    if (this.ended) return;
    if (fields.inputs.length) this.sendInputs();
    if (fields.outputs.length) this.signaling.readOutputs();
    const wanted = wantsStereo();
    handlerIsStereo = takesStereo(answer.sdp);  // unknown before, if each call makes its handler
    if (this.sources.audio && handlerIsStereo && !wanted) await reopen("audio");
    for (const kind of plan.sends) await this.tune(this.senders[kind], config.rtp_params ?? {});
  }

  /** Send an offer, the first one or one for an ICE restart, and apply the answer. Returns the answer. */
  async describe(options = {}) {
    const { type, sdp: plain } = await this.pc.createOffer(options);
    if (this.ended) return null;
    const sdp = withStereo(plain);
    await this.pc.setLocalDescription({ type, sdp });
    const answer = await this.signaling.offer({ type, sdp, restart: options.iceRestart });
    if (!this.ended) await this.pc.setRemoteDescription(answer);
    return answer;
  }

  /** Apply the stream's `rtp_params` to a sender. */
  async tune(sender, { encodings, ...others }) {
    if (!encodings && !Object.keys(others).length) return;
    try {
      const before = sender.getParameters();
      const merged = before.encodings.map((encoding, i) => ({ ...encoding, ...encodings?.[i] }));
      await sender.setParameters({ ...before, ...others, encodings: merged });
    } catch (error) {
      if (!this.ended) warn(`The browser rejected the stream's rtp_params: ${error.message}`);
    }
  }

  /** Play a track from the server. */
  play(track) {
    if (this.ended || !plan.receives.includes(track.kind)) return;
    const stream = new MediaStream([track]);
    if (track.kind === "video") {
      $("remote").srcObject = stream;
      return;
    }
    $("audio").srcObject = stream;
    $("audio").play().catch(() => warn("The browser blocked automatic playback."));
    this.listen("out", stream);
  }

  /** Send the values of all inputs, once the server has a session for them. */
  sendInputs() {
    if (!this.ended && this.pc?.remoteDescription) this.signaling.sendInputs();
  }

  /** Send a text message. */
  say(text) {
    if (this.channel?.readyState !== "open") return;
    this.channel.send(text);
    conversation.say("user", text);
  }

  connectionStateChanged() {
    if (this.ended) return;
    switch (this.pc.connectionState) {
      case "connected":
        if (this.startedAt === null) {
          this.timers.forEach(clearTimeout);
          this.startedAt = performance.now();
          this.timers.push(setInterval(() => this.everySecond(), 1000));
          this.timers.push(setInterval(() => this.tick(), TICK_MS));
          [this.busySince, this.lostHint] = [0, ""];
          renderCall();
        }
        this.recovery.stop();
        renderStage();
        renderTextBox();
        break;
      case "disconnected":
        this.recovery.interrupted();
        break;
      case "failed":
        if (this.startedAt === null && !this.serverError) this.noConnection();
        else this.recovery.interrupted();
        break;
      case "closed":
        this.cutOff();
    }
  }

  /** Handle a connection that closed without `end_stream`. It is final if the server sent an error before. */
  cutOff() {
    if (this.serverError) this.end(this.serverError);
    else this.lose();
  }

  setTurn(turn) {
    this.turn = turn;
    this.turnSince = performance.now();
    this.response.turn(turn);
    if (turn === "pause_detected") conversation.replyDue();
    // The first message may arrive before the event that the connection is up.
    if (this.startedAt !== null) this.showTurn();
  }

  showTurn() {
    const [status, hint] = TURNS[this.turn] ?? ["Connected", ""];
    show(status, off() || hint || invitation());
  }

  /** Watch the levels: they move the captions, and give the response time and the end of a reply. */
  tick() {
    const now = performance.now();
    const level = this.level("out");
    if (level > AUDIBLE) this.soundAt = now;
    this.response.note(now, this.level("in"), level);
    const isMeasured = this.audioContext?.state === "running";
    conversation.advance((now - (this.tickAt || now)) / 1000, !isMeasured || now - this.soundAt < SOUNDING_MS);
    this.tickAt = now;
    // FastRTC's protocol has no message for the end of a reply.
    const since = Math.max(this.turnSince, this.soundAt);
    if (this.turn === "response_starting" && now - since > REPLY_OVER_MS) this.setTurn("listening");
  }

  /** Handle `end_stream`. `reason` is a CloseReason in lower case, or undefined from other servers. */
  endedByServer(reason, text) {
    // "cancelled": the server is stopping, and may be back in a moment. "vanished": it heard nothing. Others are final.
    if (reason === "cancelled" && text?.length) this.lose(0, `${sentence(asText(text))} Calling again.`);
    else if (reason === "cancelled" || reason === "vanished") this.lose();
    // Without a message `data` is an empty string or list.
    else if (text?.length) this.end(this.serverError, sentence(asText(text).trim() || "The call is over"));
    else this.end(this.serverError, "The assistant ended the call.");
  }

  /** Measure the level of a stream: "in" is the microphone, "out" the assistant. */
  listen(direction, stream) {
    this.analysers[direction]?.close();
    if (this.audioContext) this.analysers[direction] = new Analyser(this.audioContext, stream);
  }

  level(direction) {
    return this.analysers[direction]?.level() ?? 0;
  }

  async everySecond() {
    $("timer").textContent = duration(performance.now() - this.startedAt);
    const report = await this.pc.getStats();
    if (this.ended) return;
    this.numbers.show(report);
    this.recovery.watch(report);
  }

  /** End the call. `problem` is shown as an error, `note` as the reason of a regular end. */
  end(problem = "", note = "") {
    if (this.ended) return;
    if (!problem || !this.lostAt || this.startedAt !== null) resumeToken = undefined;  // not lost: it is over
    this.close();
    conversation.settle();
    Object.values(this.sources).forEach(stop);
    this.audioContext?.close();
    $("local").srcObject = null;
    if (call === this) call = null;
    const length = this.startedAt === null ? "" : `The call lasted ${duration(performance.now() - this.startedAt)}.`;
    render();
    setAlert(problem);
    if (this.startedAt === null && problem) show("Not connected", "");
    else if (this.startedAt === null && !note) show("Ready", instruction());
    else show("Call ended", [note, length].filter(Boolean).join(" "));
  }

  /** End the call and ask for a token: the server answered 401. */
  turnAway(error) {
    this.end();
    askForToken(error);
  }

  /** Close everything except the microphone and the camera. */
  close() {
    this.ended = true;
    this.timers.forEach(clearTimeout);
    this.countdown?.stop();
    this.signaling.close();
    if (this.pc) {
      this.pc.ontrack = this.pc.onicecandidate = this.pc.onconnectionstatechange = null;
      if (this.channel) this.channel.onopen = this.channel.onmessage = this.channel.onclose = null;
      this.pc.close();
    }
    this.analysers.out?.close();
    for (const id of ["audio", "remote"]) $(id).srcObject = null;
  }
}
