"""The mask tokenizer: laws that hold for any weights, shown on the embedded one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pictures import bar, disc, drawn_image
from PIL import Image

from samtok_data import masks
from samtok_data.masks import RLE
from tokenizer_model import LOGIT_THRESHOLD, SMALL, MaskTokenizer, open_tokenizer
from tokenizer_model.paths import PlainPath


def photos() -> tuple[list[Image.Image], list[list[RLE]]]:
    """Three images of three sizes with 3, 0 and 2 masks, one of a single pixel."""
    images = [drawn_image(160, 120), drawn_image(90, 150, 0.4), drawn_image(64, 64, 0.8)]
    regions = [
        [disc(160, 120, 0.3, 0.4, 25), bar(160, 120, 0, 0, 160, 120), bar(160, 120, 159, 119, 160, 120)],
        [],
        [disc(64, 64, 0.7, 0.6, 12), bar(64, 64, 4, 20, 60, 24)],
    ]
    return images, regions


@contextmanager
def counted(module: torch.nn.Module) -> Iterator[list[int]]:
    """The batch sizes of a module's passes."""
    sizes: list[int] = []
    hook = module.register_forward_hook(lambda _module, arguments, _output: sizes.append(len(arguments[0])))
    yield sizes
    hook.remove()


def test_each_image_gets_one_row_of_codes_for_each_mask(small: MaskTokenizer) -> None:
    codes = small.encode(*photos())
    assert [(array.shape, array.dtype) for array in codes] == [
        ((3, 2), np.int64),
        ((0, 2), np.int64),
        ((2, 2), np.int64),
    ]
    for array in codes:
        for row in array:
            small.vocabulary.format(row)


def test_codes_are_the_same_alone_and_in_company(small: MaskTokenizer) -> None:
    images, regions = photos()
    together = small.encode(images, regions)
    for image, of_image, codes in zip(images, regions, together, strict=True):
        np.testing.assert_array_equal(small.encode([image], [of_image])[0], codes)
        for rle, row in zip(of_image, codes, strict=True):
            np.testing.assert_array_equal(small.encode([image], [[rle]])[0][0], row)
    again = small.encode(images[::-1], regions[::-1])[::-1]
    assert [array.tolist() for array in again] == [array.tolist() for array in together]


def test_an_image_costs_one_backbone_pass_and_one_without_masks_none(small: MaskTokenizer) -> None:
    images, regions = photos()
    with counted(small.network.image_encoder) as images_seen, counted(small.network.sam_mask_encoder) as masks_seen:
        small.encode(images, regions)
    assert (images_seen, masks_seen) == ([2], [5])  # masks of both images in one pass
    with counted(small.network.image_encoder) as images_seen:
        small.encode(images, [[], [], []])
    assert images_seen == []


def test_batches_hold_no_more_than_they_are_told_to() -> None:
    tokenizer = open_tokenizer("small", image_batch=2, mask_batch=3)
    image, rle = drawn_image(64, 64), disc(64, 64, 0.5, 0.5, 9)
    regions = [[rle], [], [rle] * 4, [rle], [rle]]
    with (
        counted(tokenizer.network.image_encoder) as images_seen,
        counted(tokenizer.network.sam_mask_encoder) as masks_seen,
    ):
        codes = tokenizer.encode([image] * 5, regions)
    assert (images_seen, masks_seen) == ([2, 2], [3, 2, 2])
    assert [len(array) for array in codes] == [1, 0, 4, 1, 1]
    assert len({tuple(row) for array in codes for row in array}) == 1


def test_the_codes_are_those_of_the_embeddings(small: MaskTokenizer) -> None:
    z, codes = small.embed(*photos())
    assert [array.shape for array in z] == [(3, 128), (0, 128), (2, 128)]
    for z_ND, codes_NL in zip(z, codes, strict=True):
        np.testing.assert_array_equal(small.quantizer.encode(torch.from_numpy(z_ND)).numpy(), codes_NL)


