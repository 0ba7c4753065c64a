"""A call for anybody to place: ``python -m fastrtc_anyio demo``. Needs the ``demo`` extra."""
