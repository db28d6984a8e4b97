"""Pictures of any format: their pixels as stored, their size before they are decoded, their faults by reason."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samtok_data.errors import IMAGE_REASONS, RecordError, SetupError
from samtok_data.pictures import decode_picture, open_picture, picture_size, read_file, read_picture
from samtok_data.storage import Folder

HEIGHT, WIDTH = 40, 60
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_formats_without_loss_arrive_as_they_are(kind: str) -> None:
    picture = decode_picture(saved(NOISE, kind), "a", HEIGHT, WIDTH)
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), np.asarray(NOISE))
    assert picture_size(saved(NOISE, kind), "a") == (HEIGHT, WIDTH)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_modes_become_rgb(mode: str) -> None:
    data = saved(NOISE.convert(mode), "TIFF")
    assert decode_picture(data, "a", HEIGHT, WIDTH).mode == "RGB"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_a_jpeg_is_not_copied_and_outlives_its_file(kind: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(NOISE.convert(mode), kind)
    with Image.open(io.BytesIO(data)) as opened:
        wanted = opened.convert("RGB")
    monkeypatch.setattr(Image.Image, "copy", lambda _self: pytest.fail("copied"))
    picture = decode_picture(data, "a", HEIGHT, WIDTH)
    assert (picture.mode, picture.size, picture.tobytes()) == ("RGB", (WIDTH, HEIGHT), wanted.tobytes())
    assert picture.resize((7, 5)).tobytes() == wanted.resize((7, 5)).tobytes()
    assert picture.crop((-3, 2, 30, 50)).tobytes() == wanted.crop((-3, 2, 30, 50)).tobytes()


def test_the_orientation_of_exif_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    data = saved(NOISE, "JPEG", exif=exif)
    assert decode_picture(data, "a", HEIGHT, WIDTH).size == (WIDTH, HEIGHT)
    assert picture_size(data, "a") == (HEIGHT, WIDTH)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_a_channel_are_refused(dtype: type) -> None:
    data = saved(Image.fromarray(np.ones((HEIGHT, WIDTH), dtype)), "TIFF")
    with pytest.raises(RecordError, match=r"a: expected 8 bits a channel, got mode [IF]") as caught:
        decode_picture(data, "a", HEIGHT, WIDTH)
    assert caught.value.reason == "image-format"


def test_another_size_is_noticed_before_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(NOISE, "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda _self: pytest.fail("decoded"))
    with pytest.raises(RecordError, match="its masks are drawn on 41x40, the image is 60x40") as caught:
        decode_picture(data, "a", HEIGHT, WIDTH + 1 - 20)
    assert caught.value.reason == "image-size"
    assert picture_size(data, "a") == (HEIGHT, WIDTH)


def bomb() -> bytes:
    """A bitmap of 12,000 million pixels by its header."""
    data = bytearray(saved(NOISE, "BMP"))
    data[18:26] = (110_000).to_bytes(4, "little") * 2
    return bytes(data)


UNREADABLE = {
    "empty": (b"", "a: is no image (0 bytes)"),
    "text": (b"<html>404</html>", "a: is no image (16 bytes)"),
    "cut JPEG": (saved(NOISE, "JPEG")[:-400], "a: cannot be decoded: image file is truncated"),
    "cut PNG": (saved(NOISE, "PNG")[:-400], "a: cannot be decoded: "),
    "wrong checksum": (saved(NOISE, "PNG").replace(b"IDAT", b"IDAU"), "a: is no image ("),
    "bomb": (bomb(), "a: cannot be decoded: Image size (12100000000 pixels) exceeds limit"),
}


@pytest.mark.parametrize(("data", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_damaged_bytes_have_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        decode_picture(data, "a", HEIGHT, WIDTH)
    assert caught.value.reason == "image-unreadable"
    assert caught.value.reason in IMAGE_REASONS
    assert message in caught.value.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"])
def test_no_wrong_byte_ends_a_run(kind: str) -> None:
    sound, generator = saved(NOISE, kind), np.random.default_rng(1)
    refused = 0
    for _ in range(200):
        data = bytearray(sound)
        for place in generator.integers(0, min(len(data), 200), 3):
            data[place] = generator.integers(256)
        try:
            decode_picture(bytes(data), "a", HEIGHT, WIDTH)
        except RecordError:
            refused += 1
        except Warning:  # PIL's own of a strange file; an error in tests alone
            continue
    assert refused > 5


def test_a_fault_of_the_program_is_not_taken_for_one_of_the_picture() -> None:
    with pytest.raises(KeyError), open_picture(saved(NOISE, "PNG"), "a"):
        raise KeyError("ours")


def test_a_file_that_is_not_there_has_the_reason_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"b\.png: no such image under ") as caught:
        read_picture(Folder(tmp_path), "b.png", HEIGHT, WIDTH)
    assert caught.value.reason == "image-missing"
    with pytest.raises(RecordError, match=r"b\.png: no such map under ") as caught:
        read_file(Folder(tmp_path), "b.png", missing="annotation-missing", kind="map")
    assert caught.value.reason == "annotation-missing"


@pytest.mark.parametrize("name", ["a" * 300, "a.png/b.png", "folder"])
def test_a_name_that_no_file_has_is_a_missing_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError, match="no such image under ") as caught:
        read_picture(Folder(tmp_path), name, HEIGHT, WIDTH)
    assert caught.value.reason == "image-missing"


def test_a_file_system_that_fails_is_no_fault_of_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Folder, _name: str) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Folder, "read", fail)
    with pytest.raises(SetupError, match=r"a\.png cannot be read: Input/output error"):
        read_picture(Folder(tmp_path), "a.png", HEIGHT, WIDTH)
