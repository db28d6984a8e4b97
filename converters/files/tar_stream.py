"""A tar file from front to back, as a stream: neither the archive nor a list of its members is held.

tarfile takes a damaged header, and an end that is missing, for the end; keeps every member that it saw; and skips as
many bytes as a header says, whether there are any or not. None of that happens here.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from tarfile import EOFHeaderError, HeaderError, ReadError  # type: ignore[attr-defined]
from typing import IO

from samtok_data.errors import RecordError, SetupError
from samtok_data.storage import Folder, raising_os_errors

_SKIPPED_AT_ONCE = 1 << 20
# Of a member's header with its extensions: a long name, times.
_MAX_HEADER = 4 << 20
# Zeros behind the end: tar fills its last record, of 10 KiB as a rule. More than this is a hole in a half loaded file.
_MAX_PADDING = 1 << 20
# What tarfile raises on foreign bytes besides its own errors, as it parses the numbers and texts of extensions.
_DAMAGE = (tarfile.TarError, ValueError, LookupError, OverflowError, EOFError)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive.

    Attributes:
        name: as the archive has it: foreign text, never a path.
        size: in bytes.
        data: its bytes; None where it is larger than was asked for.
    """

    name: str
    size: int
    data: bytes | None


def members(folder: Folder, name: str, size: int, limit_of: Callable[[str], int | None]) -> Iterator[Member]:
    """The wanted files of an archive, in its order.

    Args:
        folder: of the archive.
        name: in that folder.
        size: bytes of the archive when it was listed.
        limit_of: by a member's name, how many bytes of it are read at most; None: it is not wanted.

    Raises:
        RecordError: ``archive-damaged``, after the members before the damage; says at which byte.
        SetupError: the archive is gone, has another size by now, or the file system fails.
    """
    try:
        if folder.size(name) != size:
            raise SetupError(f"{folder}/{name}: it had {size:,} bytes when it was listed and has another size now")
        with folder.open(name) as file:
            yield from _read(_OneWay(file), name, size, limit_of)
    except OSError as error:
        raise SetupError(f"{folder}/{name}: cannot be read: {error.strerror or error}") from error


def _read(file: _OneWay, name: str, size: int, limit_of: Callable[[str], int | None]) -> Iterator[Member]:
    position, expected = 0, 0  # where the last member ends, and where the next header begins
    try:
        with tarfile.TarFile(fileobj=file, tarinfo=_Header) as archive:  # type: ignore[arg-type]
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]
                end = member.offset_data + member.size
                if member.size < 0 or end > size:
                    raise ReadError(f"a member of {member.size:,} bytes, beyond the end")
                limit = limit_of(member.name) if member.isreg() and not member.issparse() else None
                if limit is not None:
                    data = file.data(member.size) if member.size <= limit else None
                    yield Member(member.name, member.size, data)
                position, expected = end, archive.offset  # type: ignore[attr-defined]
                file.end_header()
        raise ReadError("no end mark")
    except _EndMark as error:
        if file.tell() - tarfile.BLOCKSIZE != expected:
            why = "an end mark where a header's extension wants a header"
            raise RecordError("archive-damaged", _damaged(name, position, size, why)) from error
        if size - position > _MAX_PADDING:
            why = f"an end mark, and {size - position:,} bytes behind it"
            raise RecordError("archive-damaged", _damaged(name, position, size, why)) from error
    except _DAMAGE as error:
        raise RecordError("archive-damaged", _damaged(name, position, size, str(error))) from error


def _damaged(name: str, position: int, size: int, why: str) -> str:
    return f"{name}: damaged or cut at byte {position:,} of {size:,}: {why}"


class _EndMark(tarfile.TarError):
    """A block of zeros where a header could stand."""


class _Header(tarfile.TarInfo):
    """A header whose faults tarfile does not take for the end of the archive, as it does with its own.

    ``frombuf`` is not the place to look at headers: newer releases of Python do not call it.
    """

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError as error:
            raise _EndMark from error
        except HeaderError as error:
            raise ReadError(str(error)) from error


class _OneWay:
    """A file that is read from front to back; its errors are OSErrors, whichever store it lies in.

    Files have buffers of their own. tarfile's stream has one as well, whose rest it copies for every header.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._read = raising_os_errors(file.read)
        self._position = 0
        self._of_header = 0  # bytes that tarfile has read since the last member

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.StreamError(f"byte {position:,} lies behind")
        while self._position < position and self._bytes(min(position - self._position, _SKIPPED_AT_ONCE)):
            pass

    def read(self, size: int) -> bytes:
        """What tarfile reads: headers and their extensions, which it takes into memory whatever they say of their size,
        at once or by and by.

        Raises:
            ReadError: it is too much.
        """
        self._of_header += size
        if size < 0 or self._of_header > _MAX_HEADER:
            raise ReadError(f"a header's extension of {self._of_header:,} bytes")
        return self._bytes(size)

    def end_header(self) -> None:
        """What is read next is of another member."""
        self._of_header = 0

    def data(self, size: int) -> bytes:
        """The data of the member whose header was read last.

        Raises:
            ReadError: there is less.
        """
        data = self._bytes(size)
        if len(data) < size:
            raise ReadError("unexpected end of data")
        return data

    def _bytes(self, size: int) -> bytes:
        data = self._read(size)
        while data and len(data) < size and (more := self._read(size - len(data))):  # some stores give what they have
            data += more
        self._position += len(data)
        return data
