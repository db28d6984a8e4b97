"""Many masks at once: what ``samtok_data.masks`` says of one mask, without a Python call for each.

Letters: n masks, c characters and r runs of all of them, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

# pycocotools keeps the number of masks in 8 bits for a moment, and numpy 2 refuses the 256th.
_MASKS_PER_CALL = 255


def areas(encoded: Sequence[Any]) -> NDArray[np.int64]:
    """Foreground pixels.

    Args:
        encoded: as ``RLE.coco`` gives them. Strings from a file go through ``faults`` first: pycocotools reads beyond
            the end of some that are damaged.

    Returns:
        (n,).
    """
    masks: Any = list(encoded)
    parts = [coco.area(masks[at : at + _MASKS_PER_CALL]) for at in range(0, len(masks), _MASKS_PER_CALL)]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


def coco_boxes(encoded: Sequence[Any]) -> NDArray[np.int32]:
    """Boxes as ``masks.coco_box``: x, y, width, height in pixels; zeros for an empty mask.

    Args:
        encoded: as for ``areas``.

    Returns:
        (n, 4).
    """
    masks: Any = list(encoded)
    return np.asarray(coco.toBbox(masks)).astype(np.int32).reshape(-1, 4)
