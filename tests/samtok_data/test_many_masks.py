"""Many masks at once: the same as one by one."""

from __future__ import annotations

import numpy as np
import pytest

from samtok_data import masks
from samtok_data.many_masks import areas, coco_boxes


@pytest.mark.parametrize("number", [0, 1, 255, 256, 1000])
def test_areas_and_boxes_are_those_of_each_mask(number: int) -> None:
    drawn = np.random.default_rng(number)
    rles = [masks.encode(drawn.random((drawn.integers(1, 9), drawn.integers(1, 9))) < 0.3) for _ in range(number)]
    encoded = [rle.coco for rle in rles]
    assert areas(encoded).tolist() == [masks.area(rle) for rle in rles]
    assert coco_boxes(encoded).tolist() == [list(masks.coco_box(rle)) for rle in rles]
    assert (areas(encoded).dtype, coco_boxes(encoded).shape) == (np.int64, (number, 4))
