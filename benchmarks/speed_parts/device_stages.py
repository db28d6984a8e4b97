"""The stages of the network alone, on the device, against its limits: backbone, mask encoder, quantiser, decoder.

The plain path computes as the published runs did, eager under autocast; the run's own path is the one that
``open_tokenizer`` chooses for a precision.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.speed_parts.cpu_stages import prepared_images
from benchmarks.speed_parts.limits import cost, limits, timed
from tokenizer_model import MaskTokenizer, Prepared, open_tokenizer
from tokenizer_model.config import Precision
from tokenizer_model.fast.path import FastPath
from tokenizer_model.network import normalised
from tokenizer_model.paths import NetworkPath, PlainPath

IMAGE_BATCHES = (1, 8, 16)
MASK_BATCHES = (1, 32, 128, 256)
# Of whole calls, as units make them: images, and masks of each.
_CALLS = ((8, 4), (8, 20), (8, 100))
_COUNTED_MASKS = 2


@dataclass(frozen=True, slots=True)
class _Way:
    """One way of computing the network: its name, the type of its matrix products, what computes, and whose it is."""

    name: str
    kind: str
    path: NetworkPath
    tokenizer: MaskTokenizer


def device_stages(tokenizer: str, precisions: Sequence[Precision], device: str, *, is_small: bool) -> dict[str, Any]:
    """Rates of the stages with each path, and the device's limits.

    Args:
        tokenizer: as ``open_tokenizer`` takes it.
        precisions: of the run's own path.
        device: where.
        is_small: few images and masks, to try this on a CPU.
    """
    images, masks = ((1, 2), (1, 4)) if is_small else (IMAGE_BATCHES, MASK_BATCHES)
    opened = open_tokenizer(tokenizer, device=device)
    best = limits(opened.device)
    prepared = prepared_images(opened.config, max(images), max(masks))
    rows = []
    work = _work(opened, prepared)
    for way in _ways(opened, tokenizer, precisions):
        for row in _network_rows(way, prepared, images, masks):
            rows.append(_against({**row, "way": way.name}, work.get(row["stage"]), best, way.kind))
        if way.tokenizer is not opened:
            calls = [(2, 3)] if is_small else _CALLS
            rows += [
                _against({**row, "way": way.name}, None, best, way.kind)
                for row in _calls(way.tokenizer, prepared, calls)
            ]
    rows += [_against({**row, "way": "all"}, None, best, "float32") for row in _other_rows(opened, prepared)]
    return {"limits": best, "work": {name: {"flop": flop, "eager_bytes": size} for name, (flop, size) in work.items()},
            "stages": rows}  # fmt: skip


def _ways(opened: MaskTokenizer, tokenizer: str, precisions: Sequence[Precision]) -> list[_Way]:
    """The plain path in the published type, and the run's own for each precision, where that is another one."""
    is_gpu = opened.device.type == "cuda"
    plain: Precision = "bf16" if is_gpu else "fp32"
    kinds = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    ways = [_Way(f"plain {plain}", kinds[plain], PlainPath(opened.network, plain), opened)]
    for precision in precisions:
        other = open_tokenizer(tokenizer, device=opened.device, precision=precision)
        path = path_of(other)
        if not isinstance(path, PlainPath) or precision != plain:
            kind = "plain" if isinstance(path, PlainPath) else "run's"
            ways.append(_Way(f"{kind} {precision}", kinds[precision], path, other))
    return ways


def path_of(tokenizer: MaskTokenizer) -> NetworkPath:
    """The way in which a tokenizer computes its network."""
    return tokenizer.path


@torch.inference_mode()
def _work(opened: MaskTokenizer, prepared: Sequence[Prepared]) -> dict[str, tuple[float, float]]:
    """Operations and eager bytes of each stage, for one image or one mask, in fp32."""
    network, path = opened.network, PlainPath(opened.network, "fp32")
    pixels_1SS3 = torch.tensor(prepared[0].square)[None].to(opened.device)
    features = network.image_features(normalised(pixels_1SS3))
    chosen = [(0, mask) for mask in range(_COUNTED_MASKS)]
    z_ND = path.embeddings(prepared[:1], features, chosen)
    found = {
        "backbone": cost(lambda: network.image_features(normalised(pixels_1SS3))),
        "mask encoder": cost(lambda: path.embeddings(prepared[:1], features, chosen)),
        "decoder": cost(lambda: path.logits(features, [0] * _COUNTED_MASKS, z_ND)),
    }
    parts = {"backbone": 1, "mask encoder": _COUNTED_MASKS, "decoder": _COUNTED_MASKS}
    return {name: (flop / parts[name], size / parts[name]) for name, (flop, size) in found.items()}


