"""Label maps: every label's mask at once, and what the numbers in PNG files of each kind are."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from samtok_data import masks
from samtok_data.errors import RecordError
from samtok_data.label_maps import decode_binary_map, decode_colours, decode_label_map, encode_labels, map_size

HEIGHT, WIDTH = 5, 4
label_arrays = arrays.arrays(
    np.uint32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.sampled_from([0, 1, 2, 300, 2**24 - 1]),
)


@settings(deadline=None)
@given(label_arrays, st.sampled_from([None, 0, 300, 77]))
def test_each_mask_is_the_one_that_is_encoded_alone(labels_HW: NDArray[np.uint32], void: int | None) -> None:
    before = labels_HW.copy()
    encoded = encode_labels(labels_HW, void=void)
    assert np.array_equal(labels_HW, before)
    wanted = [int(label) for label in np.unique(labels_HW) if label != void]
    assert list(encoded) == wanted
    for label, rle in encoded.items():
        assert rle == masks.encode(labels_HW == label)  # the same spelling, not only the same pixels


def test_a_map_of_void_alone_has_no_mask() -> None:
    assert encode_labels(np.zeros((3, 2), np.uint32)) == {}


def test_rows_and_columns_are_not_confused() -> None:
    labels_HW = np.array([[1, 1, 1], [2, 2, 2]], np.uint32)
    assert np.array_equal(masks.decode(encode_labels(labels_HW)[1]), [[True] * 3, [False] * 3])


def png(values_HW: NDArray[Any], *, depth: int, colour: int) -> bytes:
    """A PNG file of given bit depth and colour type: PIL writes neither 2 bits of grey nor 16 of RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values_HW.shape[:2]
    rows = values_HW.reshape(height, -1)
    if depth < 8:
        bits = (rows[..., None] >> np.arange(depth)[::-1] & 1).reshape(height, -1).astype(np.uint8)
        lines = np.packbits(bits, axis=1)
    else:
        lines = rows.astype(">u2" if depth == 16 else np.uint8).view(np.uint8)
    data = b"".join(b"\0" + line.tobytes() for line in lines)
    palette = chunk(b"PLTE", bytes([9, 9, 9] * 2 ** min(depth, 8))) if colour == 3 else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + palette + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


GREY, RGB, PALETTE = 0, 2, 3
KINDS = {
    "1 bit grey": (1, GREY),
    "2 bits grey": (2, GREY),
    "4 bits grey": (4, GREY),
    "8 bits grey": (8, GREY),
    "16 bits grey": (16, GREY),
    "1 bit palette": (1, PALETTE),
    "2 bits palette": (2, PALETTE),
    "4 bits palette": (4, PALETTE),
    "8 bits palette": (8, PALETTE),
}


@pytest.mark.parametrize(("depth", "colour"), KINDS.values(), ids=KINDS)
def test_a_label_is_the_number_in_the_file(depth: int, colour: int) -> None:
    values_HW = np.random.default_rng(depth).integers(0, 2**depth, (HEIGHT, WIDTH)).astype(np.uint32)
    values_HW[0, :2] = 0, 2**depth - 1
    labels_HW = decode_label_map(png(values_HW, depth=depth, colour=colour), "a.png", HEIGHT, WIDTH)
    assert labels_HW.dtype == np.uint32
    assert np.array_equal(labels_HW, values_HW)
    assert np.array_equal(
        decode_binary_map(png(values_HW, depth=depth, colour=colour), "a.png", HEIGHT, WIDTH), values_HW != 0
    )


def test_three_channels_are_one_number_of_24_bits() -> None:
    pixels_HWC = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels_HWC[0, 0], pixels_HWC[1, 2], pixels_HWC[4, 3] = (1, 0, 0), (0, 1, 0), (7, 21, 200)
    data = png(pixels_HWC, depth=8, colour=RGB)
    labels_HW = decode_label_map(data, "a.png", HEIGHT, WIDTH)
    assert (labels_HW[0, 0], labels_HW[1, 2], labels_HW[4, 3]) == (1, 256, 7 + 256 * 21 + 65536 * 200)
    assert np.count_nonzero(labels_HW) == 3
    assert np.array_equal(decode_binary_map(data, "a.png", HEIGHT, WIDTH), labels_HW != 0)


