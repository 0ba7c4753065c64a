"""A telephone line that beeps and then repeats each utterance. The key # hangs up.

Set PUBLIC_URL to the address at which your carrier reaches this server. Set TWILIO_AUTH_TOKEN or
PLIVO_AUTH_TOKEN to the account's secret, or TELNYX_PUBLIC_KEY to its public key; without one the
server accepts unauthenticated calls. Enter PUBLIC_URL followed by /telephone/incoming as the
webhook of your number. The page at the printed address talks to the same handler.

Install: ``pip install 'fastrtc-anyio[server]'``
"""

import os

import numpy as np

from fastrtc_anyio import EnergyVad, ReplyOnPause, Stream, TelephoneOptions

SAMPLE_RATE = 8_000  # the rate of telephony


def beep():
    seconds = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    yield SAMPLE_RATE, (0.3 * np.sin(2 * np.pi * 660 * seconds)).astype(np.float32)


def repeat(audio):
    """Repeat an utterance; speech interrupts the repetition."""
    yield audio


class Line(ReplyOnPause):
    def on_dtmf(self, digit):
        if digit == "#":
            self.hang_up()


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
