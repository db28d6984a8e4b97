"""What the tests of the token kernels read, and what torch makes of it.

Letters: B images, S side of an image, F = S / 4 side in tokens, T tokens, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenizer_model.network import normalised

# Images, their side, channels, window: windows smaller than a program's tile, of its size and larger; fewer tiles than
# a program makes and more; channels that are one product and two, whole and not.
PATCHES = [
    (1, 64, 144, 8),
    (3, 64, 24, 4),
    (2, 32, 96, 8),
    (1, 128, 20, 16),
    (5, 64, 16, 2),
    (1, 32, 7, 1),
]
# Tokens, channels, window, and how much wider the matrix is.
POOLING = [(64, 24, 8, 1), (64, 24, 8, 3), (144, 7, 4, 3), (4, 3, 2, 1), (1024, 96, 16, 1), (36, 12, 6, 2)]


@dataclass(frozen=True, slots=True)
class Made:
    """Pictures of noise, one of them all black and white at its edges, and weights.

    Attributes:
        pixels_BSS3: uint8.
        weight_C377: of the convolution.
        bias_C: of the convolution.
        places_FFC: position encoding, with a leading axis of 1.
        window: of the tokens.
    """

    pixels_BSS3: Tensor
    weight_C377: Tensor
    bias_C: Tensor
    places_FFC: Tensor
    window: int

    @classmethod
    def of(cls, images: int, side: int, channels: int, window: int, device: str = "cpu") -> Made:
        torch.manual_seed(0)
        pixels_BSS3 = torch.randint(0, 256, (images, side, side, 3), dtype=torch.uint8)
        pixels_BSS3[0, :5], pixels_BSS3[0, :, -5:] = 0, 255
        return cls(
            pixels_BSS3.to(device),
            (torch.randn(channels, 3, 7, 7) / 12).to(device),
            torch.randn(channels).to(device),
            torch.randn(1, channels, side // 4, side // 4).permute(0, 2, 3, 1).to(device),  # as sam2 gives it
            window,
        )

    def wanted(self) -> Tensor:
        """Tokens by torch in float64, window by window: (T, C)."""
        channels, window = len(self.bias_C), self.window
        pixels_B3SS = normalised(self.pixels_BSS3, torch.float64)
        found = F.conv2d(pixels_B3SS, self.weight_C377.double(), self.bias_C.double(), stride=4, padding=3)
        places = found.permute(0, 2, 3, 1) + self.places_FFC
        around = places.shape[1] // window
        cut = places.view(-1, around, window, around, window, channels)
        return cut.transpose(2, 3).reshape(-1, channels)


def pooling_rows(tokens: int, channels: int, wider: int, kind: torch.dtype, device: str = "cpu") -> Tensor:
    """The last columns of a matrix so much wider."""
    torch.manual_seed(0)
    return torch.randn(tokens, channels * wider, device=device).to(kind)[:, channels * (wider - 1) :]


def largest_of_four(rows_TC: Tensor, window: int) -> Tensor:
    """Pooled by torch."""
    channels = rows_TC.shape[1]
    cut = rows_TC.reshape(-1, window // 2, 2, window // 2, 2, channels)
    return cut.amax(dim=(2, 4)).reshape(-1, channels)
