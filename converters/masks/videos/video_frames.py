"""Frames of video files, decoded one after the other, and frames that lie as pictures in a folder.

A frame is turned as a player shows it (the published scripts read with OpenCV, which does the same), and is then
compared with the size that its masks are drawn on. Nothing seeks: frames are counted from the first one on, as the
annotations count them. PyAV decodes; it is imported where a file is opened, and told the format, so that a playlist
under a video's name leads nowhere.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any

from PIL import Image

from samtok_data.errors import RecordError, SetupError
from samtok_data.pictures import read_file
from samtok_data.storage import Folder, raising_os_errors

MAX_PIXELS = 1 << 26
"""Of a frame: twice those of 8K. What claims more is no video of a data set."""
MAX_ARCHIVED_BYTES = 1 << 30
"""Of a video in a zip or tar, which is read into memory; SA-V's are of about 10 MB."""
_FORMAT = "mp4"
_TURNS = {0: None, 90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True, slots=True)
class OpenVideo:
    """A video file whose header was read.

    Attributes:
        name: for messages.
        num_frames: as the header says; None where it does not.
    """

    name: str
    num_frames: int | None
    _container: Any
    _stream: Any

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """Some of the frames with their numbers, RGB, turned as they are shown. The others are not converted.

        Decoding ends behind the last one. It holds the decoder's own few frames and the one that is yielded.

        Args:
            wanted: numbers from 0 on, ascending, none twice.

        Yields:
            Fewer than were wanted, where the video is shorter.

        Raises:
            RecordError: ``video-unreadable``: libav finds the file damaged here; what comes behind is drawn upon it.
            SetupError: the file system itself fails.
        """
        left = list(reversed(wanted))
        for number, frame in enumerate(self._decoded() if left else ()):
            if number == left[-1]:
                yield left.pop(), _shown(frame, self.name)
                if not left:
                    return

    def _decoded(self) -> Iterator[Any]:
        with _errors(self.name):
            for frame in self._container.decode(self._stream):
                if frame.is_corrupt:  # libav would go on with a picture of its own making
                    raise RecordError("video-unreadable", f"{self.name}: damaged data")
                yield frame


@contextmanager
def open_video(folder: Folder, name: str) -> Iterator[OpenVideo]:
    """A video file (mp4) and what its header says.

    Args:
        folder: of the file.
        name: in that folder.

    Raises:
        RecordError: ``image-missing``; ``video-unreadable`` where it is no mp4, is cut before its frames begin, holds
            no video, or is too large.
        SetupError: the file system itself fails; PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise SetupError("PyAV decodes videos; install it with: pip install 'samtok-data[video]'") from error
    with ExitStack() as stack:
        file = stack.enter_context(_opened(folder, name))
        with _errors(name):
            container = stack.enter_context(av.open(_Readable(file), format=_FORMAT))
            if not container.streams.video:
                raise RecordError("video-unreadable", f"{name}: no video stream that can be read")
            stream = container.streams.video[0]
            context = stream.codec_context
            if context is None:
                raise RecordError("video-unreadable", f"{name}: no decoder for its video")
            context.thread_count = 1  # several processes read several videos
            context.options = {"max_pixels": str(MAX_PIXELS)}
        yield OpenVideo(name, stream.frames or None, container, stream)


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """libav's errors as rejects; those of the file below it as they are."""
    from av.error import FFmpegError

    try:
        yield
    except RecordError:
        raise
    except (FFmpegError, ValueError) as error:  # a store's file says ValueError of a place before its begin
        message = str(error).partition("\n")[0]
        raise RecordError("video-unreadable", f"{name}: cannot be decoded: {message}") from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # a local file says so of that; an empty one has no other place
            raise RecordError("video-unreadable", f"{name}: is no video") from error
        raise _failed(name, error) from error


class _Readable:
    """The part of a file that libav uses; what a store raises comes out as OSError."""

    def __init__(self, file: IO[bytes]) -> None:
        self.read = raising_os_errors(file.read)
        self.seek = raising_os_errors(file.seek)
        self.tell = file.tell


def _opened(folder: Folder, name: str) -> IO[bytes]:
    if folder.is_archive:
        return io.BytesIO(_archived(folder, name))
    try:
        return folder.open(name)
    except FileNotFoundError as error:
        raise RecordError("image-missing", f"{name}: no such video under {folder}") from error
    except OSError as error:
        raise _failed(f"{folder}/{name}", error) from error


def _archived(folder: Folder, name: str) -> bytes:
    try:
        size = folder.size(name)
    except FileNotFoundError as error:
        raise RecordError("image-missing", f"{name}: no such video in {folder}") from error
    except OSError as error:
        raise _failed(f"{folder}/{name}", error) from error
    if size > MAX_ARCHIVED_BYTES:
        raise RecordError(
            "video-unreadable", f"{name}: {size:,} bytes, more than the {MAX_ARCHIVED_BYTES:,} that are read"
        )
    return read_file(folder, name, kind="video")


def _failed(name: str, error: OSError) -> SetupError:
    return SetupError(f"{name} cannot be read: {error.strerror or error}; mend the access and run again to resume")


def _shown(frame: Any, name: str) -> Image.Image:
    turn = frame.rotation % 360  # counter-clockwise, as PIL's
    if turn not in _TURNS:
        raise RecordError("video-unreadable", f"{name}: turned by {turn} degrees, expected a multiple of 90")
    picture = frame.to_image()
    return picture if _TURNS[turn] is None else picture.transpose(_TURNS[turn])


def has_frame(folder: Folder, name: str) -> bool:
    """Whether a frame's picture is there. It is not opened.

    Raises:
        SetupError: the file system itself fails.
    """
    try:
        return folder.exists(name)
    except OSError as error:
        raise _failed(f"{folder}/{name}", error) from error
