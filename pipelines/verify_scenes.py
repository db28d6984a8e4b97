"""Whether a scene stands in two tables of one split, at the memory of a number a scene."""

from __future__ import annotations

from collections.abc import Iterator, Set

import numpy as np
from numpy.typing import NDArray

from samtok_data.mask_table import read_table
from samtok_data.storage import Folder

# Pairs of tables that are read again to name a scene of both; of all others it is said how many there are.
_MOST_NAMED = 20


class SceneTables:
    """Which tables hold which scenes: a hash of each, as a split may have ten million of them."""

    def __init__(self) -> None:
        self._tables: list[str] = []
        self._hashes: list[NDArray[np.int64]] = []  # by table

    def add(self, table: str, scenes: Set[str]) -> None:
        """Adds a table that is sound.

        Args:
            table: name of its file.
            scenes: ids of all its scenes.
        """
        self._tables.append(table)
        self._hashes.append(np.fromiter(map(hash, scenes), np.int64, len(scenes)))

    def problems(self, folder: Folder) -> Iterator[str]:
        """One sentence for each two tables with scenes in common, of the first twenty; they are read again to name one.

        Args:
            folder: of the tables.

        Raises:
            OSError: a table could not be read.
        """
        alike = self._alike()
        for first, second in alike[:_MOST_NAMED]:
            scenes = _scenes_of(folder, first) & _scenes_of(folder, second)
            if scenes:  # other texts may have the same hash
                more = f" (and {len(scenes) - 1:,} more)" if len(scenes) > 1 else ""
                yield f"{second}: scene {min(scenes)} stands in {first} as well{more}"
        if (unnamed := len(alike) - _MOST_NAMED) > 0:
            yield f"{folder}: {unnamed:,} more pairs of tables seem to have scenes in common"

    def _alike(self) -> list[tuple[str, str]]:
        """Tables that have a hash in common, each with the next one that has it."""
        hashes_n = np.concatenate([np.empty(0, np.int64), *self._hashes])
        hashes_n.sort()
        repeated_m = np.unique(hashes_n[1:][hashes_n[1:] == hashes_n[:-1]])
        last_m = np.full(len(repeated_m), -1)  # the last table that had it
        pairs: set[tuple[int, int]] = set()
        for table, hashes in enumerate(self._hashes if len(repeated_m) else ()):
            places = np.minimum(np.searchsorted(repeated_m, hashes), len(repeated_m) - 1)
            here = places[repeated_m[places] == hashes]
            pairs |= {(first, table) for first in np.unique(last_m[here]).tolist() if first >= 0}
            last_m[here] = table
        return [(self._tables[first], self._tables[second]) for first, second in sorted(pairs)]


def _scenes_of(folder: Folder, table: str) -> set[str]:
    return {scene for batch in read_table(folder, table, ["scene"]) for scene in batch["scene"].to_pylist()}
