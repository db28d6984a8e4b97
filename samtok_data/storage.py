"""Folders on a local disk or in an object store, by one address: ``DIR``, ``s3://bucket/dir``, ``memory://dir``.

A written file exists whole or not at all. On a local disk the bytes go to a temporary file in the same file
system and are renamed; object stores show an object when its upload is complete. Other remote file systems
(sftp, smb, ...) write in place and do not give this promise.
"""

from __future__ import annotations

import functools
import os
import posixpath
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from samtok_data.errors import SetupError

# Temporary files live in a dot folder, where no reader of shards looks.
TEMPORARY = ".tmp"

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
        SetupError: the protocol is unknown or its package is not installed.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        self.address = os.fspath(address)
        try:
            # Without a cache of listings: other processes write to the same folder.
            self.fs, self.path = fsspec.core.url_to_fs(self.address, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise SetupError(f"{self.address}: no file system for this address: {error}") from error
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        return Folder, (self.path if self.is_local else self.address,)  # a worker may have another working directory

    def __repr__(self) -> str:
        return f"Folder({self.address!r})"

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> Folder:
        return Folder(posixpath.join(self.address, _checked(name)))

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
        """A file, open for reading."""
        return self.fs.open(self.at(name), "rb")

    @raising_os_errors
    def read(self, name: str) -> bytes:
        """All bytes of a file."""
        return self.fs.cat_file(self.at(name))

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

    @raising_os_errors
    def read_all(self, suffix: str) -> list[bytes]:
        """All bytes of the files directly in this folder that end in ``suffix``, by name; read at once."""
        paths = [self.at(name) for name in self.names(suffix)]
        contents = self.fs.cat_ranges(paths, None, None, on_error="return")  # cat() would read [ and * as patterns
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


def _checked(name: str) -> str:
    if not is_contained(name):
        raise ValueError(f"expected a relative name inside the folder, got {name!r}")
    return name


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _read_umask()
