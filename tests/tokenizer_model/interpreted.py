"""Measures the fast path on a CPU, through Triton's interpreter, and prints what it finds as JSON.

A program of its own: Triton reads TRITON_INTERPRET when it is imported. ``test_fast_path.py`` starts it and judges.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
import triton.language as tl
from interpreted_kernels import KERNELS, learn_bfloat16
from pictures import bar, disc, drawn_image
from PIL import Image
from torch import Tensor
from triton.runtime.errors import OutOfResources

from samtok_data.masks import RLE
from tokenizer_model import SAMTOK_256X2, SMALL, Hiera, MaskTokenizer, Prepared, TokenizerConfig
from tokenizer_model.fast import attention, mask_decoder, mask_encoder, two_way
from tokenizer_model.fast import pictures as fast_pictures
from tokenizer_model.fast.path import FastPath, unsupported
from tokenizer_model.fast.two_way import Steps
from tokenizer_model.network import StillSam2
from tokenizer_model.paths import Pair, PassSizes, PlainPath
from tokenizer_model.quantizers import Codebook, ResidualQuantizer


def config_of(image_size: int, windows: tuple[int, ...], *, embed_dim: int = 24, **others: Any) -> TokenizerConfig:
    """One head at first, and a block that sees the whole image."""
    hiera = Hiera(embed_dim=embed_dim, num_heads=1, stages=(1, 2, 2, 1), global_blocks=(4,), windows=windows)
    settings: dict[str, Any] = {"backbone": hiera, "hidden_size": 128, "codebook_size": 64, "depth": 2}
    return TokenizerConfig(image_size=image_size, **settings | others)


# Windows of 64, 16 and 4 tokens.
TINY = config_of(64, (8, 4, 2, 2))
SMALLEST = config_of(32, (8, 4, 2, 1))
# Widths, heights and masks: some of all of the image, of one pixel, thin.
DRAWN: list[tuple[int, int, list[RLE]]] = [
    (45, 30, [disc(45, 30, 0.4, 0.5, 9), bar(45, 30, 3, 0, 4, 30), bar(45, 30, 44, 29, 45, 30)]),
    (15, 70, [bar(15, 70, 0, 0, 15, 70), disc(15, 70, 0.5, 0.1, 6)]),
]
CHOSEN: list[Pair] = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]


def tokenizer_of(config: TokenizerConfig) -> MaskTokenizer:
    """Initial weights, and biases and norms that are not what they begin with."""
    torch.manual_seed(0)
    tokenizer = MaskTokenizer(config).eval().requires_grad_(False)
    for parameter in tokenizer.network.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return tokenizer


def prepared_images(config: TokenizerConfig, *, is_whole: bool = False) -> list[Prepared]:
    return [
        Prepared.of(drawn_image(width, height, number / 3), masks, config, is_whole=is_whole)
        for number, (width, height, masks) in enumerate(DRAWN)
    ]


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest, in parts of the largest value."""
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    return float((found - wanted).abs().max() / wanted.abs().max())


@contextlib.contextmanager
def in_steps_of(positions: int) -> Iterator[None]:
    """What is made inside passes over the positions in steps of so many."""
    before, steps = (mask_encoder._PASSES, mask_decoder._PASSES), Steps(positions, 1)
    mask_encoder._PASSES, mask_decoder._PASSES = (replace(one, steps=(steps, steps, steps)) for one in before)
    yield
    mask_encoder._PASSES, mask_decoder._PASSES = before


def against_the_plain_path() -> dict[str, dict[str, float]]:
    """Differences in features, embeddings and logits, by the type of the products."""
    network, prepared, owners = tokenizer_of(TINY).network, prepared_images(TINY), [image for image, _ in CHOSEN]
    plain, side, found = PlainPath(network, "fp32"), TINY.embedding_side, {}
    features = plain.features(prepared)
    z_ND = plain.embeddings(prepared, features, CHOSEN)
    logits_NPP = plain.logits(features, owners, z_ND)
    apart = torch.cdist(z_ND, z_ND, p=torch.inf).fill_diagonal_(torch.inf).min() / z_ND.abs().max()
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        # In float32 the 16 positions are passed over in two parts of two blocks, else at once.
        with in_steps_of(4 if kind == torch.float32 else 16):
            fast = FastPath(network, kind, PassSizes(2, 5))
        staged = fast.stage(prepared)
        fast_features = fast.features(staged)
        embedding = fast_features.embedding.transpose(1, 2).unflatten(2, (side, side))
        found[str(kind).removeprefix("torch.")] = {
            "features": difference(embedding, features.embedding),
            "embeddings": difference(fast.embeddings(staged, fast_features, CHOSEN), z_ND),
            "logits": difference(fast.logits(fast_features, owners, z_ND), logits_NPP),
            "nearest masks": float(apart),
        }
    return found


