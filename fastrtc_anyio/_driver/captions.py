"""Text of a reply: collected while it is generated, shown while it is played.

The client receives a caption when a sentence begins to play, and at the end the words that were
played, which also join the session's transcript.
"""

from __future__ import annotations

import math

import anyio
import numpy as np
from anyio import CancelScope
from anyio.abc import TaskGroup

from fastrtc_anyio._core.host import Lock
from fastrtc_anyio._media.frames import FRAMES_PER_SECOND, AudioFrame
from fastrtc_anyio._signaling.messages import encode_transcript
from fastrtc_anyio.conversation.heard import Line, Script
from fastrtc_anyio.session import Session
from fastrtc_anyio.speech.notes import Note, Samples, find_note, noted_arrays, on_note

ROLE = "assistant"
_KEPT_S = 0.1
"""Seconds of a reply that may be missing from playout at its end."""


class ReplyText:
    """The text of one reply.

    Args:
        session: the session of the reply.
        number: number of the reply.
        tasks: runs the task that sends the captions.
        captions: whether to send captions.
    """

    def __init__(self, session: Session, number: int, tasks: TaskGroup, *, captions: bool) -> None:
        self._session = session
        self._id = f"reply-{number}"
        self._tasks = tasks
        self._captions = captions and session.media.audio_out
        self._audio_out = session.audio_out if session.media.audio_out else None
        self._begin = 0 if self._audio_out is None else self._audio_out.position
        self._dropped = self._count_dropped()
        self._lock = Lock()  # a plain reply notes and emits on its thread
        self._script = Script()
        self._captioned = False
        self._news: anyio.Event | None = None
        self._scope = CancelScope()
        self._ended = False

    @property
    def played(self) -> int:
        """Samples of the reply that were played."""
        return 0 if self._audio_out is None else self._audio_out.position - self._begin

    @property
    def _played_s(self) -> float:
        return 0.0 if self._audio_out is None else self.played / self._audio_out.sample_rate

    def collect(self) -> None:
        """Collect the notes of the running task, of its threads and of its child tasks."""
        on_note.set(self._note)

    def _note(self, note: Note) -> None:
        with self._lock:
            self._script.note(note)

    def emit(self, value: object, frame: AudioFrame) -> None:
        """Note that the reply emits audio: the value that it yielded, and the audio in it."""
        script = self._script
        if not (script.has_notes or noted_arrays):  # the usual case without text to speech
            return
        note = find_note(_find_samples(value, frame.samples))
        with self._lock:
            dropped = self._has_dropped()
            if dropped or not script.lines:  # audio without text was not counted
                queued = self._queued_s  # first: playout may take a frame now
                script.cut(self._played_s, queued)
            script.emit(frame.duration, note)

    def complete(self) -> None:
        """Note that the reply has emitted all of its audio."""
        with self._lock:
            self._script.end()

    @property
    def _queued_s(self) -> float:
        return 0.0 if self._audio_out is None else self._audio_out.statistics().latency

    def _has_dropped(self) -> bool:
        """Whether audio was dropped since the last call, as by ``clear_queue()``."""
        before, self._dropped = self._dropped, self._count_dropped()
        return self._dropped > before

    def _count_dropped(self) -> int:
        return 0 if self._audio_out is None else self._audio_out.statistics().flushed

    def show(self) -> None:
        """Send the captions of what was emitted when it is played. Call this on the event loop."""
        lines = self._script.lines
        if not (self._captions and lines) or lines[-1].captioned:
            return
        if self._news is None:
            self._news = anyio.Event()
            self._tasks.start_soon(self._send_captions)
        self._news.set()

    async def _send_captions(self) -> None:
        with self._scope:
            while True:
                self._news = anyio.Event()
                while not self._ended and (wait := self._send_due_captions()) is not None:
                    # Playout may pause, or wait for audio: then look again a frame later.
                    await anyio.sleep(max(wait, 1 / FRAMES_PER_SECOND))
                await self._news.wait()

    def _send_due_captions(self) -> float | None:
        """Send the captions of what is played. Return the seconds to the next one, if any."""
        with self._lock:
            for line in self._script.lines:
                if not line.captioned:
                    if (wait := line.begin - self._played_s) > 0:
                        return wait
                    self._send_caption(line)
        return None

    def _send_caption(self, line: Line) -> None:
        self._captioned = line.captioned = True
        text, seconds = self._script.text_until(line), self._script.duration(line.sentence)
        details = {"sentence": line.sentence.text, "seconds": round(seconds, 3)}
        message = encode_transcript(self._id, ROLE, text, final=False, **details)
        self._session.messages.send_nowait(message)

    def end(self, *, interrupted: bool) -> str:
        """End the reply, and return the words that were played.

        They join the transcript, and the client receives them. Only the first call has an effect.
        """
        if self._ended:
            return ""
        self._ended = True
        self._scope.cancel()
        with self._lock:
            if not interrupted:
                self._script.end()
            # Filters may keep a little of a reply that was played to its end.
            whole = not interrupted and self._script.emitted - self._played_s < _KEPT_S
            text = self._script.heard(math.inf if whole else self._played_s)
            if self._audio_out is None:
                text = ""
        self._session.transcript.add(ROLE, text)
        if self._captions and (text or self._captioned):
            details = {"interrupted": True} if interrupted else {}
            message = encode_transcript(self._id, ROLE, text, **details)
            self._session.messages.send_nowait(message)
        return text


def _find_samples(value: object, samples: Samples) -> Samples:
    """Return the array in a value that a reply has yielded, before any conversion."""
    match value:
        case (_, np.ndarray() as raw, *_) | ((_, np.ndarray() as raw, *_), *_):
            return raw
        case _:
            return samples
