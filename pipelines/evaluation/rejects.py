"""What could not be measured: all of it counted by reason, and listed up to a number."""

from __future__ import annotations

from typing import Any

from samtok_data.rejects import Reject

MOST_LISTED = 1000


class RejectLog:
    """The rejects of one source.

    Args:
        most_listed: so many are kept as they are; those that come later are counted only.
    """

    def __init__(self, most_listed: int = MOST_LISTED) -> None:
        self._most_listed = most_listed
        self._listed: list[Reject] = []
        self._counts: dict[str, int] = {}

    def add(self, reject: Reject) -> None:
        """Counts one, and lists it if there is room."""
        self._counts[reject.reason] = self._counts.get(reject.reason, 0) + 1
        if len(self._listed) < self._most_listed:
            self._listed.append(reject)

    def __len__(self) -> int:
        return sum(self._counts.values())

    @property
    def by_reason(self) -> dict[str, int]:
        """How many of each reason, the most frequent first, equal ones by name."""
        return dict(sorted(self._counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def text(self) -> str:
        """The counts in one line, e.g. ``2 image-missing, 1 mask-empty``."""
        return ", ".join(f"{number:,} {reason}" for reason, number in self.by_reason.items())

    @property
    def json(self) -> dict[str, Any]:
        """Number, numbers by reason, and the list, as JSON values."""
        listed = [
            {"key": reject.key, "reason": reject.reason, "message": reject.message, "record": reject.record}
            for reject in self._listed
        ]
        return {"number": len(self), "by_reason": self.by_reason, "listed": listed}