@torch.inference_mode()
def _network_rows(
    way: _Way, prepared: Sequence[Prepared], image_batches: Sequence[int], mask_batches: Sequence[int]
) -> list[dict[str, Any]]:
    path, device, rows, usual = way.path, way.tokenizer.device, [], way.tokenizer.sizes.images
    for batch in image_batches:
        way.tokenizer.sizes.images = batch  # else the fast path would fill the batch up
        staged = path.stage(prepared[:batch])
        seconds = timed(lambda staged=staged: path.features(staged), device)
        rows.append(_row("backbone", batch, seconds))
    way.tokenizer.sizes.images = usual
    staged = path.stage(prepared[:1])
    features = path.features(staged)
    for batch in mask_batches:
        if isinstance(path, FastPath):
            prompts = torch.empty(batch, *prepared[0].prompt(0).shape, device=device)
            call = functools.partial(path.draw, staged.images[0], slice(0, batch), prompts)
            rows.append(_row("prompts on the device", batch, timed(call, device)))
        chosen = [(0, mask) for mask in range(batch)]
        seconds = timed(lambda chosen=chosen: path.embeddings(staged, features, chosen), device)
        rows.append(_row("mask encoder", batch, seconds))
        z_ND = path.embeddings(staged, features, chosen).clone()
        owners = [0] * batch
        seconds = timed(lambda owners=owners, z_ND=z_ND: path.logits(features, owners, z_ND), device)
        rows.append(_row("decoder", batch, seconds))
    return rows


def _calls(
    tokenizer: MaskTokenizer, prepared: Sequence[Prepared], calls: Sequence[tuple[int, int]]
) -> list[dict[str, Any]]:
    """Whole calls of ``encode_prepared`` from one thread, with all that is copied and fetched."""
    rows = []
    for images, masks in calls:
        some = [with_masks(one, masks) for one in prepared[:images]]
        seconds = timed(lambda some=some: tokenizer.encode_prepared(some), tokenizer.device)
        rows.append(_row(f"whole call, {masks} masks an image", images, seconds))
    return rows


def with_masks(one: Prepared, masks: int) -> Prepared:
    """An image with its first masks only."""
    pieces = one.pieces
    columns = pieces.mask_starts[: masks + 1]
    starts = pieces.column_starts[: columns[-1] + 1]
    fewer = replace(
        pieces,
        tops=pieces.tops[: starts[-1]],
        afters=pieces.afters[: starts[-1]],
        column_starts=starts,
        mask_starts=columns,
        lefts=pieces.lefts[:masks],
        boxes=pieces.boxes[:masks],
        areas=pieces.areas[:masks],
    )
    return replace(one, pieces=fewer)


@torch.inference_mode()
def _other_rows(opened: MaskTokenizer, prepared: Sequence[Prepared]) -> list[dict[str, Any]]:
    """What is the same on all paths: prompts drawn on one core, the quantiser, and pixels brought to the device."""
    device, config = opened.device, opened.config
    one = prepared[0]
    rows = [_row("prompts on one core", one.num_masks, timed(lambda: one.prompts, torch.device("cpu"), warm_up=1))]
    z_ND = torch.randn(1024, config.hidden_size, device=device)
    calls: list[tuple[str, int, Callable[[], Any]]] = [
        ("quantiser encode", len(z_ND), lambda: opened.quantizer.encode(z_ND)),
    ]
    codes_NL = opened.quantizer.encode(z_ND)
    calls.append(("quantiser decode", len(z_ND), lambda: opened.quantizer.decode(codes_NL)))
    pixels = torch.from_numpy(np.stack([image.square for image in prepared]))
    pixels = pixels.pin_memory() if device.type == "cuda" else pixels
    calls.append(("pixels to the device", len(pixels), lambda: pixels.to(device, non_blocking=True, copy=True)))
    return [*rows, *(_row(name, number, timed(call, device)) for name, number, call in calls)]


def _row(stage: str, batch: int, seconds: float) -> dict[str, Any]:
    return {"stage": stage, "batch": batch, "ms": round(seconds * 1000, 4), "per_second": round(batch / seconds, 1)}


def _against(
    row: dict[str, Any], work: tuple[float, float] | None, best: dict[str, float], kind: str
) -> dict[str, Any]:
    """A row with its operations a second as a share of the matrix rate, and what an eager pass would move as a share of
    the copy bandwidth; more than 1 of that is what the path does not move."""
    flop, size = work or (None, None)
    rate = row["per_second"]
    peak = best.get(f"{kind}_tflops", best["float32_tflops"])
    shares = {
        "tflops": round(flop * rate / 1e12, 3) if flop else None,
        "of_matrix_rate": round(flop * rate / 1e12 / peak, 3) if flop else None,
        "eager_bytes_of_copy_rate": round(size * rate / 1e9 / best["copy_gb_per_s"], 3) if size else None,
    }
    return {"way": row["way"], **{name: value for name, value in row.items() if name != "way"}, **shares}