def neighbours() -> dict[str, dict[str, bool]]:
    """Whether what a mask gives is the same to the bit, by what goes through the network with it: z, and its logits."""
    path, prepared = FastPath(tokenizer_of(TINY).network, torch.float16, PassSizes(2, 5)), prepared_images(TINY)

    def found_of(images: Sequence[int], *passes: Sequence[Pair]) -> list[tuple[Tensor, Tensor]]:
        staged = path.stage([prepared[index] for index in images])
        features = path.features(staged)
        zs = [path.embeddings(staged, features, chosen) for chosen in passes]
        owners = [[image for image, _ in chosen] for chosen in passes]
        return [(z_ND, path.logits(features, of_pass, z_ND)) for z_ND, of_pass in zip(zs, owners, strict=True)]

    def same(found: tuple[Tensor, Tensor], images: Sequence[int], chosen: Sequence[Pair]) -> dict[str, bool]:
        places = [CHOSEN.index((images[image], mask)) for image, mask in chosen]
        return {
            name: torch.equal(one, all_of_them[places])
            for name, one, all_of_them in zip(("embeddings", "logits"), found, wanted, strict=True)
        }

    fewer, shuffled = CHOSEN[3:], [(1, 1), (0, 2), (1, 0), (0, 0), (0, 1)]
    wanted, of_fewer, of_shuffled = found_of([0, 1], CHOSEN, fewer, shuffled)
    swapped = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    return {
        "fewer masks": same(of_fewer, [0, 1], fewer),
        "other order": same(of_shuffled, [0, 1], shuffled),
        "other places": same(found_of([1, 0], swapped)[0], [1, 0], swapped),
        "alone": same(found_of([1], [(0, 1)])[0], [1], [(0, 1)]),
    }


