"use strict";

// The page: its elements, its state and its events.

const $ = (id) => document.getElementById(id);

let call = null;
let config = null;                  // the stream's configuration; null until it is loaded
let plan = planOf({ modality: "audio", mode: "send-receive" });
let cameraOn = true;

/** The kinds of media in each direction, from FastRTC's `modality` and `mode`. */
function planOf({ modality, mode }) {
  const kinds = ["audio", "video"].filter((kind) => modality === kind || modality === "audio-video");
  return { kinds, sends: mode === "receive" ? [] : kinds, receives: mode === "send" ? [] : kinds };
}

const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value) ?? "");

function duration(ms) {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** Apply a configuration: show the controls for the stream's media and hide all others. */
function setConfig(latest) {
  config = latest;
  plan = planOf(config);
  $("page").removeAttribute("data-locked");
  $("login").hidden = true;
  const { kinds, sends, receives } = plan;
  const video = kinds.includes("video");
  $("title").textContent = config.title ?? "";
  $("title").hidden = !config.title;
  $("subtitle").textContent = config.subtitle ?? "";
  $("subtitle").hidden = !config.subtitle;
  document.title = config.title || "fastrtc_anyio";
  $("page").toggleAttribute("data-video", video);
  $("stage").hidden = !video;
  $("remote").hidden = !receives.includes("video");
  $("local").className = receives.includes("video") ? "small" : "large";
  const [speaks, hears] = [sends.includes("audio"), receives.includes("audio")];
  for (const id of ["lane-in", "mute", "device-in", "device-keys"]) $(id).hidden = !speaks;
  for (const id of ["camera-switch", "device-camera"]) $(id).hidden = !sends.includes("video");
  $("lane-out").hidden = !hears;
  $("device-volume").hidden = !hears || !canSetVolume();
  $("lanes").hidden = !speaks && !hears;
  $("devices").hidden = !sends.length && !hears;
  const numbers = {
    rtt: true,
    buffer: hears,
    "loss-in": receives.length,
    "loss-out": sends.length,
    response: speaks && hears,
    "picture-in": receives.includes("video"),
    "picture-out": sends.includes("video"),
  };
  for (const [id, shown] of Object.entries(numbers)) $(id).parentElement.hidden = !shown;
  $("page").removeAttribute("data-loading");
  fields.render(config.inputs ?? [], config.outputs ?? [], config.send_input_on === "submit");
  renderStage();
  if (!call) {
    if (!$("hint").textContent) $("hint").textContent = instruction();
    sends.forEach((kind) => listDevices(kind));
    listSpeakers();
    if (sends.length && !navigator.mediaDevices) setAlert(insecure(sends));
  }
}

function instruction() {
  if (!plan.sends.length) {
    return `Press Connect to ${plan.kinds.map((kind) => ({ audio: "listen", video: "watch" })[kind]).reverse().join(" and ")}.`;
  }
  return `Press Connect${plan.sends.includes("audio") ? "," : " and"} allow ${named(plan.sends)}`
    + `${plan.sends.includes("audio") ? ", and talk" : ""}.`;
}

function renderStage() {
  const local = Boolean(call?.sources.video);
  $("local").hidden = !local;
  $("stage-note").textContent = plan.receives.includes("video")
    ? (call?.startedAt ? "No picture yet" : "")
    : (cameraOn ? "" : "The camera is off");
}

function show(status, hint) {
  // Write changes only: screen readers read every write to a live region aloud.
  if ($("status").textContent !== status) $("status").textContent = status;
  $("hint").textContent = hint;
  $("timer").hidden = !call || call.startedAt === null;
  const connected = call?.pc?.connectionState === "connected" && !call.recovery.silent;
  const connection = connected ? "Connected" : call?.lostAt || call?.startedAt ? "Reconnecting" : "";
  $("connection").textContent = connection;
  $("connection").hidden = !connection;
  $("page").toggleAttribute("data-connected", connection === "Connected");
  $("page").dataset.turn = (connection === "Connected" && call.turn) || "";
}

/** Show or hide the conversation. On a wide screen the call moves to the side of it. */
function showConversation(shown) {
  if ($("page").hasAttribute("data-talk") === shown) return;
  const before = $("call").getBoundingClientRect();
  $("page").toggleAttribute("data-talk", shown);
  renderConversation();
  const after = $("call").getBoundingClientRect();
  if (!call || stillMotion.matches || before.x === after.x) return;
  const from = `translateX(${before.x + before.width / 2 - after.x - after.width / 2}px)`;
  $("call").animate([{ transform: from }, { transform: "none" }], { duration: 300, easing: "ease-out" });
}

/** A call without a conversation shows the field for messages alone. */
function renderConversation() {
  const talks = $("page").hasAttribute("data-talk");
  $("conversation").hidden = !talks && !call?.startedAt;
}

function renderTextBox() {
  $("text").disabled = $("send").disabled = call?.channel?.readyState !== "open";
}

/** Show the log-in form, after an answer with status 401. */
function askForToken(error) {
  $("page").removeAttribute("data-loading");
  $("page").toggleAttribute("data-locked", true);
  $("login").hidden = false;
  show("Log in", token ? "" : error.message);
  setAlert(token ? `The server rejected this token. ${error.message}` : "");
  $("token").value = "";
  $("token").focus();
}

function setAlert(text) {
  $("alert").textContent = text;
  $("alert").hidden = !text;
}

function render() {
  $("page").toggleAttribute("data-live", call !== null);
  renderCall();
  renderTextBox();
  if (call) {
    setAlert("");
    setNotice("");
    show($("status").textContent, $("hint").textContent);
    $("timer").textContent = "0:00";
    for (const meter of meters) meter.levels = [];
    cancelAnimationFrame(nextDraw);
    nextDraw = requestAnimationFrame(draw);
  } else {
    setMuted(false);
  }
  if (!call?.startedAt) clearNumbers();
}

/** Show what depends on whether there is a call, and whether it has been connected. */
function renderCall() {
  $("page").toggleAttribute("data-started", Boolean(call?.startedAt));
  $("connect-label").textContent = !call ? "Connect" : call.startedAt || call.lostAt ? "Hang up" : "Cancel";
  $("mute").disabled = !call;
  renderStage();
  renderConversation();
}

/** The hint for a muted microphone or a camera that is off. */
function off() {
  return [
    plan.sends.includes("audio") && isMuted() && mutedHint(),
    plan.sends.includes("video") && !cameraOn && "Your camera is off.",
  ].filter(Boolean).join(" ");
}

const mutedHint = () => `You are muted.${$("shortcuts").checked && hasKeyboard.matches ? " Hold Space to talk." : ""}`;

/** The hint for a connected call. */
function invitation() {
  const { sends, kinds } = plan;
  const senses = kinds.map((kind) => ({ audio: "hears", video: "sees" })[kind]).join(" and ");
  if (sends.length) return `${sends.includes("audio") ? "Talk: the" : "The"} assistant ${senses} you.`;
  return "You only receive: your microphone and camera are off.";
}

const isMuted = () => $("mute").getAttribute("aria-pressed") === "true";

function setMuted(muted) {
  $("mute").setAttribute("aria-pressed", String(muted));
  $("mute-label").textContent = muted ? "Muted" : "Mute";
  for (const track of call?.sources.audio?.getTracks() ?? []) track.enabled = !muted;
  if (call?.pc?.connectionState === "connected") call.showTurn();
}

/** Turn the camera on or off, for this call and later ones. */
function setCamera(on) {
  cameraOn = on;
  $("camera-switch").textContent = on ? "Turn camera off" : "Turn camera on";
  $("camera-switch").toggleAttribute("data-off", !on);
  renderStage();
  if (!call?.pc) return;  // a call that has no connection yet checks `cameraOn` itself
  if (call.pc.connectionState === "connected") call.showTurn();
  reopen("video");
}

async function reopen(kind) {
  const current = call;
  if (!current) return;
  try {
    await current.reopen(kind);
  } catch (error) {
    // The call continues with its previous microphone, or without a camera.
    if (current.ended) return;
    chosen[kind] = "";
    if (kind === "video") setCamera(false);
    else listDevices(kind, current.sources.audio?.getTracks()[0]?.getSettings().deviceId);
    setAlert(error.message);
  }
}

const hasKeyboard = matchMedia("(any-pointer: fine), not all and (any-pointer: coarse)");
const conversation = new Conversation();
const fields = new Fields(() => call?.sendInputs());
const meters = [new Meter($("level-in"), "in", "--you"), new Meter($("level-out"), "out", "--them")];

let nextDraw = 0;

function draw(time) {
  const [heard, out] = meters.map((meter) => meter.push(time));
  const loudness = call?.turn === "started_talking" ? heard : out;
  $("orb").style.setProperty("--ring", stillMotion.matches ? 0 : loudness.toFixed(3));
  meters.forEach((meter) => meter.paint());
  if (call) nextDraw = requestAnimationFrame(draw);
}

function paintMeters() {
  meters.forEach((meter) => meter.paint());
}

$("connect").onclick = () => {
  if (call) {
    call.end();
    return;
  }
  conversation.begin();
  call = new Call();
  render();
  call.start();
};
$("mute").onclick = () => setMuted(!isMuted());
for (const kind of ["audio", "video"]) {
  $(DEVICES[kind]).onchange = ({ target }) => {
    chosen[kind] = target.value;
    reopen(kind);
  };
}
$("speaker").onchange = ({ target }) => chooseSpeaker(target.value);
$("volume").oninput = ({ target }) => {
  setVolume(target.valueAsNumber);
  keepVolume(target.valueAsNumber);
};
$("copy").onclick = copyConversation;
$("inputs").onsubmit = (event) => {
  event.preventDefault();
  fields.changed();
};
$("say").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text) call?.say(text);
  $("text").value = "";
};
$("login").onsubmit = (event) => {
  event.preventDefault();
  keepToken($("token").value.trim());
  setAlert("");
  enter().then(() => { if (!$("page").hasAttribute("data-locked")) $("connect").focus(); });
};
$("camera-switch").onclick = () => setCamera(!cameraOn);
$("clear").onclick = clearLog;
addEventListener("pagehide", () => call?.end());
addEventListener("online", () => call?.hurry());
for (const event of ["visibilitychange", "resume"]) document.addEventListener(event, playAgain);
let networkType = navigator.connection?.type;  // phones: "wifi", "cellular"
navigator.connection?.addEventListener?.("change", () => {
  if (navigator.connection.type !== networkType) call?.hurry();
  networkType = navigator.connection.type;
});
addEventListener("resize", paintMeters);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paintMeters);
navigator.mediaDevices?.addEventListener("devicechange", () => {
  plan.sends.forEach((kind) => listDevices(kind));
  listSpeakers();
});
setVolume(keptVolume());  // browsers may restore the control alone
enter();

/** Play what the browser paused while the page was in the background, as phones do, or frozen. */
function playAgain() {
  for (const id of ["audio", "remote", "local"]) {
    if ($(id).srcObject && $(id).paused) $(id).play().catch(() => {});  // still in the background
  }
}

/** Load the configuration with the current token. */
async function enter() {
  try {
    const latest = await loadConfig();
    if ($("page").hasAttribute("data-locked")) show("Ready", "");
    setConfig(latest);
  } catch (error) {
    $("page").removeAttribute("data-loading");
    if (call) return;  // the call shows its own errors
    if (error.status === 401) askForToken(error);
    else setAlert(error.message);
  }
  paintMeters();
}
