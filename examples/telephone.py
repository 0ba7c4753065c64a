"""A telephone line: it beeps, and then repeats what the caller says. The key # hangs up.

Run it with the address that your carrier reaches it at in PUBLIC_URL, and with the account's secret
in TWILIO_AUTH_TOKEN or PLIVO_AUTH_TOKEN, or its public key in TELNYX_PUBLIC_KEY: without, anybody
can call. As the webhook of your number, enter that address followed by /telephone/incoming. Without
a number, the page it names talks to the same handler.
"""

import os

import numpy as np

from fastrtc_anyio import EnergyVad, ReplyOnPause, Stream, TelephoneOptions, get_current_context

SAMPLE_RATE = 8_000  # the telephone's own


def beep():
    seconds = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    yield SAMPLE_RATE, (0.3 * np.sin(2 * np.pi * 660 * seconds)).astype(np.float32)


def repeat(audio):
    """Called with what the caller said; speaking again interrupts it."""
    yield audio


class Line(ReplyOnPause):
    def on_dtmf(self, digit):
        if digit == "#":
            stream.update_connection(get_current_context().webrtc_id, "closed")


stream = Stream(
    Line(repeat, startup_fn=beep, model=EnergyVad(), output_sample_rate=SAMPLE_RATE),
    modality="audio",
    concurrency_limit=10,
    time_limit=600,
    telephone=TelephoneOptions(
        auth_token=os.environ.get("TWILIO_AUTH_TOKEN"),
        plivo_auth_token=os.environ.get("PLIVO_AUTH_TOKEN"),
        telnyx_public_key=os.environ.get("TELNYX_PUBLIC_KEY"),
        public_url=os.environ.get("PUBLIC_URL"),
        farewell="Goodbye.",
    ),
)

if __name__ == "__main__":
    stream.launch()
