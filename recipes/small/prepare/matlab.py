"""What needs scipy, which is no dependency of the project: .mat files and connected components."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtok_data.errors import SetupError
from samtok_data.masks import Mask


def read_mat(data: bytes) -> dict[str, Any]:
    """The variables of a .mat file."""
    return _scipy("io").loadmat(io.BytesIO(data))


def components(labels_HW: NDArray[Any], void: tuple[int, ...], min_pixels: int) -> list[Mask]:
    """Connected regions (4 neighbours) of each label, by label and then from top left.

    Args:
        labels_HW: numbers, shape (H, W).
        void: labels that are no region.
        min_pixels: smaller regions are left out.
    """
    label = _scipy("ndimage").label
    found = []
    for value in np.unique(labels_HW):
        if value in void:
            continue
        parts, num_parts = label(labels_HW == value)
        sizes = np.bincount(parts.ravel())
        found += [parts == part for part in range(1, num_parts + 1) if sizes[part] >= min_pixels]
    return found


def _scipy(part: str) -> Any:
    try:
        return importlib.import_module(f"scipy.{part}")
    except ModuleNotFoundError as error:
        raise SetupError("reading .mat files and finding connected regions needs scipy: pip install scipy") from error
