// Play a WHEP endpoint with libwebrtc.
//
//   node whep_node.mjs URL [OPTIONS]
//
// OPTIONS is JSON: {"blind": whether to ignore the candidates in the answer}. Orders and events are
// lines of JSON as in call.mjs.

import { createInterface } from "node:readline";
import wrtc from "@roamhq/wrtc";
import { WhipClient } from "./whip.mjs";

const { RTCPeerConnection, nonstandard } = wrtc;
const [url, options = "{}"] = process.argv.slice(2);
const began = performance.now();
const report = (event, fields = {}) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
const pc = new RTCPeerConnection();
const client = new WhipClient(pc, url, JSON.parse(options));
let heard = [];

pc.onconnectionstatechange = () => {
  report("state", { state: pc.connectionState, seconds: (performance.now() - began) / 1000 });
};
pc.ontrack = ({ track }) => {
  if (track.kind !== "audio") return;
  new nonstandard.RTCAudioSink(track).ondata = ({ samples, sampleRate, channelCount }) => {
    heard.push({ samples: Int16Array.from(samples), sampleRate, channelCount });
  };
};

/** Send the audio received since the last order: interleaved little-endian samples in base64. */
function audio() {
  const { sampleRate = 48_000, channelCount = 1 } = heard.at(-1) ?? {};
  const alike = heard.filter((frame) => frame.sampleRate === sampleRate && frame.channelCount === channelCount);
  heard = [];
  const bytes = Buffer.concat(alike.map(({ samples }) => Buffer.from(samples.buffer)));
  report("audio", { sampleRate, channelCount, samples: bytes.toString("base64") });
}

const end = ["a=end-of-candidates"];
const orders = {
  audio,
  patch: async ({ tag, user }) => report("patched", { status: await client.patch(end, tag, user) }),
  statuses: () => report("statuses", client.statuses),
  stop: async () => report("stopped", { status: await client.stop() }),
};
const input = createInterface({ input: process.stdin });
input.on("line", (line) => {
  const order = JSON.parse(line);
  orders[order.order](order);
});
input.on("close", () => process.exit(0));

// Like other players, request video even if the endpoint has none.
for (const kind of ["video", "audio"]) pc.addTransceiver(kind, { direction: "recvonly" });
await client.start();
report("started", { tag: client.tag });
