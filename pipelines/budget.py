"""How many records a run may lose."""

from __future__ import annotations

from collections.abc import Iterable

from samtok_data.errors import SetupError
from samtok_data.outputs import HIDDEN, UnitEntry

# Where the plan does not know the records, the rate is that of what was seen, once it is as much.
_ENOUGH = 1000


class Budget:
    """Stops a run as soon as its rejects can no longer stay within the allowed rate.

    Args:
        rate: allowed fraction of all records.
        records: of the whole run: the verdict does not depend on the order in which units finish. None: only the units
            say how many they hold; then the rate is that of the units so far, once they hold enough to tell.
    """

    def __init__(self, rate: float, records: int | None) -> None:
        self._rate, self._records, self._seen = rate, records, 0
        self._reasons: dict[str, int] = {}

    def resume(self, entries: Iterable[UnitEntry]) -> None:
        """Counts what earlier runs finished, all of it before the rate is looked at.

        Raises:
            SetupError: too many records were rejected.
        """
        for entry in entries:
            self._count(entry)
        self._check_so_far()

    def add(self, entry: UnitEntry) -> None:
        """Counts a unit.

        Raises:
            SetupError: too many records were rejected.
        """
        self._count(entry)
        self._check_so_far()

    def close(self) -> None:
        """Called when every unit is there; raises as ``add``."""
        self._check(self._seen if self._records is None else self._records)

    def _count(self, entry: UnitEntry) -> None:
        self._seen += entry.records
        for reason, number in entry.rejects.items():
            self._reasons[reason] = self._reasons.get(reason, 0) + number

    def _check_so_far(self) -> None:
        if self._records is not None or self._seen >= _ENOUGH:
            self.close()

    def _check(self, records: int) -> None:
        rejects = sum(self._reasons.values())
        if rejects > self._rate * records:
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(self._reasons.items()))
            # Where the plan does not know the records, it does not know which images were mended, either.
            again = "run again" if self._records is not None else "run again, with --retry-images after mending,"
            raise SetupError(
                f"{rejects:,} of {records:,} records were rejected ({reasons}), more than "
                f"--max-reject-rate {self._rate:g} allows. What was finished is kept; the rejects are listed in "
                f"the {HIDDEN}/rejects folders of the output. Mend the images or raise the rate and {again} to "
                "resume; after a change of the annotation files, begin anew with --overwrite"
            )
