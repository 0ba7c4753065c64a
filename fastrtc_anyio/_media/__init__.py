"""Audio and video as pure values: no clock, no event loop."""
