"""Damaged tars of SA-1B: what lies before the damage is read, and the damage is one reject."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samtok_data.errors import RecordError, SetupError
from samtok_data.storage import Folder
from tests.converters.mask_sources import HEIGHT, WIDTH, read_all
from tests.converters.sa1b_tars import BLOCK, open_sa1b, pair, read_tar, tar_of


@pytest.fixture(autouse=True, params=["this Python's tarfile", "a newer one"])
def tarfile_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Security releases of Python of 2026 (gh-141707) read headers without the public ``frombuf``."""
    if request.param == "a newer one":
        parse: Any = vars(tarfile.TarInfo)["frombuf"].__func__

        def of_file(cls: type[tarfile.TarInfo], archive: Any) -> tarfile.TarInfo:
            header = parse(cls, archive.fileobj.read(BLOCK), archive.encoding, archive.errors)
            header.offset = archive.fileobj.tell() - BLOCK
            return header._proc_member(archive)

        monkeypatch.setattr(tarfile.TarInfo, "fromtarfile", classmethod(of_file))


WHOLE = tar_of(pair(1) + pair(2) + pair(3))


def starts() -> list[int]:
    """Where the six headers of WHOLE lie, and the end mark."""
    with tarfile.open(fileobj=io.BytesIO(WHOLE)) as tar:
        return [member.offset for member in tar.getmembers()] + [tar.offset]


@pytest.mark.parametrize("length", [*starts(), *range(0, len(WHOLE), 211)])
def test_a_cut_tar_gives_what_lies_before_and_one_reject(tmp_path: Path, length: int) -> None:
    whole_pairs = sum(end <= length for end in starts()[2::2])
    if length >= starts()[-1] + BLOCK:  # the first block of the end mark is there
        assert read_tar(tmp_path, WHOLE[:length])[1] == []
        return
    images, (reject,) = read_tar(tmp_path, WHOLE[:length])
    # A member's last block is filled up; a tar that is cut within the filling has lost nothing yet.
    assert len(images) in (whole_pairs, whole_pairs + 1)
    assert [image.scene.id for image in images] == ["sa_1", "sa_2", "sa_3"][: len(images)]
    assert {image.open().size for image in images} <= {(WIDTH, HEIGHT)}
    assert (reject.key, reject.reason) == ("sa_000000.tar", "archive-damaged")
    assert f" of {length:,}: " in reject.message
    assert f"; {len(images)} pairs stood before" in reject.message
    assert reject.record == {"tar": "sa_000000.tar"}


def with_bytes(place: int, data: bytes) -> bytes:
    return WHOLE[:place] + data + WHOLE[place + len(data) :]


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


THIRD = starts()[4]
DAMAGED = {
    "a wrong header": (with_bytes(THIRD, b"?" * 20), "bad checksum"),
    "a hole of zeros at the end of a large file": (WHOLE[:THIRD] + bytes(2 << 20), " bytes behind it"),
    "more bytes than there are": (with_bytes(THIRD, header("sa_3.jpg", 10**15)), "a member of 1,000,000,000,000,000"),
    "less than no bytes": (with_bytes(THIRD, header("sa_3.jpg", -600)), ""),
    "a large long name": (
        with_bytes(THIRD, header("x", 10**12, tarfile.GNUTYPE_LONGNAME)),
        "a header's extension of 1,0",
    ),
    "large pax fields": (with_bytes(THIRD, header("x", 10**12, tarfile.XHDTYPE)), "a header's extension of 1,000"),
    "a long name without a header": (
        WHOLE[:THIRD] + header("x", 6, tarfile.GNUTYPE_LONGNAME) + b"sa_3.j" + bytes(506 + 2 * BLOCK),
        "",
    ),
    "broken pax fields": (WHOLE[:THIRD] + header("x", 6, tarfile.XHDTYPE) + b"9 abc\n" + bytes(506), ""),
}


