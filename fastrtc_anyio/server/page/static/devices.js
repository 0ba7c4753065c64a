"use strict";

// The microphone, the camera and the speaker.

const DEVICES = { audio: "microphone", video: "camera" };
const chosen = { audio: "", video: "" };  // ids of the selected devices; "" is the browser's default
// Browsers mix stereo down to mono before they cancel echo or noise. A stereo source is more often an instrument or a
// line input than a voice in front of a loudspeaker.
const STEREO = { channelCount: 2, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
const USUAL = {
  audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  video: { facingMode: "user", width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } },
};

const VOLUME_KEY = "fastrtc_anyio.volume";

let handlerIsStereo = false;  // from the latest answer

const wantsStereo = () => handlerIsStereo || Boolean(config?.stereo);

/** The constraints for the microphone or the camera. */
function constraintsFor(kind) {
  const given = config?.track_constraints ?? {};
  // `track_constraints` holds either one entry for each kind, or the constraints of one kind: video, if there is any.
  const sorted = "audio" in given || "video" in given;
  const single = plan.kinds.includes("video") ? "video" : "audio";
  const own = sorted ? given[kind] : kind === single ? given : null;
  const asked = own && Object.keys(own).length ? own : null;
  const wanted = kind === "audio" && wantsStereo() ? { ...STEREO, ...asked } : asked ?? USUAL[kind];
  if (!chosen[kind]) return wanted;
  const { facingMode, ...others } = wanted;  // overridden by the selection
  return { ...others, deviceId: { exact: chosen[kind] } };
}

async function openDevices(kinds) {
  if (!navigator.mediaDevices) throw new CallError(insecure(kinds));
  try {
    return await navigator.mediaDevices.getUserMedia(Object.fromEntries(kinds.map((kind) => [kind, constraintsFor(kind)])));
  } catch (error) {
    throw new CallError(await deviceProblem(error, kinds));
  }
}

const insecure = (kinds) =>
  `Browsers allow ${named(kinds)} only on secure pages: open this page over https, or on localhost.`;

/** The text to show for a device that could not be opened. */
async function deviceProblem(error, kinds) {
  const without = (some) => (some.includes("video") && plan.sends.includes("audio") ? ", or turn the camera off" : "");
  switch (error.name) {
    case "NotAllowedError": {
      const blocked = await blockedOf(kinds);
      return `${capital(named(blocked))} ${blocked.length > 1 ? "are" : "is"} blocked. Allow ${them(blocked)} for this `
        + "page in the browser's site settings, then try again.";
    }
    case "NotFoundError": {
      const missing = await missingOf(kinds);
      return `No ${missing.map((kind) => DEVICES[kind]).join(" and no ")} was found. `
        + `Plug ${missing.length > 1 ? "them" : "one"} in${without(missing)}, then try again.`;
    }
    case "OverconstrainedError":
      return error.constraint === "deviceId" || !error.constraint
        ? `${capital(named(kinds))} you selected is no longer available. Select another one.`
        : `${capital(named(kinds))} does not support a required setting: ${error.constraint}.`;
    case "NotReadableError":
      return `${capital(named(kinds))} could not be opened. Another program may be using ${them(kinds)}.`;
    default:
      return `${capital(named(kinds))} could not be opened: ${error.message}`;
  }
}

/** The kinds of device that the browser blocks, or all of them if it does not say. */
async function blockedOf(kinds) {
  const states = await Promise.all(kinds.map(async (kind) => {
    try {
      return (await navigator.permissions.query({ name: DEVICES[kind] })).state;
    } catch {
      return "denied";  // this browser has no such permission name
    }
  }));
  const blocked = kinds.filter((_, i) => states[i] === "denied");
  return blocked.length ? blocked : kinds;
}

async function missingOf(kinds) {
  const devices = await navigator.mediaDevices.enumerateDevices();
  const missing = kinds.filter((kind) => !devices.some((device) => device.kind === `${kind}input`));
  return missing.length ? missing : kinds;
}

async function listDevices(kind, current = $(DEVICES[kind]).value) {
  if (!navigator.mediaDevices || !plan.sends.includes(kind)) return;
  const devices = await navigator.mediaDevices.enumerateDevices();
  const options = devices
    // Devices have neither id nor label before the first permission.
    .filter((device) => device.kind === `${kind}input` && device.deviceId && device.label)
    .map((device) => new Option(device.label, device.deviceId));
  if (!options.length) return;
  const has = (id) => options.some((option) => option.value === id);
  if (!has(chosen[kind])) chosen[kind] = "";  // it was unplugged
  $(DEVICES[kind]).replaceChildren(...options);
  if (has(current)) $(DEVICES[kind]).value = current;
}

/** List the speakers, in browsers that let a page select one. */
async function listSpeakers() {
  const can = plan.receives.includes("audio") && "setSinkId" in HTMLMediaElement.prototype && navigator.mediaDevices;
  const devices = can ? await navigator.mediaDevices.enumerateDevices() : [];
  const options = devices
    .filter((device) => device.kind === "audiooutput" && device.deviceId && device.label)
    .map((device) => new Option(device.label, device.deviceId));
  $("device-speaker").hidden = !options.length;
  if (!options.length) return;
  const current = $("speaker").value;
  $("speaker").replaceChildren(...options);
  if (options.some((option) => option.value === current)) $("speaker").value = current;
}

async function chooseSpeaker(id) {
  try {
    await $("audio").setSinkId(id);
  } catch (error) {
    setAlert(`Could not switch to this speaker: ${error.message}`);
  }
}

function stop(stream) {
  for (const track of stream?.getTracks() ?? []) {
    track.onended = null;
    track.stop();
  }
}

const named = (kinds) => [...kinds].reverse().map((kind) => `the ${DEVICES[kind]}`).join(" and ");
const them = (kinds) => (kinds.length > 1 ? "them" : "it");
const capital = (text) => text[0].toUpperCase() + text.slice(1);

/** Set the volume of the assistant, from 0 to 100. */
function setVolume(percent) {
  for (const id of ["audio", "remote"]) $(id).volume = percent / 100;
  $("volume").value = percent;
  $("volume").setAttribute("aria-valuetext", `${percent} %`);
}

/** Keep the volume for later visits. */
function keepVolume(percent) {
  try {
    localStorage.setItem(VOLUME_KEY, percent);
  } catch { /* a frame without storage */ }
}

/** The volume of the last visit. */
function keptVolume() {
  try {
    const percent = Number(localStorage.getItem(VOLUME_KEY) ?? 100);
    return percent >= 0 && percent <= 100 ? percent : 100;
  } catch {
    return 100;
  }
}

/** Whether the page can set the volume. On iOS only the keys of the device can. */
function canSetVolume() {
  const probe = new Audio();
  probe.volume = 0.5;
  return probe.volume === 0.5;
}