def test_the_embedding_is_what_sams_own_box_and_mask_prompts_give(small: MaskTokenizer) -> None:
    image, rle = drawn_image(160, 120), disc(160, 120, 0.3, 0.4, 25)
    (z_ND,), _ = small.embed([image], [[rle]])
    net = small.network
    pixels = np.asarray(image.resize((512, 512)), np.float32) / 255
    pixels = (pixels - np.array([0.485, 0.456, 0.406], np.float32)) / np.array([0.229, 0.224, 0.225], np.float32)
    y_N, x_N = np.nonzero(masks.decode(rle))
    box = torch.tensor([[x_N.min() / 160, y_N.min() / 120, x_N.max() / 160, y_N.max() / 120]]).float() * 512
    prompt = torch.from_numpy(masks.decode(rle).astype(np.float32))[None, None]
    prompt = F.interpolate(prompt, (128, 128), mode="bilinear", antialias=True)
    with torch.inference_mode():
        last = net.image_encoder(torch.from_numpy(pixels.transpose(2, 0, 1))[None])["backbone_fpn"][-1]
        corners, dense = net.sam_prompt_encoder(points=None, boxes=box, masks=prompt)
        padding = net.sam_prompt_encoder.not_a_point_embed.weight[None]
        token = net.sam_mask_encoder.mask_tokens.weight[None]
        source = last + net.no_mem_embed.view(1, -1, 1, 1) + dense
        tokens, _ = net.sam_mask_encoder.transformer(
            source, net.sam_prompt_encoder.get_dense_pe(), torch.cat([token, corners, padding], 1)
        )
    np.testing.assert_allclose(z_ND, tokens[:, 0].numpy(), rtol=1e-3, atol=1e-3)


def test_the_decoder_takes_the_mask_with_the_best_predicted_iou(small: MaskTokenizer) -> None:
    image = drawn_image(160, 120)
    codes_NL = np.array([[1, 2], [200, 90], [17, 255]])
    (logits_NPP,) = small.decode_logits([image], [codes_NL])
    assert (logits_NPP.shape, logits_NPP.dtype) == ((3, 128, 128), np.float32)
    net, rows = small.network, small.quantizer.state_dict()
    pixels = PlainPath(net, "fp32").features([small.prepare(image)])
    for logits_PP, (first, second) in zip(logits_NPP, codes_NL, strict=True):
        embedding = rows["codebooks.0.weight"][first] + rows["codebooks.1.weight"][second]
        empty = net.sam_prompt_encoder.not_a_point_embed.weight
        with torch.inference_mode():
            masks_14PP, ious_14, *_ = net.sam_mask_decoder.predict_masks(
                image_embeddings=pixels.embedding,
                image_pe=net.sam_prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=torch.cat([empty, empty, embedding[None]])[None],
                dense_prompt_embeddings=net.sam_prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1).expand(
                    1, -1, 32, 32
                ),
                repeat_image=False,
                high_res_features=[pixels.fine, pixels.middle],
            )
        best = 1 + int(ious_14[0, 1:].argmax())
        np.testing.assert_allclose(logits_PP, masks_14PP[0, best].numpy(), rtol=1e-3, atol=1e-3)


def test_decoded_masks_have_the_size_of_their_image(small: MaskTokenizer) -> None:
    images, _ = photos()
    codes = [np.array([[1, 2]]), np.empty((0, 2), np.int64), np.array([[3, 4], [5, 6]])]
    with counted(small.network.image_encoder) as images_seen:
        decoded = small.decode(images, codes)
    assert images_seen == [2]
    assert [(array.shape, array.dtype) for array in decoded] == [
        ((1, 120, 160), np.bool_),
        ((0, 150, 90), np.bool_),
        ((2, 64, 64), np.bool_),
    ]


def test_masks_are_the_resized_logits_above_the_threshold(small: MaskTokenizer) -> None:
    image, codes = drawn_image(160, 120), np.array([[1, 2], [30, 40]])
    (logits_NPP,) = small.decode_logits([image], [codes])
    full = F.interpolate(torch.from_numpy(logits_NPP)[None], (120, 160), mode="bilinear", align_corners=False)[0]
    assert LOGIT_THRESHOLD == 0.5
    for threshold in (0.5, float(full.median())):
        (decoded,) = small.decode([image], [codes], threshold)
        np.testing.assert_array_equal(decoded, (full > threshold).numpy())
    assert 0 < decoded.mean() < 1


def test_a_missing_code_is_not_code_zero_and_the_callers_array_stays_as_it_was(small: MaskTokenizer) -> None:
    image, codes = drawn_image(64, 64), np.array([[3, -1], [3, 0], [3, -1]])
    before = codes.copy()
    (logits_NPP,) = small.decode_logits([image], [codes])
    np.testing.assert_allclose(logits_NPP[0], logits_NPP[2], rtol=1e-4, atol=1e-4)
    assert np.abs(logits_NPP[0] - logits_NPP[1]).max() > 1e-2
    np.testing.assert_array_equal(codes, before)


