"""A real call that anybody can place: ``python -m fastrtc_anyio demo``. Needs the ``demo`` extra."""
