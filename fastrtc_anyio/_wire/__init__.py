"""What is said over WebSockets: events, and a framing for each kind of client.

:class:`~.events.Framing` is the seam. The peer speaks in events; a framing writes them as one
client's JSON and reads them back.
"""
