"""What a soak has shown, as a file of JSON. Those of several runs can be joined."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .churn import Result
from .networks import Outcome
from .video import VideoOutcome


@dataclass
class Soaked:
    """Results of one run, or of several.

    Attributes:
        clients: of clients and handlers that fail.
        audio: of audio calls over bad networks.
        video: of video calls over bad networks.
    """

    clients: list[Result] = field(default_factory=list)
    audio: list[Outcome] = field(default_factory=list)
    video: list[VideoOutcome] = field(default_factory=list)

    def failures(self) -> list[str]:
        """Return the promises that were broken."""
        found = [f"{result.backend}: {one}" for result in self.clients for one in result.failures]
        return found + _check_networks("audio", self.audio) + _check_networks("video", self.video)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), default=str), "utf-8")


def load(paths: Iterable[Path]) -> Soaked:
    """Join the results in files."""
    joined = Soaked()
    for path in paths:
        values = json.loads(path.read_text("utf-8"))
        joined.clients += [Result.load(one) for one in values["clients"]]
        joined.audio += [Outcome(**one) for one in values["audio"]]
        joined.video += [VideoOutcome.load(one) for one in values["video"]]
    return joined


def _check_networks(kind: str, outcomes: list[Outcome] | list[VideoOutcome]) -> list[str]:
    """Return the faults that no call survived as promised."""
    names = {one.fault for one in outcomes}
    kept = {one.fault for one in outcomes if one.is_as_promised}
    return [
        f"network, {kind}, {name}: {[one for one in outcomes if one.fault == name]}"
        for name in sorted(names - kept)
    ]
