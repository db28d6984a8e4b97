"""SA-1B: what is held while halves of pairs wait for each other."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from converters.masks import sa1b_pairs
from samtok_data.errors import SetupError
from tests.converters.mask_sources import jpeg, printed_by
from tests.converters.sa1b_tars import annotation, description, pair, read_tar, tar_of


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[IO[bytes]]:
    """The temporary files that were opened, where 2,000 bytes may wait in memory."""
    monkeypatch.setattr(sa1b_pairs, "_HELD_BYTES", 2000)
    files: list[IO[bytes]] = []
    make = tempfile.TemporaryFile

    def watched() -> IO[bytes]:
        files.append(make())
        return files[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", watched)
    return files


def test_halves_that_lie_far_apart_wait_on_disk(tmp_path: Path, opened: list[IO[bytes]]) -> None:
    numbers = range(1, 21)
    pictures = [(f"sa_{number}.jpg", jpeg(red=10 * number)) for number in numbers]
    texts = [pair(number)[1] for number in reversed(numbers)]
    images, rejects = read_tar(tmp_path, tar_of([*pictures, *texts]))
    assert rejects == []
    assert [image.scene.id for image in images] == [f"sa_{number}" for number in reversed(numbers)]
    for image, number in zip(images, reversed(numbers), strict=True):
        corner: Any = image.open().getpixel((0, 0))
        assert abs(corner[0] - 10 * number) < 5  # its own picture, but for the loss of a JPEG
    (file,) = opened
    assert file.closed


def test_halves_side_by_side_need_no_disk(tmp_path: Path, opened: list[IO[bytes]]) -> None:
    images, _ = read_tar(tmp_path, tar_of([half for number in range(20) for half in pair(number)]))
    assert len(images) == 20
    assert opened == []


def test_a_full_disk_names_the_folder(tmp_path: Path, opened: list[IO[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_options: object) -> IO[bytes]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(SetupError, match=r"cannot be written to .*: No space left on device; name another folder with"):
        read_tar(tmp_path, tar_of(pair(number)[0] for number in range(20)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_is_flat_over_tars_and_their_order(tmp_path: Path) -> None:
    """200 MB in four tars, one of which holds all pictures first."""
    noise = np.random.default_rng(0).integers(0, 256, 1 << 20).astype(np.uint8).tobytes()
    for tar in range(4):
        pairs = [(f"sa_{tar}{number}", description(number, annotation(number))) for number in range(50)]
        pictures = [(f"{stem}.jpg", jpeg() + noise) for stem, _ in pairs]
        texts = [(f"{stem}.json", text) for stem, text in pairs]
        apart = [*pictures, *texts] if tar == 3 else [one for both in zip(texts, pictures, strict=True) for one in both]
        (tmp_path / f"sa_00000{tar}.tar").write_bytes(tar_of(apart))
    program = """
        import sys
        from converters.masks import sa1b_pairs
        from converters.masks.registry import open_mask_source
        from tests.converters.mask_sources import peak_mib
        sa1b_pairs._HELD_BYTES = 1 << 23
        source = open_mask_source("sa1b", root=sys.argv[1], index=sys.argv[1])
        peaks = [peak_mib()]
        for unit in range(source.num_units):
            for image in source.read(unit):
                image.open()
            peaks.append(peak_mib())
        print(*peaks)
    """
    before, first, *_, last = printed_by(program, tmp_path)
    assert first - before < 30  # a tar has 52 MB
    assert last - first < 25
