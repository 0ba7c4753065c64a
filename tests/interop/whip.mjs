// A WHIP and WHEP client made of fetch and RTCPeerConnection alone: for Node and for browsers.

export class WhipClient {
  /** How its requests were answered. */
  statuses = { post: 0, patch: [], delete: 0 };
  #candidates = [];
  #location = null;
  #patches = Promise.resolve();

  /**
   * `pc` has its tracks or transceivers already. A client that is `blind` takes no candidates from
   * the answer: the server can reach it by those alone that it sends.
   */
  constructor(pc, url, { blind = false } = {}) {
    this.pc = pc;
    this.url = url;
    this.blind = blind;
  }

  async start() {
    const { pc } = this;
    pc.onicecandidate = ({ candidate }) => {
      this.#candidates.push(candidate ? `a=${candidate.candidate}` : "a=end-of-candidates");
      if (this.#location) this.#trickle();
    };
    await pc.setLocalDescription(await pc.createOffer());
    const body = pc.localDescription.sdp.replace(/^a=candidate:.*\r\n/gm, "");
    const headers = { "Content-Type": "application/sdp" };
    const response = await fetch(this.url, { method: "POST", headers, body });
    this.statuses.post = response.status;
    if (response.status !== 201) throw new Error(`${response.status}: ${await response.text()}`);
    this.#location = new URL(response.headers.get("Location"), this.url).href;
    this.tag = response.headers.get("ETag");
    const answer = await response.text();
    const sdp = this.blind ? answer.replace(/^a=(?:candidate:.*|end-of-candidates)\r\n/gm, "") : answer;
    await pc.setRemoteDescription({ type: "answer", sdp });
    if (this.#candidates.length) this.#trickle();
  }

  /** Send the candidates gathered so far, one request after another. */
  #trickle() {
    const candidates = this.#candidates.splice(0).filter((line) => line !== "a=");
    this.#patches = this.#patches.then(() => this.patch(candidates, this.tag));
  }

  /** RFC 8840: the section all others are bundled with, and what is new. `user` for another ufrag. */
  async patch(lines, tag, user = null) {
    const { sdp } = this.pc.localDescription;
    const own = (start) => sdp.match(new RegExp(`^${start}.*$`, "m"))[0].trim();
    const body = [own("m="), own("a=mid:"), user ?? own("a=ice-ufrag:"), own("a=ice-pwd:"), ...lines, ""].join("\r\n");
    const headers = { "Content-Type": "application/trickle-ice-sdpfrag", ...(tag && { "If-Match": tag }) };
    const { status } = await fetch(this.#location, { method: "PATCH", headers, body });
    this.statuses.patch.push(status);
    return status;
  }

  async stop() {
    await this.#patches;
    const { status } = await fetch(this.#location, { method: "DELETE" });
    this.statuses.delete = status;
    return status;
  }
}
