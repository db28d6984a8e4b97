"""From the address of a tokenizer's weights to a file on the local disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import fsspec
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from samtok_data.errors import SetupError
from samtok_data.storage import raising_os_errors

PUBLISHED = "samtok-256x2"
EMBEDDED = "small"

PUBLISHED_REPOSITORY = "zhouyik/Qwen3-VL-8B-SAMTok"
PUBLISHED_FILE = "mask_tokenizer_256x2.pth"
_EMBEDDED_FILE = "small.safetensors"  # beside this module; recipes/small/README.md is its card

_CHUNK = 1 << 20  # bytes that are hashed at once: about a millisecond

_HUB = "hf://"
_HUB_TIMEOUT = 10.0  # seconds until the hub counts as out of reach

# Without a network the hub's client lets its HTTP library's error through, and which library that is has
# changed; HfHubHTTPError derives from that library's base class in each of them.
_HUB_ERRORS: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, OSError, EntryNotFoundError, ValueError)


def located(spec: str) -> tuple[Path, str]:
    """A tokenizer's file on this machine, fetched if need be, and its address. Nothing of it is read, torch not needed.

    Args:
        spec: ``samtok-256x2``, ``small``, or an address as of ``local_file``.

    Returns:
        The file, and the address that its identity names: empty for the embedded one.

    Raises:
        SetupError: there is no such file, or it cannot be fetched.
    """
    if spec == PUBLISHED:
        return published_file(), f"{_HUB}{PUBLISHED_REPOSITORY}/{PUBLISHED_FILE}"
    if spec != EMBEDDED:
        return local_file(spec), spec
    file = Path(__file__).with_name(_EMBEDDED_FILE)
    if not file.exists():
        raise SetupError(f"--tokenizer {EMBEDDED}: {file} is missing; install samtok-data again")
    return file, ""


def published_file() -> Path:
    """The published weights, from the hub client's cache or downloaded into it.

    Raises:
        SetupError: neither; the message names the ways out.
    """
    try:
        return _from_hub(PUBLISHED_REPOSITORY, PUBLISHED_FILE, None)
    except _HUB_ERRORS as error:
        raise SetupError(
            f"the weights of samtok-256x2 ({_HUB}{PUBLISHED_REPOSITORY}/{PUBLISHED_FILE}) cannot be fetched: "
            f"{_cause(error)}. Give --tokenizer PATH of a downloaded {PUBLISHED_FILE}, or --tokenizer small for a trial"
        ) from error


def local_file(address: str) -> Path:
    """The file at an address, copied whole to the cache folder where it is not on a local disk.

    Args:
        address: a local path, ``hf://owner/repository[@revision]/path``, or any address that fsspec reads.

    Raises:
        SetupError: there is no such file, or it cannot be fetched.
    """
    if address.startswith(_HUB):
        owner, _, rest = address.removeprefix(_HUB).partition("/")
        repository, _, path = rest.partition("/")
        repository, _, revision = repository.partition("@")
        if not (owner and repository and path):
            raise SetupError(f"{address}: expected hf://owner/repository/path")
        try:
            return _from_hub(f"{owner}/{repository}", path, revision or None)
        except _HUB_ERRORS as error:
            raise SetupError(f"{address}: cannot be fetched: {_cause(error)}") from error
    if "://" in address and not address.startswith("file://"):
        return _from_store(address)
    path = Path(address.removeprefix("file://")).expanduser()
    if not path.is_file():
        raise SetupError(
            f"{address}: no such file. A tokenizer is samtok-256x2, small, or the address of a .pth or "
            ".safetensors file"
        )
    return path


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    return _sha256(path, threading.Event())


@contextlib.contextmanager
def sha256_aside(path: Path) -> Iterator[Callable[[], str]]:
    """Inside, ``sha256`` is computed in a thread of its own; at the end it is given up if it is not complete.

    Args:
        path: of the file.

    Yields:
        What waits for the digest and returns it.
    """
    no_longer_wanted = threading.Event()
    with ThreadPoolExecutor(1, "sha256") as thread:
        digest = thread.submit(_sha256, path, no_longer_wanted)
        try:
            yield digest.result
        finally:
            no_longer_wanted.set()


def _sha256(path: Path, no_longer_wanted: threading.Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if no_longer_wanted.is_set():
                raise CancelledError
            digest.update(chunk)
    return digest.hexdigest()


def _from_hub(repository: str, path: str, revision: str | None) -> Path:
    try:
        return Path(hf_hub_download(repository, path, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        # Asked once first: the download itself tries for half a minute to reach a hub that is not there.
        get_hf_file_metadata(hf_hub_url(repository, path, revision=revision), timeout=_HUB_TIMEOUT)
        return Path(hf_hub_download(repository, path, revision=revision))


def _from_store(address: str) -> Path:
    try:
        return _cached(address)
    except FileNotFoundError as error:
        raise SetupError(f"{address}: no such file") from error
    except (OSError, ValueError, ImportError) as error:
        raise SetupError(f"{address}: cannot be fetched: {_cause(error)}") from error


@raising_os_errors
def _cached(address: str) -> Path:
    fs, remote = fsspec.core.url_to_fs(address)
    info = fs.info(remote)
    version = info.get("ETag") or info.get("etag") or fs.ukey(remote)
    key = hashlib.sha256(f"{address}\n{info.get('size')}\n{version}".encode()).hexdigest()[:32]
    target = _cache_folder() / key / posixpath.basename(remote)
    if not target.is_file():
        _download(fs, remote, target)
    return target


def _download(fs: fsspec.AbstractFileSystem, remote: str, target: Path) -> None:
    """Whole or not at all: other processes may want the same file at the same time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".")
    os.close(handle)
    try:
        fs.get_file(remote, temporary)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "samtok-data" / "tokenizers"


def _cause(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
