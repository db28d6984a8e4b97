"""Frames of video files: which are given, how they are turned, and where a damaged file ends."""

from __future__ import annotations

import builtins
import errno
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from converters.masks.videos import video_frames
from converters.masks.videos.video_frames import open_video
from samtok_data.errors import RecordError, SetupError
from samtok_data.storage import Folder
from tests.converters.mask_sources import HEIGHT, WIDTH, printed_by
from tests.converters.video_sources import number_of, video


def frames_of(folder: Path, wanted: Sequence[int], name: str = "v.mp4") -> dict[int, Image.Image]:
    with open_video(Folder(folder), name) as opened:
        return dict(opened.frames(wanted))


def test_wanted_frames_are_given_in_order(tmp_path: Path) -> None:
    video(tmp_path / "v.mp4", 50)
    found = frames_of(tmp_path, [0, 7, 8, 49])
    assert list(found) == [0, 7, 8, 49]
    assert [number_of(picture) for picture in found.values()] == [0, 7, 8, 49]
    assert {(picture.size, picture.mode) for picture in found.values()} == {((WIDTH, HEIGHT), "RGB")}
    assert frames_of(tmp_path, []) == {}


def test_the_header_says_how_many_frames_there_are(tmp_path: Path) -> None:
    video(tmp_path / "v.mp4", 50)
    with open_video(Folder(tmp_path), "v.mp4") as opened:
        assert opened.num_frames == 50


def test_a_shorter_video_gives_what_it_has(tmp_path: Path) -> None:
    video(tmp_path / "v.mp4", 10)
    assert list(frames_of(tmp_path, [4, 9, 10, 40])) == [4, 9]


def test_only_wanted_frames_are_converted_and_none_behind_them_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video(tmp_path / "v.mp4", 60)
    shown, decoded = [], []
    show, decode = video_frames._shown, video_frames.OpenVideo._decoded

    def counted(self: Any) -> Any:
        for frame in decode(self):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(video_frames, "_shown", lambda frame, name: shown.append(name) or show(frame, name))
    monkeypatch.setattr(video_frames.OpenVideo, "_decoded", counted)
    frames_of(tmp_path, [3, 20])
    assert (len(shown), len(decoded)) == (2, 21)


@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_a_video_is_turned_as_players_show_it(tmp_path: Path, turn: int) -> None:
    video(tmp_path / "v.mp4", 1, turn=turn)
    path = tmp_path / "half.mp4"
    pixels = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    pixels[:8, :8] = 230  # the stored picture's top left corner
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if turn:
            stream.set_display_rotation(turn)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    picture = frames_of(tmp_path, [0], "half.mp4")[0]
    assert picture.size == ((WIDTH, HEIGHT) if turn in (0, 180) else (HEIGHT, WIDTH))
    grey = np.asarray(picture.convert("L"))
    corners = {(row, column): grey[row, column] > 128 for row in (0, -1) for column in (0, -1)}
    bright = {0: (0, 0), 90: (-1, 0), 180: (-1, -1), -90: (0, -1)}[turn]  # counter-clockwise
    assert [corner for corner, is_bright in corners.items() if is_bright] == [bright]


NO_VIDEOS: dict[str, bytes] = {
    "empty": b"",
    "text": b"#EXTM3U\n#EXTINF:1,\nhttp://localhost/secret.mp4\n#EXT-X-ENDLIST\n",
    "html": b"<html>" * 300,
    "zeros": bytes(5000),
}


@pytest.mark.parametrize("data", NO_VIDEOS.values(), ids=NO_VIDEOS)
def test_what_is_no_video_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "v.mp4").write_bytes(data)
    with pytest.raises(RecordError, match=r"v\.mp4: ") as caught:
        frames_of(tmp_path, [0])
    assert caught.value.reason == "video-unreadable"


def test_other_formats_are_not_guessed(tmp_path: Path) -> None:
    """libav would open a picture, a playlist or a list of other files under this name."""
    Image.new("RGB", (8, 8)).save(tmp_path / "v.mp4", "PNG")
    with pytest.raises(RecordError):
        frames_of(tmp_path, [0])


def test_a_file_without_video_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        for packet in stream.encode(_silence()):
            container.mux(packet)
        container.mux(stream.encode())
    with pytest.raises(RecordError, match="no video stream") as caught:
        frames_of(tmp_path, [0])
    assert caught.value.reason == "video-unreadable"


def _silence() -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 8000
    return frame


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Place and bytes of each frame's data."""
    with av.open(str(path)) as container:
        return [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]


