"use strict";

// The page: its elements, its state and its events.

const MESSAGES_KEPT = 200;

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
  $("lane-in").hidden = !sends.includes("audio");
  $("lane-camera").hidden = !sends.includes("video");
  $("lane-out").hidden = !receives.includes("audio");
  const numbers = {
    rtt: true,
    "loss-in": receives.length,
    "loss-out": sends.length,
    buffer: receives.includes("audio"),
    "picture-in": receives.includes("video"),
    "picture-out": sends.includes("video"),
  };
  for (const [id, shown] of Object.entries(numbers)) $(id).parentElement.hidden = !shown;
  const count = Object.values(numbers).filter(Boolean).length;
  $("numbers").style.setProperty("--columns", count === 4 || count === 2 ? count : 3);
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
  $("connect-label").textContent = call ? "Hang up" : "Connect";
  $("mute").disabled = !call;
  renderStage();
  renderTextBox();
  if (call) {
    setAlert("");
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

/** The hint for a muted microphone or a camera that is off. */
function off() {
  return [
    plan.sends.includes("audio") && $("mute").getAttribute("aria-pressed") === "true" && "You are muted.",
    plan.sends.includes("video") && !cameraOn && "Your camera is off.",
  ].filter(Boolean).join(" ");
}

/** The hint for a connected call. */
function invitation() {
  const { sends, kinds } = plan;
  const senses = kinds.map((kind) => ({ audio: "hears", video: "sees" })[kind]).join(" and ");
  if (sends.length) return sends.includes("audio") ? `Talk: the handler ${senses} you.` : `The handler ${senses} you.`;
  return "You only receive: the handler neither hears nor sees you.";
}

function setMuted(muted) {
  $("mute").setAttribute("aria-pressed", String(muted));
  $("mute").textContent = muted ? "Muted" : "Mute";
  for (const track of call?.sources.audio?.getTracks() ?? []) track.enabled = !muted;
  if (call?.pc?.connectionState === "connected") call.showTurn();
}

/** Turn the camera on or off, for this call and later ones. */
function setCamera(on) {
  cameraOn = on;
  $("camera-switch").textContent = on ? "Turn off" : "Turn on";
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

function addMessage(kind, text, style = kind) {
  const [log, list] = [$("messages"), $("message-list")];
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 8;
  const item = document.createElement("li");
  item.className = style;
  const cell = (tag, className, content) => {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = content;
    item.append(element);
  };
  cell("time", "", new Date().toLocaleTimeString([], { hour12: false }));
  cell("span", "kind", kind);
  cell("span", "text", text);
  list.append(item);
  while (list.children.length > MESSAGES_KEPT) list.firstChild.remove();
  log.hidden = false;
  $("no-messages").hidden = true;
  $("clear").disabled = false;
  if (atEnd) log.scrollTop = log.scrollHeight;
}

const fields = new Fields(() => call?.sendInputs());
const meters = [new Meter($("level-in"), "in", "--you"), new Meter($("level-out"), "out", "--them")];

let nextDraw = 0;

function draw(time) {
  const [heard, out] = meters.map((meter) => meter.push(time));
  const loudness = call?.turn === "started_talking" ? heard : out;
  $("connect").style.setProperty("--ring", stillMotion.matches ? 0 : loudness.toFixed(3));
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
  call = new Call();
  render();
  call.start();
};
$("mute").onclick = () => setMuted($("mute").getAttribute("aria-pressed") !== "true");
for (const kind of ["audio", "video"]) {
  $(DEVICES[kind]).onchange = ({ target }) => {
    chosen[kind] = target.value;
    reopen(kind);
  };
}
$("speaker").onchange = ({ target }) => chooseSpeaker(target.value);
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
$("clear").onclick = () => {
  $("message-list").replaceChildren();
  $("messages").hidden = true;
  $("no-messages").hidden = false;
  $("clear").disabled = true;
};
addEventListener("keydown", ({ key }) => { if (key === "Escape") setAlert(""); });
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
