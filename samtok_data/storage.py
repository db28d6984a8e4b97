"""Folders on a local disk or in an object store, by one address: ``DIR``, ``s3://bucket/dir``, ``memory://dir``.

A zip or tar is a folder as well, to be read: ``folder.archive("train2017.zip")``.

A written file exists whole or not at all. On a local disk the bytes go to a temporary file in the same file
system and are renamed; object stores show an object when its upload is complete. Other remote file systems
(sftp, smb, ...) write in place and do not give this promise.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import posixpath
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from samtok_data.errors import SetupError

# Temporary files live in a dot folder, where no reader of shards looks.
TEMPORARY = ".tmp"

ARCHIVES = (".zip", ".tar")
FILES_AT_ONCE = 256
_INSIDE = "::"  # in an address, between a place in an archive and the archive: zip://train::s3://bucket/images.zip

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


def is_contained(name: str) -> bool:
    """Whether a relative name stays inside the folder that it is joined to."""
    parts = name.replace("\\", "/").split("/")
    is_below = any(part not in ("", ".") for part in parts)  # else it names the folder itself
    return is_below and parts[0] != "" and ":" not in parts[0] and ".." not in parts


def raising_os_errors(method: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
    """Raises an object store's own errors as OSError: to botocore, missing credentials or a lost line are none.

    Nothing is swallowed: every error goes on, a store's under another class and with itself as the cause. Which
    classes those are only the stores' packages know, and none of them is imported here.
    """

    @functools.wraps(method)
    def call(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        try:
            return method(*args, **kwargs)
        except OSError:
            raise
        except Exception as error:
            if type(error).__module__ == "builtins":  # a fault of this program, such as ValueError
                raise
            raise OSError(str(error)) from error

    return call


class Folder:
    """A folder of any file system that fsspec knows. It can be pickled.

    Args:
        address: a local path or ``protocol://path``.

    Raises:
        SetupError: the protocol is unknown or its package is not installed; an archive is not there or damaged.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        self.address = os.fspath(address)
        self.is_archive = _INSIDE in self.address
        try:
            # Without a cache of listings: other processes write to the same folder.
            self.fs, self.path = _file_system(self.address)
        except (ValueError, ImportError) as error:
            raise SetupError(f"{self.address}: no file system for this address: {error}") from error
        except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:  # of an archive, opened here
            raise SetupError(f"{self}: the archive cannot be read: {error}") from error
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self._alone = threading.Lock()

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        return Folder, (self.path if self.is_local else self.address,)  # a worker may have another working directory

    def __repr__(self) -> str:
        return f"Folder({self.address!r})"

    def __str__(self) -> str:
        inside, _, archive = self.address.partition(_INSIDE)
        return f"{archive.removeprefix('file://')}/{inside.partition('://')[2]}".rstrip("/") if archive else inside

    def __truediv__(self, name: str) -> Folder:
        inside, mark, archive = self.address.partition(_INSIDE)
        return Folder(f"{posixpath.join(inside, _checked(name))}{mark}{archive}")

    def archive(self, name: str) -> Folder:
        """What is in a zip or tar of this folder, as a folder that is read only. Threads may share it.

        Opening it reads the zip's directory, or all headers of the tar; nothing is unpacked.

        Raises:
            SetupError: it is not there, is damaged, is neither, or lies in an archive itself.
        """
        ending = posixpath.splitext(name)[1].lower()
        if ending not in ARCHIVES or self.is_archive:
            raise SetupError(f"{self}/{name}: expected a .zip or .tar that lies in a folder")
        return Folder(f"{ending[1:]}://{_INSIDE}{self.fs.unstrip_protocol(self.at(name))}")

    def at(self, name: str) -> str:
        """The file system's own path of a file in this folder.

        Raises:
            ValueError: the name would leave the folder.
        """
        return posixpath.join(self.path, _checked(name))

    @raising_os_errors
    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of that name is there (the folder itself, without a name)."""
        return self.fs.exists(self.at(name) if name else self.path)

    @raising_os_errors
    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            FileNotFoundError: there is none.
        """
        return int(self.fs.size(self.at(name)))

    @raising_os_errors
    def open(self, name: str) -> IO[bytes]:
        """A file, open for reading; one of an archive is read into memory."""
        return io.BytesIO(self.read(name)) if self.is_archive else self.fs.open(self.at(name), "rb")

    @raising_os_errors
    def read(self, name: str) -> bytes:
        """All bytes of a file."""
        if not self.is_archive:
            return self.fs.cat_file(self.at(name))
        try:
            with self._alone:  # the archive is one open file
                return self.fs.cat_file(self.at(name))
        except (KeyError, IsADirectoryError) as error:  # what zipfile and tarfile say of a name that is not in it
            raise FileNotFoundError(f"{self}/{name}: no such file in the archive") from error
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
            raise OSError(f"{self}/{name}: damaged in the archive: {error}") from error

    def names(self, suffix: str = "") -> list[str]:
        """Names of the files directly in this folder that end in ``suffix``, sorted; none if it does not exist."""
        return sorted(name for name in self.sizes() if name.endswith(suffix))

    @raising_os_errors
    def sizes(self) -> dict[str, int]:
        """Bytes of every file directly in this folder, by name."""
        if not self.fs.isdir(self.path):
            return {}
        entries = self.fs.ls(self.path, detail=True)
        return {posixpath.basename(entry["name"]): int(entry["size"]) for entry in entries if entry["type"] == "file"}

    def read_all(self, suffix: str) -> list[bytes]:
        """All bytes of the files directly in this folder that end in ``suffix``, by name."""
        return list(self.read_each(suffix))

    def read_each(self, suffix: str) -> Iterator[bytes]:
        """The same one after the other; from a store ``FILES_AT_ONCE`` are read at once."""
        sizes = self.sizes()
        names = sorted(name for name in sizes if name.endswith(suffix))
        for start in range(0, len(names), FILES_AT_ONCE):
            group = names[start : start + FILES_AT_ONCE]
            full = [name for name in group if sizes[name]]
            contents = dict(zip(full, self._read_some(full), strict=True))
            yield from (contents.get(name, b"") for name in group)

    @raising_os_errors
    def _read_some(self, names: Sequence[str]) -> list[bytes]:
        paths = [self.at(name) for name in names]
        # cat() would read [ and * as patterns. Without the 0, s3fs asks for the size of each file first; with it, an
        # empty file is an error.
        contents = self.fs.cat_ranges(paths, 0, None, on_error="return")
        for content in contents:
            if isinstance(content, Exception):  # older fsspec returns errors whatever it is told
                raise content
        return contents

    @raising_os_errors
    def walk(self) -> Iterator[str]:
        """Names of all files below this folder, relative to it, in no order."""
        root = self.path.rstrip("/")
        return (name[len(root) :].lstrip("/") for name in self.fs.find(self.path))

    @raising_os_errors
    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole or not at all, over an older one.

        Raises:
            OSError: the bytes could not be written; neither the file nor a temporary one is left.
        """
        target = self.at(name)
        if self.is_local:
            self._write_local(Path(target), data)
        else:
            self.fs.pipe_file(target, data)

    @raising_os_errors
    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all that is in it; nothing happens where there is none."""
        path = self.at(name)
        if self.fs.exists(path):
            self.fs.rm(path, recursive=True)

    @raising_os_errors
    def remove_file(self, name: str) -> None:
        """As ``remove``, of a file: one request of a store, which is not asked first."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.at(name))

    def _write_local(self, target: Path, data: bytes) -> None:
        temporary_folder = Path(self.path) / TEMPORARY
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary_folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=temporary_folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp makes it private
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@raising_os_errors
def _file_system(address: str) -> tuple[Any, str]:
    return fsspec.core.url_to_fs(address, use_listings_cache=False)


def _checked(name: str) -> str:
    if not is_contained(name):
        raise ValueError(f"expected a relative name inside the folder, got {name!r}")
    return name


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _read_umask()