def until_error(folder: Path) -> tuple[dict[int, bytes], str]:
    """The frames that are given before a file turns out to be damaged, and the reason."""
    found: dict[int, bytes] = {}
    with open_video(Folder(folder), "v.mp4") as opened:
        try:
            for number, picture in opened.frames(range(50)):
                found[number] = picture.tobytes()
        except RecordError as error:
            return found, error.reason
    return found, "none"


@pytest.mark.parametrize("frame", [0, 1, 25])
def test_what_stands_before_a_cut_is_given(tmp_path: Path, frame: int) -> None:
    path = video(tmp_path / "v.mp4", 50, noise=9)
    right, _ = until_error(tmp_path)
    place, size = packets_of(path)[frame]
    path.write_bytes(path.read_bytes()[: place + size // 2])
    assert until_error(tmp_path) == ({number: right[number] for number in range(frame)}, "video-unreadable")


@pytest.mark.parametrize("frame", [6, 13, 24])
@pytest.mark.parametrize("byte", [0x00, 0xFF])
def test_frames_behind_damaged_data_are_not_given(tmp_path: Path, frame: int, byte: int) -> None:
    """libav hides a damage with a picture of its own making, and draws the frames behind it upon that."""
    path = video(tmp_path / "v.mp4", 40, noise=40)
    right, _ = until_error(tmp_path)
    assert len(right) == 40
    place, size = packets_of(path)[frame]
    data = bytearray(path.read_bytes())
    data[place + size // 3 : place + size] = bytes([byte]) * (size - size // 3)
    path.write_bytes(data)
    assert until_error(tmp_path) == ({number: right[number] for number in range(frame)}, "video-unreadable")


def test_a_frame_of_more_pixels_than_any_video_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video(tmp_path / "v.mp4", 3)
    monkeypatch.setattr(video_frames, "MAX_PIXELS", 1000)
    with pytest.raises(RecordError) as caught:
        frames_of(tmp_path, [0])
    assert caught.value.reason == "video-unreadable"


def test_a_video_in_a_zip_is_read_in_place_unless_it_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video(tmp_path / "v.mp4", 9)
    with zipfile.ZipFile(tmp_path / "videos.zip", "w") as archive:
        archive.write(path, "v.mp4")
    folder = Folder(tmp_path).archive("videos.zip")
    with open_video(folder, "v.mp4") as opened:
        assert {number: number_of(picture) for number, picture in opened.frames([2, 8])} == {2: 2, 8: 8}
    with pytest.raises(RecordError, match=r"w\.mp4: no such video") as caught, open_video(folder, "w.mp4"):
        pass
    assert caught.value.reason == "image-missing"
    monkeypatch.setattr(video_frames, "MAX_ARCHIVED_BYTES", 100)
    with pytest.raises(RecordError, match="bytes, more than the 100 that are read"), open_video(folder, "v.mp4"):
        pass


def test_a_video_that_is_gone_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RecordError) as caught:
        frames_of(tmp_path, [0])
    assert caught.value.reason == "image-missing"


def test_a_file_system_that_fails_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = video(tmp_path / "v.mp4", 50, width=600, noise=60).read_bytes()
    assert len(data) > 200_000

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 65536:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    monkeypatch.setattr(Folder, "open", lambda _self, _name: Failing(data))
    with pytest.raises(SetupError, match=r"v\.mp4 cannot be read: Input/output error"):
        frames_of(tmp_path, range(50))


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SetupError, match=r"pip install 'samtok-data\[video\]'"):
        frames_of(tmp_path, [0])


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    """All frames of 50 MiB and of 300 MiB."""
    program = """
        import sys
        from converters.masks.videos.video_frames import open_video
        from samtok_data.storage import Folder
        from tests.converters.mask_sources import peak_mib

        frames = 0
        with open_video(Folder(sys.argv[1]), sys.argv[2]) as opened:
            for _number, picture in opened.frames(range(1000)):
                frames += 1
        print(frames, peak_mib())
    """
    peaks = []
    for frames in (60, 360):
        video(tmp_path / f"{frames}.mp4", frames, height=480, width=640)
        decoded, peak = printed_by(program, tmp_path, f"{frames}.mp4")
        assert decoded == frames
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 20


def test_a_real_video_is_decoded_to_its_end(samples: Path) -> None:
    with open_video(Folder(samples / "masks" / "cutie_examples"), "example.mp4") as opened:
        found = {number: picture.size for number, picture in opened.frames([0, 116, 117])}
        assert (opened.num_frames, found) == (117, {0: (640, 480), 116: (640, 480)})
