"""Random choice of what a source gives, the same on every machine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def drawn(items: Sequence[Item], number: int | None, *, seed: int, key: str) -> list[Item]:
    """At most so many of some things, none twice, in the order in which they stand.

    Args:
        items: to choose from.
        number: at least 1; None: all of them.
        seed: of the source.
        key: of the scene, the video, or what else is chosen within: each has a choice of its own.
    """
    if number is None or number >= len(items):
        return list(items)
    places = random.Random(f"{seed}/{key}").sample(range(len(items)), number)
    return [items[place] for place in sorted(places)]
