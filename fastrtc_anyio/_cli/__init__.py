"""What ``python -m fastrtc_anyio`` can do besides the demo. Results are on stdout, as JSON with
``--json``; progress and errors on stderr."""
