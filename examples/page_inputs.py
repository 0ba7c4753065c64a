"""A handler with a slider, a checkbox and a loudness display on its page.

Run it, open the page at the printed address, talk, and move the slider meanwhile.

Install: ``pip install 'fastrtc-anyio[server]'``
"""

import anyio
import numpy as np

from fastrtc_anyio import AdditionalOutputs, AsyncStreamHandler, Checkbox, Slider, Stream, Textbox


class Amplifier(AsyncStreamHandler):
    def __init__(self) -> None:
        super().__init__()
        self.speak, self.listen = anyio.create_memory_object_stream(50)
        self.peaks = []

    async def start_up(self):
        await self.wait_for_args()  # the page sends its inputs

    async def receive(self, frame):
        await self.args_set.wait()
        rate, samples = frame
        _, volume, upside_down = self.latest_args  # always the latest
        sign = -1 if upside_down else 1
        louder = np.clip(samples * (sign * volume), -32768, 32767).astype(np.int16)
        await self.speak.send((rate, louder))
        self.peaks.append(int(np.abs(louder.astype(np.int32)).max()))
        if len(self.peaks) == 50:
            await self.speak.send(AdditionalOutputs(max(self.peaks)))
            self.peaks.clear()

    async def emit(self):
        return await self.listen.receive()

    async def shutdown(self):
        self.speak.close()
        self.listen.close()

    def copy(self):
        return Amplifier()


def show(_shown, peak):
    return f"{20 * np.log10(peak / 32768 + 1e-5):.0f} dBFS"


stream = Stream(
    Amplifier,
    modality="audio",
    mode="send-receive",
    additional_inputs=[
        Slider("Volume", 0, 4, value=1, step=0.1),
        Checkbox("Upside down"),
    ],
    additional_outputs=[Textbox("Loudness", value="Talk for a second")],
    additional_outputs_handler=show,
)

if __name__ == "__main__":
    stream.launch()
