"""Wire formats and state machines: pure, with no I/O, no clock and no event loop."""
