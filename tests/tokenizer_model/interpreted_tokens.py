"""Measures the kernels that make and pool tokens on a CPU, through Triton's interpreter; prints JSON.

A program of its own: Triton reads TRITON_INTERPRET when it is imported. ``test_patches.py`` and ``test_pooling.py``
start it with the name of what they judge.
"""

from __future__ import annotations

import json
import sys

import torch
from interpreted_kernels import largest, learn_bfloat16
from tokens import PATCHES, POOLING, Made, largest_of_four, pooling_rows

from tokenizer_model.fast.patches import Patches, patch_tokens
from tokenizer_model.fast.pooling import pooled


def patches() -> dict[str, float]:
    """Differences from torch, by type and size; of a picture alone from the same among others, and of what is given."""
    found = {}
    for images, side, channels, window in PATCHES:
        made = Made.of(images, side, channels, window)
        wanted = made.wanted()
        for kind in (torch.float32, torch.float16, torch.bfloat16):
            laid_out = Patches.of(made.weight_C377, made.bias_C, made.places_FFC, window, kind)
            got = patch_tokens(made.pixels_BSS3, laid_out)
            name = f"{str(kind).removeprefix('torch.')}, {images} x {side}, {channels} channels, windows of {window}"
            found[name] = largest(got, wanted)
            out = torch.full((len(got) // images, channels), float("nan"))
            assert patch_tokens(made.pixels_BSS3[-1:], laid_out, out) is out
            found[f"same, {name}"] = float(not torch.equal(out, got[-len(out) :]))
    return found


def pooling() -> dict[str, bool]:
    """Whether it is the same as torch's to the bit."""
    found = {}
    for tokens, channels, window, wider in POOLING:
        for kind in (torch.float32, torch.float16, torch.bfloat16):
            rows_TC = pooling_rows(tokens, channels, wider, kind)
            wanted = largest_of_four(rows_TC, window)
            for of in {kind, torch.float32}:
                got = pooled(rows_TC, window, of)
                name = f"{tokens} x {channels} of {channels * wider}, windows of {window}, {kind} to {of}"
                found[name] = got.is_contiguous() and torch.equal(got, wanted.to(of))
    rows_TC = pooling_rows(16, 8, 1, torch.float16)
    rows_TC[5, 3] = float("nan")
    got = pooled(rows_TC, 4, torch.float16)
    found["NaN"] = torch.equal(got.isnan(), largest_of_four(rows_TC, 4).isnan())
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    learn_bfloat16()
    with torch.inference_mode():
        json.dump({"patches": patches, "pooling": pooling}[sys.argv[1]](), sys.stdout)