def test_reconstructing_is_encoding_and_decoding_on_one_backbone_pass(small: MaskTokenizer) -> None:
    images, regions = photos()
    with counted(small.network.image_encoder) as images_seen:
        codes, decoded = small.reconstruct(images, regions)
    assert images_seen == [2]
    for one, other in zip(codes, small.encode(images, regions), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(decoded, small.decode(images, codes), strict=True):
        assert (one.shape, one.dtype) == (other.shape, np.bool_)
        assert not one.size or (one != other).mean() < 1e-3  # pixels on the very edge of the threshold


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_an_image_of_any_mode_is_read_as_rgb(small: MaskTokenizer, mode: str) -> None:
    image, regions = drawn_image(64, 64).convert(mode), [[disc(64, 64, 0.5, 0.5, 9)]]
    np.testing.assert_array_equal(small.encode([image], regions)[0], small.encode([image.convert("RGB")], regions)[0])


def test_a_mask_of_another_size_is_refused(small: MaskTokenizer) -> None:
    good, wrong = disc(64, 48, 0.5, 0.5, 9), disc(48, 64, 0.5, 0.5, 9)
    with pytest.raises(ValueError, match="region 1: expected a mask of the image's size 64x48, got 48x64"):
        small.encode([drawn_image(64, 48)], [[good, wrong]])


def test_an_empty_mask_is_refused(small: MaskTokenizer) -> None:
    with pytest.raises(ValueError, match="region 0: expected a mask with foreground pixels, got an empty one"):
        small.encode([drawn_image(64, 64)], [[bar(64, 64, 0, 0, 0, 0)]])


def test_images_and_what_belongs_to_them_are_as_many(small: MaskTokenizer) -> None:
    with pytest.raises(ValueError, match="expected a list of regions for each of 1 images, got 2"):
        small.encode([drawn_image(64, 64)], [[], []])
    with pytest.raises(ValueError, match="expected codes for each of 1 images, got 0"):
        small.decode([drawn_image(64, 64)], [])


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.array([[1, 2, 3]]), r"codes of image 0: expected whole numbers of shape \(n, 2\), got int64 of shape"),
        (np.array([[1.0, 2.0]]), r"expected whole numbers of shape \(n, 2\), got float64 of shape \(1, 2\)"),
        (np.array([[1, 256]]), r"codes of image 0: expected 0\.\.255 or -1, got 256"),
        (np.array([[-2, 1]]), r"codes of image 0: expected 0\.\.255 or -1, got -2"),
    ],
    ids=["three levels", "floats", "too large", "too small"],
)
def test_codes_that_cannot_be_are_refused(small: MaskTokenizer, codes: np.ndarray, message: str) -> None:
    with counted(small.network.image_encoder) as images_seen, pytest.raises(ValueError, match=message):
        small.decode([drawn_image(64, 64)], [codes])
    assert images_seen == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_batch": 0}, "image_batch and mask_batch must be at least 1, got 0, 32"),
        ({"mask_batch": 0}, "image_batch and mask_batch must be at least 1, got 4, 0"),
        ({"precision": "fp8"}, "precision must be one of fp32, fp16, bf16, got 'fp8'"),
    ],
    ids=["images", "masks", "precision"],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskTokenizer(SMALL, **settings)


def test_no_gradients_are_kept(small: MaskTokenizer) -> None:
    assert not small.training
    assert not any(parameter.requires_grad for parameter in small.parameters())


def test_measured_ious_are_those_of_the_decoded_masks(small: MaskTokenizer) -> None:
    images, regions = photos()
    prepared = [small.prepare(image, of_image) for image, of_image in zip(images, regions, strict=True)]
    codes, ious = small.measure_prepared(prepared)
    wanted_codes, decoded = small.reconstruct_prepared(prepared)
    for of_image, codes_nL, ious_n, wanted_nL, masks_nHW in zip(
        regions, codes, ious, wanted_codes, decoded, strict=True
    ):
        np.testing.assert_array_equal(codes_nL, wanted_nL)
        wanted = [
            masks.intersection_over_union(masks.decode(rle), mask_HW)
            for rle, mask_HW in zip(of_image, masks_nHW, strict=True)
        ]
        np.testing.assert_allclose(ious_n, wanted, rtol=0, atol=1e-12)
        assert ious_n.dtype == np.float64


def test_half_precision_gives_codes_too() -> None:
    tokenizer = open_tokenizer("small")
    tokenizer.precision = "bf16"  # opened on a CPU it would be refused; autocast itself works there
    images, regions = photos()
    codes, decoded = tokenizer.reconstruct(images, regions)
    assert [array.shape for array in codes] == [(3, 2), (0, 2), (2, 2)]
    assert [array.shape for array in decoded] == [(3, 120, 160), (0, 150, 90), (2, 64, 64)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_embeddings_of_the_cpu(small: MaskTokenizer) -> None:
    images, regions = photos()
    for ours, theirs in zip(
        open_tokenizer("small", device="cuda").embed(images, regions)[0], small.embed(images, regions)[0], strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