def saved(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


SOUND = saved(Image.new("L", (WIDTH, HEIGHT), 3))
DEEP = png(np.zeros((HEIGHT, WIDTH, 3)), depth=16, colour=RGB)
FAULTS = {
    "empty": (b"", "annotation-unreadable", "a.png: is no PNG (0 bytes)"),
    "a JPEG": (saved(Image.new("L", (WIDTH, HEIGHT)), "JPEG"), "annotation-unreadable", "a.png: is no PNG ("),
    "grey with alpha": (saved(Image.new("LA", (WIDTH, HEIGHT))), "annotation-unreadable", "got mode LA"),
    "16 bits of RGB": (DEEP, "annotation-unreadable", "a.png: expected RGB of 8 bits a channel, got 16"),
    "a wrong checksum": (SOUND.replace(b"IDAT", b"IDAU"), "annotation-unreadable", "a.png: is no PNG ("),
    "cut": (SOUND[:50], "annotation-unreadable", "a.png: cannot be decoded: "),
    "turned": (
        saved(Image.new("L", (HEIGHT, WIDTH))),
        "mask-size",
        "a.png: expected 4x5 pixels, as its image, got 5x4",
    ),
}


@pytest.mark.parametrize(("data", "reason", "message"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("decode", [decode_label_map, decode_binary_map])
def test_what_is_no_label_map_is_refused(decode: Any, data: bytes, reason: str, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        decode(data, "a.png", HEIGHT, WIDTH)
    assert caught.value.reason == reason
    assert message in caught.value.message


def test_a_large_map_of_another_size_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda _self: pytest.fail("decoded"))
    with pytest.raises(RecordError, match="expected 9x9 pixels"):
        decode_label_map(SOUND, "a.png", 9, 9)


def test_a_map_says_its_size_unless_it_claims_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda _self: pytest.fail("decoded"))
    assert map_size(SOUND, "a.png") == (HEIGHT, WIDTH)
    claims = SOUND[:16] + struct.pack(">II", 60_000, 60_000) + SOUND[24:29]
    bomb = claims + struct.pack(">I", zlib.crc32(claims[12:])) + SOUND[33:]
    large = SOUND[:16] + struct.pack(">II", 8200, 8200) + SOUND[24:29]
    for data in (b"text", bomb, large + struct.pack(">I", zlib.crc32(large[12:])) + SOUND[33:]):
        with pytest.raises(RecordError) as caught:
            map_size(data, "a.png")
        assert caught.value.reason == "annotation-unreadable"
    assert caught.value.message == "a.png: 8200x8200, more than the 67,108,864 pixels that are read"


def test_channels_are_kept_apart_where_a_format_has_its_own_rule() -> None:
    pixels_HWC = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels_HWC[1, 2] = (70, 118, 255)
    colours_CHW = decode_colours(png(pixels_HWC, depth=8, colour=RGB), "a.png", HEIGHT, WIDTH)
    assert (colours_CHW.shape, colours_CHW[:, 1, 2].tolist()) == ((3, HEIGHT, WIDTH), [70, 118, 255])
    for fault, message in ((SOUND, "expected RGB, got mode L"), (DEEP, "RGB of 8 bits a channel"), (b"", "is no PNG")):
        with pytest.raises(RecordError, match=message) as caught:
            decode_colours(fault, "a.png", HEIGHT, WIDTH)
        assert caught.value.reason == "annotation-unreadable"
    with pytest.raises(RecordError, match="expected 9x9 pixels"):
        decode_colours(SOUND, "a.png", 9, 9)


def test_a_format_without_rgb_refuses_it() -> None:
    data = png(np.zeros((HEIGHT, WIDTH, 3), np.uint8), depth=8, colour=RGB)
    with pytest.raises(RecordError, match="expected grey or a palette, got mode RGB") as caught:
        decode_label_map(data, "a.png", HEIGHT, WIDTH, is_grey=True)
    assert caught.value.reason == "annotation-unreadable"
    assert not decode_label_map(
        png(np.zeros((HEIGHT, WIDTH)), depth=8, colour=GREY), "a", HEIGHT, WIDTH, is_grey=True
    ).any()
