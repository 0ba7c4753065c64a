"use strict";

// The connection's statistics, from the W3C's getStats.

const NUMBERS = ["rtt", "buffer", "loss-in", "loss-out", "response", "picture-in", "picture-out"];

class Numbers {
  constructor() {
    this.last = { received: 0, lost: 0, delay: 0, played: 0 };
  }

  /** Show a report. Loss and buffer are those of the time since the last report. */
  show(report) {
    const stats = [...report.values()];
    const all = (type) => stats.filter((s) => s.type === type);
    const [inbound, remote] = [all("inbound-rtp"), all("remote-inbound-rtp")];
    const audio = inbound.find((s) => s.kind === "audio");
    const transport = all("transport").find((s) => s.selectedCandidatePairId);
    const pair = transport
      ? report.get(transport.selectedCandidatePairId)
      : all("candidate-pair").find((s) => s.nominated && s.state === "succeeded");
    const sum = (name) => inbound.reduce((total, s) => total + (s[name] ?? 0), 0);
    const now = {
      received: sum("packetsReceived"),
      lost: sum("packetsLost"),
      delay: audio?.jitterBufferDelay ?? 0,
      played: audio?.jitterBufferEmittedCount ?? 0,
    };
    const last = this.last;
    this.last = now;
    const lost = Math.max(0, now.lost - last.lost);
    const expected = lost + now.received - last.received;
    const remoteLoss = remote.map((s) => s.fractionLost).filter((share) => share !== undefined);
    $("rtt").textContent = milliseconds(pair?.currentRoundTripTime ?? remote[0]?.roundTripTime);
    $("loss-in").textContent = percent(expected > 0 ? lost / expected : undefined);
    $("loss-out").textContent = percent(remoteLoss.length ? Math.max(...remoteLoss) : undefined);
    $("buffer").textContent = milliseconds(
      now.played > last.played ? (now.delay - last.delay) / (now.played - last.played) : undefined,
    );
    $("picture-in").textContent = picture(inbound);
    $("picture-out").textContent = picture(all("outbound-rtp"));
  }
}

function clearNumbers() {
  for (const id of NUMBERS) $(id).textContent = "–";
}

const percent = (share) => (share === undefined ? "–" : `${(share * 100).toFixed(1)} %`);
const milliseconds = (seconds) => (seconds === undefined ? "–" : `${Math.round(seconds * 1000)} ms`);

/** Size and frame rate of the video in a report. */
function picture(reports) {
  const video = reports.find((s) => s.kind === "video" && s.framesPerSecond);
  return video ? `${video.frameWidth}×${video.frameHeight}, ${Math.round(video.framesPerSecond)}/s` : "–";
}
