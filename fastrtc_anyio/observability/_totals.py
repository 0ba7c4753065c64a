"""Totals of frames, drops and malformed items, read from the statistics of sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

from fastrtc_anyio._media.frames import FRAMES_PER_SECOND
from fastrtc_anyio.abc import DiscardStatistics
from fastrtc_anyio.session import Session, SessionStatistics

Values = dict[str, float]
"""Values of one counter, by the value of its label; ``""`` without a label."""
Totals = dict[tuple[str, str], float]
"""Values by the names of counters and the values of their labels."""


@dataclass(frozen=True)
class TotalFamily:
    """A counter whose values are sums over all sessions."""

    name: str
    text: str
    label: str
    values: tuple[str, ...]
    """All values of the label."""
    read: Callable[[SessionStatistics, int], Values]
    """Reads the values of a session: from its statistics, and the rate of its outgoing audio."""


def _received(now: SessionStatistics, rate: int) -> Values:
    return {
        "audio": now.audio_in.received if now.audio_in else 0,
        "video": now.video_in.received if now.video_in else 0,
    }


def _played(now: SessionStatistics, rate: int) -> Values:
    audio = now.audio_out.played if now.audio_out else 0
    return {
        "audio": audio * FRAMES_PER_SECOND / rate,
        "video": now.video_out.played if now.video_out else 0,
    }


def _missed(now: SessionStatistics, rate: int) -> Values:
    lost = now.audio_in.lost if now.audio_in else 0
    return {"audio": lost, "video": now.discarded.video}


def _concealed(now: SessionStatistics, rate: int) -> Values:
    return {"": now.audio_in.concealed_seconds * FRAMES_PER_SECOND if now.audio_in else 0}


def _recovered(now: SessionStatistics, rate: int) -> Values:
    return {"": now.audio_in.recovered_seconds * FRAMES_PER_SECOND if now.audio_in else 0}


def _underruns(now: SessionStatistics, rate: int) -> Values:
    return {"": now.audio_out.underruns if now.audio_out else 0}


def _dropped(now: SessionStatistics, rate: int) -> Values:
    trimmed = now.audio_out.trimmed if now.audio_out else 0
    return {
        "audio_in": now.audio_in.dropped if now.audio_in else 0,
        "audio_out": trimmed * FRAMES_PER_SECOND / rate,
        "video_in": now.video_in.dropped if now.video_in else 0,
        "messages_in": now.messages.dropped_in,
        "messages_out": now.messages.dropped_out,
        "outputs": now.outputs.dropped,
    }


def _discarded(now: SessionStatistics, rate: int) -> Values:
    return {name: float(count) for name, count in asdict(now.discarded).items()}


def _abandoned(now: SessionStatistics, rate: int) -> Values:
    return {"threads": now.abandoned_threads, "tasks": now.abandoned_tasks}


_MEDIA = ("audio", "video")
FAMILIES: tuple[TotalFamily, ...] = (
    TotalFamily("frames_received", "Frames received from clients.", "media", _MEDIA, _received),
    TotalFamily("frames_played", "Frames played to clients.", "media", _MEDIA, _played),
    TotalFamily("frames_missed", "Frames that were lost or damaged.", "media", _MEDIA, _missed),
    TotalFamily("frames_concealed", "Frames of audio that replace lost ones.", "", (), _concealed),
    TotalFamily(
        "frames_recovered", "Lost frames of audio decoded from redundancy.", "", (), _recovered
    ),
    TotalFamily("audio_underruns", "Times that playout ran out of audio.", "", (), _underruns),
    TotalFamily(
        "queue_dropped",
        "Items dropped from full queues.",
        "queue",
        ("audio_in", "audio_out", "video_in", "messages_in", "messages_out", "outputs"),
        _dropped,
    ),
    TotalFamily(
        "items_discarded",
        "Malformed items from and to clients.",
        "kind",
        tuple(field.name for field in fields(DiscardStatistics)),
        _discarded,
    ),
    TotalFamily(
        "abandoned", "Threads and tasks that did not end.", "kind", ("threads", "tasks"), _abandoned
    ),
)


def read_totals(session: Session) -> Totals:
    """Return the values of one session so far. Thread-safe."""
    now = session.statistics()
    rate = session.audio_out.sample_rate if session.media.audio_out else FRAMES_PER_SECOND
    return {
        (family.name, value): number
        for family in FAMILIES
        for value, number in family.read(now, rate).items()
    }


def add_totals(totals: Totals, more: Totals) -> None:
    """Add values to others in place."""
    for key, number in more.items():
        totals[key] = totals.get(key, 0) + number
