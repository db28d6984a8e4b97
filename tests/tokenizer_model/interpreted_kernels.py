"""Measures each Triton kernel against torch, numpy or Pillow; a part of ``interpreted.py``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from pictures import bar, disc, drawn_image
from torch import Tensor, nn
from triton.runtime import interpreter

from samtok_data import masks
from samtok_data.masks import RLE
from tokenizer_model.fast import functions, products
from tokenizer_model.fast.decoding import upscale
from tokenizer_model.fast.kernels import AxisTables, DevicePieces, add_norm, draw_prompts, shrink_prompts
from tokenizer_model.fast.launches import launch
from tokenizer_model.fast.overlaps import count_overlaps
from tokenizer_model.fast.pictures import BicubicTables, resize
from tokenizer_model.fast.products import linear
from tokenizer_model.fast.windows import window_attention
from tokenizer_model.pieces import MaskPieces
from tokenizer_model.prompts import Axis, draw_prompt
from tokenizer_model.resizing import BicubicAxis

_EPS = 1e-6


def largest(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, in parts of 1 or of the largest value."""
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    return float((found.double() - wanted.double()).abs().max() / max(1.0, float(wanted.abs().max())))


def sums_and_norms() -> dict[str, float]:
    """``add_norm``: the sum that is kept, and the norm."""
    found = {}
    for rows, channels in [(1, 8), (5, 24), (37, 96), (700, 48), (41, 100), (3, 4100)]:
        norm = nn.LayerNorm(channels, eps=_EPS)
        norm.weight, norm.bias = (nn.Parameter(torch.randn(channels)) for _ in range(2))
        for kinds in ([torch.float32], [torch.float32, torch.float16], [torch.float16] * 3, [torch.float32] * 3):
            terms = [(torch.randn(rows, channels) * 3 + 1).to(kind) for kind in kinds]
            wanted = terms[0].float()
            for term in terms[1:]:
                wanted = wanted + term.float()
            name = f"{rows} x {channels}, {kinds}"
            out, kept = torch.full((rows, channels), float("nan")), torch.full((rows, channels), float("nan"))
            add_norm(terms, norm, out)
            found[name] = largest(out, norm(wanted))
            add_norm(terms, norm, out, total_TC=kept)
            found[f"{name}, sum"] = largest(kept, wanted) * 1e6  # the same to the bit
            if kinds[0] == torch.float32:
                add_norm(terms, norm, out, total_TC=terms[0])
                found[f"{name}, in place"] = largest(terms[0], wanted) * 1e6
    return found


def ordered_sums() -> dict[str, float]:
    """``add_norm`` of rows in another order within each image."""
    found = {}
    for images, rows, channels in [(1, 3, 8), (3, 40, 24), (2, 16, 96)]:
        norm, order = nn.LayerNorm(channels, eps=_EPS), torch.randperm(rows)
        terms = [torch.randn(images * rows, channels), torch.randn(images * rows, channels).half()]
        wanted = (terms[0] + terms[1]).view(images, rows, channels)[:, order].view(-1, channels)
        out, kept = torch.empty(images * rows, channels), torch.empty(images * rows, channels)
        add_norm(terms, norm, out, total_TC=kept, order=order.int())
        found[f"{images} x {rows} x {channels}"] = largest(out, norm(wanted))
        found[f"{images} x {rows} x {channels}, sum"] = largest(kept, wanted) * 1e6
    return found


def products_of_rows() -> dict[str, float]:
    """``linear``, of sizes about a program's."""
    found = {}
    for rows, inner, outer in [(1, 8, 8), (128, 64, 128), (129, 144, 96), (77, 24, 136), (300, 576, 40)]:
        for kind, close in ((torch.float32, 1.0), (torch.float16, 2e-3)):
            x, weight = (torch.randn(*shape).to(kind) for shape in ((rows, inner), (outer, inner)))
            bias = torch.randn(outer).to(kind)
            wanted = F.linear(x.double(), weight.double(), bias.double())
            name = f"{rows} x {inner} x {outer}, {kind}"
            found[name] = largest(linear(x, weight, bias), wanted) * close
            found[f"{name}, GELU"] = largest(linear(x, weight, bias, is_gelu=True), F.gelu(wanted)) * close
            fetches, products._fetches_blocks = products._fetches_blocks, lambda _device: False
            found[f"{name}, in two passes"] = largest(linear(x, weight, bias, is_gelu=True), F.gelu(wanted)) * close
            found[f"{name}, by torch"] = largest(linear(x, weight, bias), wanted) * close
            products._fetches_blocks = fetches
    return found


