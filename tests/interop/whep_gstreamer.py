"""GStreamer's webrtcbin as a WHEP player, for the system's Python, which has its bindings.

Arguments: ``URL SECONDS FILE``. It trickles its candidates, writes the received audio to the file
(16 bits, 48 kHz, mono, no header), deletes its session, and prints the response statuses.
"""

import sys
import urllib.parse
import urllib.request
from typing import Any

import gi  # pyright: ignore[reportMissingImports]

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    GLib,
    Gst,
    GstSdp,
    GstWebRTC,
)

OPUS = "application/x-rtp,media=audio,encoding-name=OPUS,clock-rate=48000,payload=111"
SINK = (
    "rtpopusdepay ! opusdec ! audioconvert ! audioresample"
    " ! audio/x-raw,format=S16LE,rate=48000,channels=1 ! filesink location={}"
)


class Player:
    """One session; candidates wait until its URL is known."""

    def __init__(self, url: str, seconds: float, path: str) -> None:
        self._url, self._seconds, self._path = url, seconds, path
        self._location = self._tag = ""
        self._candidates: list[str] = []
        self.statuses: list[int] = []
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.Pipeline.new()
        self._webrtc = Gst.ElementFactory.make("webrtcbin")
        self._webrtc.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
        self.pipeline.add(self._webrtc)
        self._webrtc.connect("on-ice-candidate", self._on_candidate)
        self._webrtc.connect("notify::ice-gathering-state", self._on_gathering)
        self._webrtc.connect("pad-added", self._on_pad)
        self.pipeline.set_state(Gst.State.PLAYING)
        receive = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
        self._webrtc.emit("add-transceiver", receive, Gst.Caps.from_string(OPUS))
        promise = Gst.Promise.new_with_change_func(self._on_offer)
        self._webrtc.emit("create-offer", None, promise)

    def _on_offer(self, promise: Gst.Promise) -> None:
        promise.wait()
        reply = promise.get_reply()  # keep it alive: it owns its contents
        offer = reply["offer"]
        self._offer = offer.sdp.as_text()
        self._webrtc.emit("set-local-description", offer, Gst.Promise.new())
        GLib.idle_add(self._post)

    def _on_candidate(self, _webrtc: Gst.Element, _section: int, candidate: str) -> None:
        if candidate:
            self._candidates.append(f"a={candidate}")
            GLib.idle_add(self._patch)

    def _on_gathering(self, *_: object) -> None:
        state = self._webrtc.get_property("ice-gathering-state")
        if state == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            self._candidates.append("a=end-of-candidates")
            GLib.idle_add(self._patch)

    def _on_pad(self, _webrtc: Gst.Element, pad: Gst.Pad) -> None:
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        sink = Gst.parse_bin_from_description(SINK.format(self._path), True)
        self.pipeline.add(sink)
        sink.sync_state_with_parent()
        pad.link(sink.get_static_pad("sink"))
        GLib.timeout_add(int(1000 * self._seconds), self._finish)

    def _request(self, method: str, url: str, body: str = "", **headers: str) -> Any:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(url, body.encode() or None, names, method=method)
        reply = urllib.request.urlopen(request)
        self.statuses.append(reply.status)
        return reply

    def _post(self) -> bool:
        reply = self._request("POST", self._url, self._offer, Content_Type="application/sdp")
        self._location = urllib.parse.urljoin(self._url, reply.headers["Location"])
        self._tag = reply.headers["ETag"]
        _, message = GstSdp.SDPMessage.new()
        GstSdp.sdp_message_parse_buffer(reply.read(), message)
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        self._webrtc.emit("set-remote-description", answer, Gst.Promise.new())
        self._patch()
        return False

    def _patch(self) -> bool:
        if self._location and self._candidates:
            lines, self._candidates = self._candidates, []
            wanted = ("m=", "a=mid:", "a=ice-ufrag:", "a=ice-pwd:")
            own = [line for line in self._offer.splitlines() if line.startswith(wanted)]
            self._request(
                "PATCH",
                self._location,
                "\r\n".join([*own, *lines, ""]),
                Content_Type="application/trickle-ice-sdpfrag",
                If_Match=self._tag,
            )
        return False

    def _finish(self) -> bool:
        self._request("DELETE", self._location)
        self.loop.quit()
        return False


def main() -> None:
    Gst.init(None)
    player = Player(sys.argv[1], float(sys.argv[2]), sys.argv[3])
    player.loop.run()
    player.pipeline.set_state(Gst.State.NULL)
    print(*player.statuses)


if __name__ == "__main__":
    main()
