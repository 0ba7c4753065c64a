// A front end assembled from FastRTC's documentation: one page with one conversation.
"use strict";

const id = `page${Math.floor(Math.random() * 1e9)}`;
const element = document.getElementById("media");
const heard = new AudioContext({ sampleRate: 24000 });
const ear = new AnalyserNode(heard, { fftSize: 4096 });
const messages = [];
const outputs = [];
let inputs = {};
let refusal = null;
let interruptions = 0;
let hangUp = () => {};

const post = (path, body) =>
  fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  }).then((response) => response.json());

const sendInputs = () => post("/input_hook", { webrtc_id: id, ...inputs });

function note(message) {
  messages.push(message);
  if (message.type === "send_input") sendInputs();
}

function readOutputs() {
  const events = new EventSource(`/outputs?webrtc_id=${id}`);
  events.addEventListener("output", ({ data }) => outputs.push(JSON.parse(data)));
  events.onerror = () => interruptions += 1;
}

/** The loudest frequency of the received audio in Hz, or 0 in silence. */
function pitch() {
  const levels = new Float32Array(ear.frequencyBinCount);
  ear.getFloatFrequencyData(levels);
  const loudest = levels.indexOf(Math.max(...levels));
  return levels[loudest] > -50 ? (loudest * heard.sampleRate) / ear.fftSize : 0;
}

/** Red, green and blue in the centre of the received picture. */
function colour() {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d");
  canvas.drawImage(element, element.videoWidth / 2, element.videoHeight / 2, 1, 1, 0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

async function callByWebRTC(wanted, trickle) {
  const pc = new RTCPeerConnection();
  const media = await navigator.mediaDevices.getUserMedia(wanted);
  for (const track of media.getTracks()) pc.addTrack(track, media);
  pc.ontrack = ({ streams }) => {
    element.srcObject = streams[0];
    if (wanted.audio) heard.createMediaStreamSource(streams[0]).connect(ear);
  };
  pc.createDataChannel("text").onmessage = ({ data }) => note(JSON.parse(data));
  hangUp = () => {
    for (const transceiver of pc.getTransceivers()) transceiver.stop?.();
    for (const { track } of pc.getSenders()) track?.stop();
    setTimeout(() => pc.close(), 500);
  };

  const gathered = new Promise((done) => {
    pc.onicecandidate = ({ candidate }) => {
      if (!candidate) return done();
      if (trickle) {
        post("/webrtc/offer", {
          type: "ice-candidate", candidate: candidate.toJSON(), webrtc_id: id,
        });
      }
    };
  });
  const offer = await pc.createOffer();
  await pc.setLocalDescription(offer);
  if (!trickle) await gathered;
  const { type, sdp } = trickle ? offer : pc.localDescription;
  const answer = await post("/webrtc/offer", { type, sdp, webrtc_id: id });
  if (answer.status === "failed") {
    refusal = answer;
    return hangUp();
  }
  await pc.setRemoteDescription(answer);
}

// The G.711 mu-law tables.
const linear = Int16Array.from({ length: 256 }, (_, code) => {
  const inverted = ~code & 255;
  const size = (((inverted & 15) << 3) + 132 << ((inverted >> 4) & 7)) - 132;
  return inverted & 128 ? -size : size;
});
const mulaw = new Uint8Array(65536);
for (let sample = -32768; sample < 32768; sample++) {
  const size = Math.min(Math.abs(sample), 32635) + 132;
  const segment = Math.floor(Math.log2(size)) - 7;
  mulaw[sample & 65535] = ~((sample < 0 ? 128 : 0) | (segment << 4) | ((size >> (segment + 3)) & 15));
}

async function callByWebSocket() {
  readOutputs(); // the server may receive either request first
  const media = await navigator.mediaDevices.getUserMedia({ audio: true });
  const source = heard.createMediaStreamSource(media);
  const socket = new WebSocket(`ws://${location.host}/websocket/offer`);
  const say = (event, more) => socket.send(JSON.stringify({ event, ...more }));
  hangUp = () => {
    say("stop");
    socket.close();
  };
  socket.onclose = ({ code }) => messages.push({ event: "close", code });
  socket.onopen = () => {
    say("start", { websocket_id: id });
    say("ping");
    const microphone = heard.createScriptProcessor(2048, 1, 1);
    microphone.onaudioprocess = ({ inputBuffer }) => {
      if (socket.readyState !== WebSocket.OPEN) return;
      const bytes = Array.from(inputBuffer.getChannelData(0), (x) =>
        mulaw[Math.max(-32768, Math.min(32767, Math.floor(x * 32768))) & 65535]);
      say("media", { media: { payload: btoa(String.fromCharCode(...bytes)) } });
    };
    source.connect(microphone).connect(heard.destination);
  };

  let end = 0;
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.event !== "media") return note(message);
    const samples = Float32Array.from(
      atob(message.media.payload), (letter) => linear[letter.charCodeAt(0)] / 32768);
    const buffer = heard.createBuffer(1, samples.length, heard.sampleRate);
    buffer.copyToChannel(samples, 0);
    const playing = new AudioBufferSourceNode(heard, { buffer });
    playing.connect(ear).connect(heard.destination);
    end = Math.max(end, heard.currentTime);
    playing.start(end);
    end += buffer.duration;
  };
}
