"""``python -m fastrtc_anyio``: results go to stdout, progress and errors to stderr."""
