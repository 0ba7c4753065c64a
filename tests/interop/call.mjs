// Call a stream with libwebrtc: send tones and pictures, record what comes back, exchange messages.
//
//   node call.mjs URL [OPTIONS]
//
// OPTIONS is JSON: {"id": the webrtc_id, "tones": [Hz for each channel; empty for no audio], "codec": the
// only codec to offer, "stereo": whether to offer stereo, "video": whether to send video}. Orders are lines
// of JSON on standard input, events are lines of JSON on standard output. The process runs until its
// standard input ends; the order to hang up ends the call.

import { createInterface } from "node:readline";
import wrtc from "@roamhq/wrtc";

const { RTCPeerConnection, nonstandard } = wrtc;
const [url, options = "{}"] = process.argv.slice(2);
const { id = "node", tones = [440], codec = null, stereo = false, video = false } = JSON.parse(options);

const RATE = 48_000;
const FRAME = RATE / 100; // libwebrtc processes 10 ms at a time
const FRAMES_KEPT = 500;
const FPS = 30;

const report = (event, fields = {}) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);

const began = performance.now();
const source = new nonstandard.RTCAudioSource();
const camera = new nonstandard.RTCVideoSource();
const pc = new RTCPeerConnection();
const channel = pc.createDataChannel("text");
let sink = null;
let heard = [];
let shown = null;
let seen = { width: 0, height: 0, data: new Uint8ClampedArray() };
let count = 0;

function speak() {
  const start = performance.now();
  let position = 0;
  return setInterval(() => {
    const due = ((performance.now() - start) / 1000) * RATE;
    while (position < due) {
      const samples = new Int16Array(FRAME * tones.length);
      for (let i = 0; i < FRAME; i += 1) {
        tones.forEach((tone, k) => {
          samples[i * tones.length + k] = 8192 * Math.sin((2 * Math.PI * tone * (position + i)) / RATE);
        });
      }
      source.onData({
        samples,
        sampleRate: RATE,
        bitsPerSample: 16,
        channelCount: tones.length,
        numberOfFrames: FRAME,
      });
      position += FRAME;
    }
  }, 10);
}

/** Remove all audio codecs but one from the offer. */
function withOnly(sdp, name) {
  const sections = sdp.split(/^(?=m=)/m);
  return sections
    .map((section) => {
      if (!section.startsWith("m=audio")) return section;
      const payload = new RegExp(`^a=rtpmap:(\\d+) ${name}/`, "im").exec(section)[1];
      return section
        .replace(/^(m=audio \S+ \S+) .*$/m, `$1 ${payload}`)
        .replace(/^a=(?:rtpmap|fmtp|rtcp-fb):(\d+) .*\r\n/gm, (line, number) => (number === payload ? line : ""));
    })
    .join("");
}

/** Add stereo=1 for Opus to the offer: RFC 7587 section 7.1. */
function withStereo(sdp) {
  const payload = /^a=rtpmap:(\d+) opus/im.exec(sdp)[1];
  return sdp.replace(new RegExp(`^(a=fmtp:${payload} .*)$`, "m"), "$1;stereo=1");
}

async function post(body) {
  const response = await fetch(`${url}/webrtc/offer`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, webrtc_id: id }),
  });
  return { status: response.status, reply: await response.json() };
}

pc.onicecandidate = ({ candidate }) => {
  if (!candidate) return;
  const { sdpMid, sdpMLineIndex } = candidate;
  post({ type: "ice-candidate", candidate: { candidate: candidate.candidate, sdpMid, sdpMLineIndex } })
    .then(({ status }) => report("candidate", { status }))
    .catch((error) => report("failed", { error: String(error) }));
};
pc.onconnectionstatechange = () => {
  report("state", { state: pc.connectionState, seconds: (performance.now() - began) / 1000 });
};
pc.ontrack = ({ track }) => {
  if (track.kind === "video") {
    new nonstandard.RTCVideoSink(track).onframe = ({ frame }) => {
      seen = frame;
      count += 1;
    };
    return;
  }
  sink = new nonstandard.RTCAudioSink(track);
  sink.ondata = ({ samples, sampleRate, channelCount }) => {
    heard.push({ samples: Int16Array.from(samples), sampleRate, channelCount });
    if (heard.length > FRAMES_KEPT) heard.shift();
  };
};
channel.onopen = () => report("channel", { state: "open" });
channel.onclose = () => report("channel", { state: "closed" });
channel.onmessage = ({ data }) => report("message", { data });

/** Send the audio received since the last order: interleaved little-endian samples in base64. */
function audio() {
  const frames = heard;
  heard = [];
  const { sampleRate = RATE, channelCount = 1 } = frames.at(-1) ?? {};
  const alike = frames.filter((frame) => frame.sampleRate === sampleRate && frame.channelCount === channelCount);
  const bytes = Buffer.concat(alike.map(({ samples }) => Buffer.from(samples.buffer)));
  report("audio", { sampleRate, channelCount, samples: bytes.toString("base64") });
}

/** Send the latest received picture, i420 in base64, and the number of pictures so far. */
function picture() {
  const { width, height, data } = seen;
  report("picture", { width, height, count, data: Buffer.from(data).toString("base64") });
}

/** Set the picture of the camera: i420 in base64. */
function show({ width, height, data }) {
  if (!shown) setInterval(() => camera.onFrame(shown), 1000 / FPS);
  shown = { width, height, data: new Uint8ClampedArray(Buffer.from(data, "base64")) };
}

/** Send the reports of getStats(). */
async function stats() {
  report("stats", { reports: [...(await pc.getStats()).values()] });
}

async function codecs() {
  const stats = [...(await pc.getStats()).values()];
  const used = (type) => {
    const stream = stats.find((entry) => entry.type === type && entry.kind === "audio");
    return stats.find((entry) => entry.id === stream?.codecId)?.mimeType ?? null;
  };
  report("codecs", { sent: used("outbound-rtp"), received: used("inbound-rtp") });
}

const orders = {
  audio,
  codecs,
  picture,
  show,
  stats,
  send: ({ text }) => channel.send(text),
  "hang-up": () => {
    sink?.stop();
    pc.close();
    report("hung-up");
  },
};
const input = createInterface({ input: process.stdin });
input.on("line", (line) => {
  const order = JSON.parse(line);
  orders[order.order](order);
});
input.on("close", () => process.exit(0));

const speaking = tones.length ? speak() : null;
if (tones.length) pc.addTrack(source.createTrack());
if (video) pc.addTrack(camera.createTrack());
let { type, sdp } = await pc.createOffer();
if (codec) sdp = withOnly(sdp, codec);
if (stereo) sdp = withStereo(sdp);
await pc.setLocalDescription({ type, sdp });
const { status, reply } = await post({ type, sdp });
if (status === 200) {
  report("answer", { offer: sdp, sdp: reply.sdp });
  await pc.setRemoteDescription(reply);
} else {
  clearInterval(speaking);
  report("refused", { status, reply });
}
