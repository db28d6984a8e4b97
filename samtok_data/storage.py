"""Folders on a local disk or in an object store, by one address: ``DIR``, ``s3://bucket/dir``, ``memory://dir``.

A written file exists whole or not at all. On a local disk the bytes go to a temporary file beside the
target's folder and are renamed; object stores show an object when its upload is complete.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from samtok_data.errors import SetupError

# Temporary files live in a dot folder, where no reader of shards looks.
TEMPORARY = ".tmp"


def is_contained(name: str) -> bool:
    """Whether a relative name stays inside the folder that it is joined to."""
    parts = name.replace("\\", "/").split("/")
    return bool(name) and not name.startswith("/") and ":" not in parts[0] and ".." not in parts


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
            self.fs, self.path = fsspec.core.url_to_fs(self.address)
        except (ValueError, ImportError) as error:
            raise SetupError(f"{self.address}: no file system for this address: {error}") from error
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        return Folder, (self.address,)

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

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of that name is there (the folder itself, without a name)."""
        return self.fs.exists(self.at(name) if name else self.path)

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            FileNotFoundError: there is none.
        """
        return int(self.fs.size(self.at(name)))

    def open(self, name: str) -> IO[bytes]:
        """A file, open for reading."""
        return self.fs.open(self.at(name), "rb")

    def read(self, name: str) -> bytes:
        """All bytes of a file."""
        return self.fs.cat_file(self.at(name))

    def names(self, suffix: str = "") -> list[str]:
        """Names of the files directly in this folder that end in ``suffix``, sorted; none if it does not exist."""
        return sorted(name for name in self.sizes() if name.endswith(suffix))

    def sizes(self) -> dict[str, int]:
        """Bytes of every file directly in this folder, by name."""
        self.fs.invalidate_cache(self.path)
        if not self.fs.isdir(self.path):
            return {}
        entries = self.fs.ls(self.path, detail=True)
        return {posixpath.basename(entry["name"]): int(entry["size"]) for entry in entries if entry["type"] == "file"}

    def read_all(self, suffix: str) -> list[bytes]:
        """All bytes of the files directly in this folder that end in ``suffix``, by name; read at once."""
        names = self.names(suffix)
        contents = self.fs.cat([self.at(name) for name in names]) if names else {}
        # One path comes back as bytes, several as a mapping in an order of the file system's own.
        return [contents] if isinstance(contents, bytes) else [contents[path] for path in sorted(contents)]

    def walk(self) -> Iterator[str]:
        """Names of all files below this folder, relative to it, in no order."""
        self.fs.invalidate_cache(self.path)
        root = self.path.rstrip("/")
        for name in self.fs.find(self.path):
            yield name[len(root) :].lstrip("/")

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

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all that is in it; nothing happens where there is none."""
        if self.exists(name):
            self.fs.rm(self.at(name), recursive=True)

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
