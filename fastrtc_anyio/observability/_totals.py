"""Totals of frames, drops and malformed items, read from the statistics of sessions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from fastrtc_anyio._media.frames import FRAMES_PER_SECOND
from fastrtc_anyio.abc import DiscardStatistics
from fastrtc_anyio.session import Session

Totals = dict[tuple[str, str], float]
"""Values by the names of counters and the values of their labels; ``""`` without a label."""


@dataclass(frozen=True)
class TotalFamily:
    """A counter whose values are sums over all sessions."""

    name: str
    text: str
    label: str = ""
    values: tuple[str, ...] = ("",)
    """All values of the label."""


_MEDIA = ("audio", "video")
_QUEUES = ("audio_in", "audio_out", "video_in", "messages_in", "messages_out", "outputs")
_DISCARDED = tuple(field.name for field in fields(DiscardStatistics))

FAMILIES: tuple[TotalFamily, ...] = (
    TotalFamily("frames_received", "Frames received from clients.", "media", _MEDIA),
    TotalFamily("frames_played", "Frames played to clients.", "media", _MEDIA),
    TotalFamily("frames_missed", "Frames that were lost or damaged.", "media", _MEDIA),
    TotalFamily("frames_concealed", "Frames of audio that replace lost ones."),
    TotalFamily("frames_recovered", "Lost frames of audio decoded from redundancy."),
    TotalFamily("audio_underruns", "Times that playout ran out of audio."),
    TotalFamily("queue_dropped", "Items dropped from full queues.", "queue", _QUEUES),
    TotalFamily("items_discarded", "Malformed items from and to clients.", "kind", _DISCARDED),
    TotalFamily("abandoned", "Threads and tasks that did not end.", "kind", ("threads", "tasks")),
)


def read_totals(session: Session) -> Totals:
    """Return the values of one session so far, without those of media that it does not have.

    Thread-safe.
    """
    now = session.statistics()
    totals: Totals = {
        ("frames_missed", "video"): now.discarded.video,
        ("queue_dropped", "messages_in"): now.messages.dropped_in,
        ("queue_dropped", "messages_out"): now.messages.dropped_out,
        ("queue_dropped", "outputs"): now.outputs.dropped,
        ("abandoned", "threads"): now.abandoned_threads,
        ("abandoned", "tasks"): now.abandoned_tasks,
    }
    for kind, count in asdict(now.discarded).items():
        totals["items_discarded", kind] = count
    if (audio_in := now.audio_in) is not None:
        totals["frames_received", "audio"] = audio_in.received
        totals["frames_missed", "audio"] = audio_in.lost
        totals["frames_concealed", ""] = audio_in.concealed_seconds * FRAMES_PER_SECOND
        totals["frames_recovered", ""] = audio_in.recovered_seconds * FRAMES_PER_SECOND
        totals["queue_dropped", "audio_in"] = audio_in.dropped
    if (audio_out := now.audio_out) is not None:
        rate = session.audio_out.sample_rate
        totals["frames_played", "audio"] = audio_out.played * FRAMES_PER_SECOND / rate
        totals["audio_underruns", ""] = audio_out.underruns
        totals["queue_dropped", "audio_out"] = audio_out.trimmed * FRAMES_PER_SECOND / rate
    if (video_in := now.video_in) is not None:
        totals["frames_received", "video"] = video_in.received
        totals["queue_dropped", "video_in"] = video_in.dropped
    if (video_out := now.video_out) is not None:
        totals["frames_played", "video"] = video_out.played
    return totals


def add_totals(totals: Totals, more: Totals) -> None:
    """Add values to others in place."""
    for key, number in more.items():
        totals[key] = totals.get(key, 0) + number
