"""How much of a decoded mask lies in the mask that it was made from, at full size, from that mask's pieces.

Letters: n masks of an image, H and W of the image, P side of the logits.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tokenizer_model.inputs import Prepared

# Pixels of decoded masks, four bytes each and some more, that stand at once.
_PIXELS_AT_ONCE = 1 << 25


def intersections_over_unions(logits_nPP: Tensor, prepared: Prepared, masks: range, threshold: float) -> Tensor:
    """The IoU of masks with what is decoded of them.

    Logits are resized to the image, bilinear, corners not aligned, and cut. Whole numbers of pixels are counted, so the
    result does not depend on the device but for the logits' last bits.

    Args:
        logits_nPP: of some masks.
        prepared: the image with its masks.
        masks: which of its masks they are.
        threshold: a pixel is foreground where its logit is above this.

    Returns:
        float64, (n,), 0 to 1, on the logits' device.
    """
    at_once = max(1, _PIXELS_AT_ONCE // (prepared.size[0] * prepared.size[1]))
    parts = [
        _ious(logits_nPP[start : start + at_once], prepared, masks[start : start + at_once], threshold)
        for start in range(0, len(masks), at_once)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64, device=logits_nPP.device)


def _ious(logits_nPP: Tensor, prepared: Prepared, masks: range, threshold: float) -> Tensor:
    (height, width), pieces, device = prepared.size, prepared.pieces, logits_nPP.device
    full_nHW = F.interpolate(logits_nPP[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    # Running sums down each column: then what lies in a piece is the difference of two of them.
    sums_nHW = F.pad(torch.cumsum(full_nHW > threshold, dim=1, dtype=torch.int32), (0, 0, 1, 0))
    decoded_n = sums_nHW[:, -1].sum(dim=1)
    columns = pieces.mask_starts[masks.start : masks.stop + 1]
    ends = pieces.column_starts[columns]
    first, last = int(ends[0]), int(ends[-1])
    starts_k = _moved(pieces.column_starts[columns[0] : columns[-1] + 1], device)
    column_r = torch.repeat_interleave(torch.arange(len(starts_k) - 1, device=device), starts_k.diff())
    mask_starts = _moved(columns - columns[0], device)
    mask_r = torch.searchsorted(mask_starts, column_r, right=True) - 1
    lefts_n = _moved(pieces.lefts[masks.start : masks.stop], device)
    x_r = column_r - mask_starts[mask_r] + lefts_n[mask_r]
    tops_r = _moved(pieces.tops[first:last], device)
    afters_r = _moved(pieces.afters[first:last], device)
    inside_r = (sums_nHW[mask_r, afters_r, x_r] - sums_nHW[mask_r, tops_r, x_r]).long()
    common_n = torch.zeros(len(masks), dtype=torch.int64, device=device).index_add_(0, mask_r, inside_r)
    areas_n = _moved(pieces.areas[masks.start : masks.stop], device)
    return common_n.double() / (areas_n + decoded_n - common_n).double()


def _moved(numbers: NDArray[np.integer], device: torch.device) -> Tensor:
    # A copy: what comes from another process cannot be written to, and torch takes such arrays with a warning.
    return torch.tensor(numbers, dtype=torch.int64, device=device)
