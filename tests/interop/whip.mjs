// A WHIP and WHEP client for Node and browsers, made of fetch and RTCPeerConnection.

export class WhipClient {
  /** Response statuses of its requests. */
  statuses = { post: 0, patch: [], delete: 0 };
  #candidates = [];
  #location = null;
  #patches = Promise.resolve();

  /**
   * `pc` must have its tracks or transceivers. A `blind` client ignores the candidates in the
   * answer, so that only its own candidates can connect the call.
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

  /** Send the gathered candidates, one request at a time. */
  #trickle() {
    const candidates = this.#candidates.splice(0).filter((line) => line !== "a=");
    this.#patches = this.#patches.then(() => this.patch(candidates, this.tag));
  }

  /** RFC 8840 fragment: the bundle section and the new candidates. `user` replaces the ufrag. */
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
