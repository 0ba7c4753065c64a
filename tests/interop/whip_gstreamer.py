"""GStreamer's webrtcbin as a WHIP client, for the system's Python, which has its bindings.

Arguments: ``URL SECONDS FREQUENCY``. It sends a tone without trickling, then deletes its session.
"""

import sys
import urllib.parse
import urllib.request

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


def main() -> None:
    url, seconds, frequency = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    Gst.init(None)
    pipeline = Gst.parse_launch(
        f"audiotestsrc is-live=true freq={frequency} volume=0.3 ! audio/x-raw,rate=48000,channels=1"
        " ! opusenc ! rtpopuspay pt=111 ! application/x-rtp,media=audio,encoding-name=OPUS,"
        "payload=111 ! webrtcbin name=w bundle-policy=max-bundle"
    )
    webrtc = pipeline.get_by_name("w")
    webrtc.emit("get-transceiver", 0).set_property(
        "direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY
    )
    loop = GLib.MainLoop()
    location: list[str] = []

    def described(promise: Gst.Promise) -> None:
        promise.wait()
        reply = promise.get_reply()  # keep it alive: it owns its contents
        offer = reply["offer"]
        webrtc.emit("set-local-description", offer, Gst.Promise.new())

    def gathered(*_: object) -> None:
        state = webrtc.get_property("ice-gathering-state")
        if state != GstWebRTC.WebRTCICEGatheringState.COMPLETE or location:
            return
        location.append("")
        GLib.idle_add(post)

    def post() -> bool:
        offer = webrtc.get_property("local-description").sdp.as_text()
        request = urllib.request.Request(
            url, offer.encode(), {"Content-Type": "application/sdp"}, method="POST"
        )
        with urllib.request.urlopen(request) as reply:
            location[0] = urllib.parse.urljoin(url, reply.headers["Location"])
            answer = reply.read()
        _, message = GstSdp.SDPMessage.new()
        GstSdp.sdp_message_parse_buffer(answer, message)
        description = GstWebRTC.WebRTCSessionDescription.new(
            GstWebRTC.WebRTCSDPType.ANSWER, message
        )
        webrtc.emit("set-remote-description", description, Gst.Promise.new())
        GLib.timeout_add(int(1000 * seconds), finish)
        return False

    def finish() -> bool:
        with urllib.request.urlopen(urllib.request.Request(location[0], method="DELETE")) as reply:
            assert reply.status == 200
        loop.quit()
        return False

    def negotiate(element: Gst.Element) -> None:
        element.emit("create-offer", None, Gst.Promise.new_with_change_func(described))

    webrtc.connect("on-negotiation-needed", negotiate)
    webrtc.connect("notify::ice-gathering-state", gathered)
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()
    pipeline.set_state(Gst.State.NULL)


if __name__ == "__main__":
    main()