def shrunk_prompts() -> dict[str, float]:
    """``shrink_prompts`` against the modules, whose prompts are not transposed."""
    found = {}
    for num_masks, side, inner, channels in [(1, 8, 4, 16), (3, 16, 4, 16), (2, 32, 4, 16), (2, 48, 2, 8)]:
        norm = sam_norm()
        layers = nn.Sequential(
            nn.Conv2d(1, inner, 2, stride=2), norm(inner), nn.GELU(), nn.Conv2d(inner, channels, 2, stride=2),
            norm(channels), nn.GELU(),
        )  # fmt: skip
        for parameter in layers.parameters():
            parameter.copy_(torch.randn_like(parameter))
        prompts = torch.rand(num_masks, side, side)
        out = torch.full((num_masks, (side // 4) ** 2, channels), float("nan"))
        first, second = (
            tuple(p for layer in pair for p in layer.parameters()) for pair in (list(layers)[:2], list(layers)[3:5])
        )
        shrink_prompts(prompts.transpose(1, 2).contiguous(), first, second, _EPS, out)
        wanted = layers(prompts.unsqueeze(1)).flatten(2).transpose(1, 2)
        found[f"{num_masks} x {side}, {inner}, {channels}"] = largest(out, wanted)
    return found


def sam_norm() -> type[nn.Module]:
    """The norm of sam2's prompt encoder."""
    from sam2.modeling.sam2_utils import LayerNorm2d

    return LayerNorm2d


def pieces_of(width: int, height: int) -> list[RLE]:
    """Masks of many kinds: all, one pixel, thin, noise, holes and gaps between columns."""
    rng = np.random.default_rng(width)
    gaps_HW = np.zeros((height, width), np.bool_)
    gaps_HW[:, ::3] = True
    noise_HW = rng.random((height, width)) < 0.3
    noise_HW[0, 0] = True
    return [
        bar(width, height, 0, 0, width, height),
        bar(width, height, width - 1, height - 1, width, height),
        bar(width, height, 0, height // 2, width, height // 2 + 1),
        disc(width, height, 0.5, 0.5, 1 + min(width, height) / 3),
        masks.encode(noise_HW),
        masks.encode(gaps_HW),
    ]


def tensors(pieces: MaskPieces) -> tuple[Tensor, ...]:
    """Tops, afters, column starts, mask starts and lefts."""
    parts = (pieces.tops, pieces.afters, pieces.column_starts, pieces.mask_starts, pieces.lefts)
    return tuple(torch.from_numpy(part) for part in parts)


def drawn_prompts() -> dict[str, float]:
    """``draw_prompts`` against ``draw_prompt``; all masks of an image, and some of them."""
    found = {}
    for (width, height), side in [((1, 1), 8), ((5, 40), 8), ((33, 9), 8), ((16, 16), 16)]:
        pieces = MaskPieces.of(pieces_of(width, height))
        tops, afters, columns, starts, lefts = tensors(pieces)
        rows, across = Axis.of(height, side), Axis.of(width, side)
        suffix, weights = torch.from_numpy(rows.suffix_LP), torch.from_numpy(across.weights_PL)
        for first, after in [(0, len(pieces)), (3, 4)]:
            out = torch.full((after - first, side, side), float("nan"))
            draw_prompts(
                DevicePieces(tops, afters, columns, starts[first : after + 1], lefts[first:after]), suffix,
                AxisTables(suffix, weights, across.reach), out,
            )  # fmt: skip
            wanted = np.stack([draw_prompt(pieces, mask, (height, width), side) for mask in range(first, after)])
            name = f"{width} x {height} to {side}, masks {first} to {after}"
            found[name] = largest(out.transpose(1, 2), torch.from_numpy(wanted))
    return found


def counted_overlaps() -> dict[str, float]:
    """``count_overlaps`` against pixels; logits of all kinds, all masks of an image and some of them."""
    found = {}
    for (width, height), side, first, after, threshold in [
        ((1, 1), 8, 0, 6, 0.0),
        ((5, 40), 8, 0, 6, 0.4),
        ((13, 9), 8, 1, 6, -0.3),
        ((8, 16), 16, 3, 5, 0.0),
        ((7, 5), 16, 2, 5, 0.4),
        ((7, 50), 4, 0, 6, 0.0),
        ((9, 2), 1, 0, 6, 0.0),
    ]:
        regions, size = pieces_of(width, height), (height, width)
        pieces = MaskPieces.of(regions)
        tops, afters, columns, starts, lefts = tensors(pieces)
        logits = torch.randn(len(regions), side, side)
        logits[1], logits[2] = 1.0, -1.0
        if size == (16, 8):  # exact weights: where signs meet, a logit is exactly 0
            logits[3] = logits[3].sign()
        inside = torch.stack([of_pixels(region) for region in regions])[first:after]
        counts = torch.zeros(after - first, 2, dtype=torch.int64)
        count_overlaps(
            DevicePieces(tops, afters, columns, starts[first : after + 1], lefts[first:after]),
            logits[first:after].transpose(1, 2).contiguous(), size, threshold, counts,
        )  # fmt: skip
        full = F.interpolate(logits[None, first:after], size, mode="bilinear", align_corners=False)[0] > threshold
        wanted = torch.stack([full.sum(dim=(1, 2)), (full & inside).sum(dim=(1, 2))], dim=1)
        name = f"{width} x {height} from {side}, masks {first} to {after}"
        found[name] = float((counts - wanted).abs().max())
    return found


def of_pixels(region: RLE) -> Tensor:
    """A mask as bool, (H, W)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools' own, about numpy
        return torch.from_numpy(masks.decode(region))


def resized_pictures() -> dict[str, float]:
    """``resize`` against two passes of Pillow, in steps of a pixel's value."""
    found = {}
    for (width, height), side in [((1, 1), 4), ((3, 20), 8), ((20, 3), 9), ((8, 13), 8), ((21, 15), 8)]:
        image = drawn_image(width, height)
        rows, columns = (
            BicubicTables(torch.from_numpy(axis.firsts_S), torch.from_numpy(axis.weights_SK))
            for axis in (BicubicAxis.of(height, side), BicubicAxis.of(width, side))
        )
        for is_rows_first in (False, True):
            out = torch.zeros(side, side, 3, dtype=torch.uint8)
            resize(torch.from_numpy(np.array(image)), rows, columns, out, is_rows_first=is_rows_first)
            half = image.resize((width, side) if is_rows_first else (side, height))
            wanted = torch.from_numpy(np.array(half.resize((side, side))))
            found[f"{width} x {height} to {side}, {is_rows_first}"] = float((out.int() - wanted.int()).abs().max())
    return found


def attention_in_windows() -> dict[str, float]:
    """``window_attention`` against torch's; all queries of a window and those that were pooled."""
    found = {}
    for windows, length, heads, size in [(1, 64, 1, 24), (3, 16, 2, 24), (5, 4, 3, 8), (9, 64, 2, 16), (37, 4, 1, 40)]:
        channels = heads * size
        all_three = torch.randn(windows * length, 3 * channels)
        queries, keys, values = all_three.view(windows, length, 3, heads, size).permute(2, 0, 3, 1, 4)
        wanted = F.scaled_dot_product_attention(queries, keys, values)
        got = window_attention(all_three[:, :channels], all_three, length, heads, "ieee")
        name = f"{windows} x {length}, {heads} heads of {size}"
        found[name] = largest(got, wanted.transpose(1, 2).reshape(-1, channels))
        pooled = torch.randn(windows * length // 4, channels)
        fewer = pooled.view(windows, length // 4, heads, size).transpose(1, 2)
        wanted = F.scaled_dot_product_attention(fewer, keys, values)
        got = window_attention(pooled, all_three, length, heads, "ieee")
        found[f"{name}, pooled"] = largest(got, wanted.transpose(1, 2).reshape(-1, channels))
    return found


@triton.jit
def _gelu_at(x, out, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    tl.store(out + place, functions.gelu(tl.load(x + place)))


def shared_gelu() -> dict[str, float]:
    """``functions.gelu`` in steps of the smallest and largest values, against float64."""
    found = {}
    for largest_value in (1e-3, 1.0, 5.0, 7.0, 1e4):
        x = torch.linspace(-largest_value, largest_value, 4096)
        out = torch.full_like(x, float("nan"))
        launch(_gelu_at, (1,), x, out, len(x))
        found[str(largest_value)] = largest(out, F.gelu(x.double()))
    return found


def upscaled_positions() -> dict[str, float]:
    """``upscale`` against torch's transposed convolutions, of a part of the positions too."""
    found = {}
    for num_masks, side, channels, block, parts in [
        (1, 2, 128, 4, 1),
        (3, 4, 128, 4, 2),
        (2, 4, 256, 16, 1),
        (2, 8, 128, 16, 4),
    ]:
        corner_channels, pixel_channels = channels // 4, channels // 8
        first = nn.ConvTranspose2d(channels, corner_channels, 2, stride=2, bias=False)
        second = nn.ConvTranspose2d(corner_channels, pixel_channels, 2, stride=2, bias=False)
        norm = sam_norm()(corner_channels)
        for parameter in norm.parameters():
            parameter.copy_(torch.randn_like(parameter))
        owners, vectors = torch.arange(num_masks, dtype=torch.int32) % 2, torch.randn(num_masks, pixel_channels)
        positions = torch.randn(num_masks, side**2, channels)
        middle, fine = (
            torch.randn(2, corner_channels, 2 * side, 2 * side),
            torch.randn(2, pixel_channels, 4 * side, 4 * side),
        )
        cut = middle.view(2, corner_channels, side, 2, side, 2).permute(0, 3, 5, 2, 4, 1).reshape(2, 4, side**2, -1)
        of_pixels = fine.view(2, pixel_channels, side, 2, 2, side, 2, 2).permute(0, 3, 6, 2, 5, 4, 7, 1)
        out = torch.full((num_masks, 4 * side, 4 * side), float("nan"))
        launch(
            upscale, (4, parts, num_masks), owners, positions, cut, of_pixels.reshape(2, 4, side**2, -1),
            first.weight.permute(2, 3, 0, 1).contiguous(), norm.weight, norm.bias, _EPS,
            second.weight.permute(0, 2, 3, 1).contiguous(), vectors, out,
            side**2, side**2 // parts, side, channels, block, "ieee",
        )  # fmt: skip
        image = positions.transpose(1, 2).unflatten(2, (side, side))
        wide = F.gelu(norm(first(image) + middle[owners.long()]))
        wanted = torch.einsum("nohw,no->nhw", F.gelu(second(wide) + fine[owners.long()]), vectors)
        found[f"{num_masks} x {side}, {channels} channels, {parts} parts"] = largest(out, wanted)
    return found


def learn_bfloat16() -> None:
    """The interpreter keeps bfloat16 in whole numbers of 16 bits, and multiplies those: a product needs floats."""
    product = interpreter.InterpreterBuilder.create_dot

    def widened(value: Any) -> Any:
        if value.dtype.scalar != tl.bfloat16:
            return value
        return interpreter.TensorHandle((value.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *others: Any) -> Any:
        return product(self, widened(a), widened(b), *others)

    setattr(interpreter.InterpreterBuilder, product.__name__, create_dot)


KERNELS = {
    "add_norm": sums_and_norms,
    "add_norm in order": ordered_sums,
    "linear": products_of_rows,
    "shrink_prompts": shrunk_prompts,
    "draw_prompts": drawn_prompts,
    "count_overlaps": counted_overlaps,
    "resize": resized_pictures,
    "window_attention": attention_in_windows,
    "gelu": shared_gelu,
    "upscale": upscaled_positions,
}