def test_an_extension_may_not_be_large_either_where_it_is_read_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_pieces(self: tarfile.TarInfo, archive: Any) -> None:
        for _ in range(self.size // BLOCK):
            archive.fileobj.read(BLOCK)
        raise AssertionError("all of it was read")

    monkeypatch.setattr(tarfile.TarInfo, "_proc_gnulong", in_pieces)
    large = 5 << 20
    data = WHOLE[:THIRD] + header("x", large, tarfile.GNUTYPE_LONGNAME) + bytes(large) + WHOLE[THIRD:]
    images, (reject,) = read_tar(tmp_path, data)
    assert (len(images), reject.reason) == (2, "archive-damaged")
    assert "a header's extension of 4,19" in reject.message


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_sound_tar_is_read_whole(tmp_path: Path, kind: int) -> None:
    members = [("f" * 90 + "/" + "g" * 40 + name, data) for number in (1, 2) for name, data in pair(number)]
    images, rejects = read_tar(tmp_path, tar_of(members, kind))
    assert (len(images), rejects) == (2, [])


@pytest.mark.parametrize(("data", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_tar_gives_what_lies_before_and_one_reject(tmp_path: Path, data: bytes, message: str) -> None:
    images, (reject,) = read_tar(tmp_path, data)
    assert [image.scene.id for image in images] == ["sa_1", "sa_2"]
    assert (reject.key, reject.reason) == ("sa_000000.tar", "archive-damaged")
    assert message in reject.message


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_that_is_cut_in_an_extended_header_is_damaged(tmp_path: Path, kind: int) -> None:
    members = [("f" * 150 + name, data) for number in (1, 2) for name, data in pair(number)]
    whole = tar_of(members, kind)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        _, _, third, fourth, end = [*(member.offset for member in tar.getmembers()), tar.offset]
    cuts = list(range(third, fourth + 3 * BLOCK, 97))
    assert end > cuts[-1]
    for length in cuts:
        (image,), (reject,) = read_tar(tmp_path, whole[:length])
        assert image.scene.id.endswith("sa_1")
        assert reject.reason == "archive-damaged"


def test_an_archive_without_members_is_sound(tmp_path: Path) -> None:
    assert read_tar(tmp_path, tar_of([])) == ([], [])


NO_TARS = {"empty": b"", "gzip": b"\x1f\x8b" + b"x" * 2000, "html": b"<html>" * 200, "zeros": bytes(2 << 20)}


@pytest.mark.parametrize("data", NO_TARS.values(), ids=NO_TARS)
def test_a_file_that_is_no_tar_is_one_reject(tmp_path: Path, data: bytes) -> None:
    images, (reject,) = read_tar(tmp_path, data)
    assert (images, reject.reason) == ([], "archive-damaged")
    assert reject.message.startswith(f"sa_000000.tar: damaged or cut at byte 0 of {len(data):,}: ")


def test_wrong_bytes_anywhere_never_end_a_run(tmp_path: Path) -> None:
    generator, faults = np.random.default_rng(0), 0
    for _ in range(150):
        data = bytearray(WHOLE)
        for place in generator.integers(0, len(data), 5):
            data[place] = generator.integers(256)
        images, rejects = read_tar(tmp_path, bytes(data))
        faults += bool(rejects)
        for image in images:
            try:
                image.open()
            except RecordError:
                faults += 1
    assert faults > 20


def test_a_tar_that_changed_since_it_was_listed_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "sa_000000.tar").write_bytes(WHOLE)
    source = open_sa1b(tmp_path, tmp_path / "index")
    (tmp_path / "sa_000000.tar").write_bytes(WHOLE[:-BLOCK])
    with pytest.raises(SetupError, match=rf"it had {len(WHOLE):,} bytes when it was listed and has another size now"):
        list(source.read(0))
    (tmp_path / "sa_000000.tar").unlink()
    with pytest.raises(SetupError, match=r"sa_000000\.tar: cannot be read: No such file"):
        list(source.read(0))


def test_a_file_that_is_shorter_than_it_says_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sa_000000.tar").write_bytes(WHOLE)
    source = open_sa1b(tmp_path, tmp_path / "index")
    monkeypatch.setattr(Folder, "open", lambda *_: io.BytesIO(WHOLE[: THIRD + BLOCK + 100]))
    images, (reject,) = read_all(source)
    assert len(images) == 2
    assert reject.message.startswith("sa_000000.tar: damaged or cut at byte 4,971 of 10,240: unexpected end of data")


def test_a_store_may_give_less_than_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 100))

    (tmp_path / "sa_000000.tar").write_bytes(WHOLE)
    source = open_sa1b(tmp_path, tmp_path / "index")
    wanted, rejects = read_all(source)
    monkeypatch.setattr(Folder, "open", lambda *_: Slow(WHOLE))
    images, rejects_of_slow = read_all(source)
    assert rejects == rejects_of_slow == []
    assert [image.scene for image in images] == [image.scene for image in wanted]
    assert [image.open().tobytes() for image in images] == [image.open().tobytes() for image in wanted]


def test_a_file_system_that_fails_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise OSError(5, "Input/output error")
            return super().read(min(size or 0, 600))

    (tmp_path / "sa_000000.tar").write_bytes(WHOLE)
    source = open_sa1b(tmp_path, tmp_path / "index")
    monkeypatch.setattr(Folder, "open", lambda *_: Failing(WHOLE))
    with pytest.raises(SetupError, match="cannot be read: Input/output error"):
        list(source.read(0))