def decoder() -> dict[str, Any]:
    """The decoder's logits in float32, with its token that stands for two counted once, and by torch's modules; and
    the steps that it finds where a GPU's multiprocessors have less and less memory."""
    network, prepared, owners = tokenizer_of(SMALLEST).network, prepared_images(SMALLEST), [0, 1, 1]
    z_ND = torch.randn(3, SMALLEST.hidden_size)
    plain, fast = PlainPath(network, "fp32"), FastPath(network, torch.float32, PassSizes(2, 3))
    wanted = plain.logits(plain.features(prepared), owners, z_ND)
    features = fast.features(fast.stage(prepared))
    found: dict[str, Any] = {"as it is": difference(fast.logits(features, owners, z_ND), wanted)}
    right, attention._LN_2 = attention._LN_2, tl.constexpr(0.0)
    found["counted once"] = difference(fast.logits(features, owners, z_ND), wanted)
    attention._LN_2 = right
    levels, launch = fast._decoder.levels(features.stages, features.embedding), two_way.launch

    def fits(largest: int) -> bool:
        def small(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
            if fast._decoder._transformer.passes.steps[1].block > largest:
                raise OutOfResources(230_000, 100_000, "shared memory")

        two_way.launch = mask_decoder.launch = small
        return fast._decoder.fit(levels, torch.zeros(1, dtype=torch.int32), z_ND)

    steps = [(fits(block), [one.block for one in fast._decoder._transformer.passes.steps]) for block in (128, 64, 16)]
    two_way.launch = mask_decoder.launch = launch
    fast._decodes = False
    return {**found, "modules": difference(fast.logits(features, owners, z_ND), wanted), "steps": steps}


def ious() -> dict[str, list[list[float]]]:
    """The IoUs of masks with some logits, by the plain path and by the fast one: of passes of several kinds."""
    network, prepared = tokenizer_of(SMALLEST).network, prepared_images(SMALLEST)
    plain, fast = PlainPath(network, "fp32"), FastPath(network, torch.float32, PassSizes(2, 5))
    waves = torch.arange(SMALLEST.logit_side) * 0.9
    logits_NPP = torch.sin(waves[:, None] + torch.arange(1.0, 6.0)[:, None, None]) + torch.cos(waves * 0.7)
    passes: dict[str, list[Pair]] = {"in order": [(0, 2), (1, 0), (1, 1)], "shuffled": [(1, 1), (0, 1), (1, 0)]}
    staged = fast.stage(prepared)
    return {
        name: [
            plain.ious(prepared, chosen, logits_NPP[: len(chosen)], 0.1).tolist(),
            fast.ious(staged, chosen, logits_NPP[: len(chosen)], 0.1).tolist(),
        ]
        for name, chosen in passes.items()
    }


def pictures() -> dict[str, bool]:
    """Whether pictures that the network resizes give what Pillow's give, to the bit; Pillow's passes go by size."""
    path = FastPath(tokenizer_of(SMALLEST).network, torch.float32, PassSizes(2, 2))
    wide, high = (20, 12), (9, 40)

    def same(*images: Image.Image) -> bool:
        by_pillow, here = (
            path.features(path.stage([Prepared.of(image, [], SMALLEST, is_whole=is_whole) for image in images]))
            .embedding.clone()
            for is_whole in (False, True)
        )  # fmt: skip
        return torch.equal(by_pillow, here)

    # A plain picture does not tell which pass comes first; then one is learnt from, then it is known.
    return {
        "plain and learnt": same(Image.new("RGB", high, "#123456"), drawn_image(*wide)),
        "learnt and known": same(drawn_image(*wide, 0.2), drawn_image(*high, 0.7)),
    }


def through_the_tokenizer() -> dict[str, Any]:
    """What a tokenizer gives with and without the fast path; also when batches become smaller."""
    tokenizer, nothing = tokenizer_of(TINY), Prepared.of(drawn_image(33, 50), [], TINY)
    (z_ND, *_), _ = tokenizer.embed_prepared(prepared_images(TINY))
    for codebook in cast("ResidualQuantizer", tokenizer.quantizer).codebooks:  # rows among the embeddings
        cast("Codebook", codebook).weight.mul_(0.3).add_(torch.from_numpy(z_ND.mean(axis=0)) / 2)
    first, second = prepared_images(TINY)
    prepared = [first, nothing, second]
    decoded, other = [drawn_image(64, 64)] * 2, [np.array([[1, 2], [3, 4]]), np.array([[5, -1]])]
    plain, plain_logits = tokenizer.measure_prepared(prepared, 0.0), tokenizer.decode_logits(decoded, other)
    tokenizer.sizes = PassSizes(2, 4)
    tokenizer._fast = FastPath(tokenizer.network, torch.float32, tokenizer.sizes)
    fast, fast_logits = tokenizer.measure_prepared(prepared, 0.0), tokenizer.decode_logits(decoded, other)
    tokenizer.sizes.images, tokenizer.sizes.masks = 1, 2
    again = tokenizer.encode_prepared(prepared)
    return {
        "codes": [[one.tolist() for one in codes] for codes in (plain[0], fast[0], again)],
        "ious": [[one.tolist() for one in measured[1]] for measured in (plain, fast)],
        "logits": max(
            difference(torch.from_numpy(one), torch.from_numpy(two))
            for one, two in zip(fast_logits, plain_logits, strict=True)
        ),
    }


def reasons() -> dict[str, str | None]:
    """Why architectures are not supported; None: they are."""
    configs = {
        "tiny": TINY,
        "small": SMALL,
        "samtok": SAMTOK_256X2,
        "sam2 tiny": TokenizerConfig(backbone="tiny", image_size=1024, hidden_size=256, codebook_size=64, depth=2),
        "size": config_of(96, (8, 4, 2, 1)),
        "wide windows": config_of(64, (8, 4, 8, 2)),
        "width": config_of(64, (8, 4, 2, 2), hidden_size=96),
        "narrow": config_of(64, (8, 4, 2, 2), hidden_size=64),
        "odd": config_of(64, (8, 4, 2, 2), embed_dim=20),
    }
    even = StillSam2(TINY)
    even.image_encoder.trunk.blocks[1].dim_out = 24  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
    return {name: unsupported(StillSam2(config)) for name, config in configs.items()} | {"even": unsupported(even)}


CHECKS: dict[str, Callable[[], Any]] = {
    "plain path": against_the_plain_path,
    "neighbours": neighbours,
    "decoder": decoder,
    "ious": ious,
    "pictures": pictures,
    "tokenizer": through_the_tokenizer,
    "unsupported": reasons,
}


def measure() -> dict[str, Any]:
    """All checks, or those that the command line names."""
    torch.set_num_threads(1)
    fast_pictures._PLACES = 128  # blocks of 1,024 are slow here, and no line here fills one
    learn_bfloat16()
    with torch.inference_mode():
        chosen = {name: check for name, check in (CHECKS | KERNELS).items() if name in (sys.argv[1:] or [name])}
        return {name: check() for name, check in chosen.items()}


if __name__ == "__main__":
    json.dump(measure(), sys.stdout)
