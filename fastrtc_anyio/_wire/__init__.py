"""Wire formats of audio over WebSockets: FastRTC's protocol and those of telephone carriers.

A peer works with the events in :mod:`.events`. A :class:`~.events.Framing` translates between
events and the JSON messages of one protocol:

* :mod:`.fastrtc`: browsers and other clients with FastRTC's protocol
* :mod:`.twilio`, :mod:`.telnyx`, :mod:`.plivo`: one carrier each
* :mod:`.any_carrier`: detects the carrier from its first message

Shared parts: :mod:`.carrier` (base class of the carriers' framings), :mod:`.payload` (audio as
base64) and :mod:`.fields` (checks of a carrier's JSON).
Before the WebSocket comes an HTTP request: :mod:`.call_xml` answers it, and :mod:`.signatures`
verifies it.
"""
