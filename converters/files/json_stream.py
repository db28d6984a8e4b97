"""Large JSON files as a stream: neither the file nor a list of it is in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from samtok_data.errors import SetupError
from samtok_data.storage import Folder, raising_os_errors

_CHUNK = 1 << 18


def chunks_of(root: Folder, name: str, label: str, option: str = "json") -> Iterator[bytes]:
    """The bytes of a file, piece by piece.

    Args:
        root: folder of the source.
        name: of the file under it.
        label: what messages call it.
        option: that names the file.

    Raises:
        SetupError: it is not there, or cannot be read.
    """
    try:
        with root.open(name) as file:
            read = raising_os_errors(file.read)
            while chunk := read(_CHUNK):
                yield chunk
    except FileNotFoundError as error:
        raise SetupError(f"{label}: no such file; give the annotation file with the option {option}") from error
    except (OSError, ValueError) as error:
        raise SetupError(f"{label}: cannot be read: {error}") from error


def sha256_of(root: Folder, name: str, label: str, option: str = "json") -> str:
    """The hash of a file, hex; takes and raises what ``chunks_of`` does."""
    digest = hashlib.sha256()
    for chunk in chunks_of(root, name, label, option):
        digest.update(chunk)
    return digest.hexdigest()


def noted(chunks: Iterator[bytes], note: Callable[[bytes], None]) -> Iterator[bytes]:
    """The pieces, each shown to ``note`` on its way."""
    for chunk in chunks:
        note(chunk)
        yield chunk


def items_of(chunks: Iterator[bytes], label: str, prefixes: Sequence[str]) -> Iterator[list[list[Any]]]:
    """What each piece of a file completes of some of its lists.

    Each list has its own parser, as ijson builds one prefix at a time. Lists of one object do not interleave: as soon
    as the second has begun, the first is complete, and its parser need not see the rest.

    Args:
        chunks: of the file.
        label: what messages call it.
        prefixes: ijson's names of the lists' items, at most two: ``annotations.item``; ``item`` where the file is a
            list.

    Yields:
        By prefix, the items; the lists are used again, so keep none.

    Raises:
        SetupError: the file is no JSON, or is cut; ijson is not installed.
    """
    ijson = _ijson()
    found = {prefix: ijson.sendable_list() for prefix in prefixes}
    parsers = {prefix: ijson.items_coro(found[prefix], prefix, use_float=True) for prefix in found}
    begun: list[str] = []
    try:
        for chunk in chunks:
            for parser in parsers.values():
                parser.send(chunk)
            started = [prefix for prefix in found if found[prefix] and prefix not in begun]
            if begun and started:
                del parsers[begun[0]]
            begun += started
            yield list(found.values())
            for values in found.values():
                values.clear()
        for parser in parsers.values():
            parser.close()
        yield list(found.values())
    except (ijson.JSONError, ValueError) as error:
        raise _broken(label, error) from error


def fields_of(chunks: Iterator[bytes], label: str, prefix: str) -> Iterator[tuple[str, Any]]:
    """Name and value of each field of an object in a file, one after the other.

    Args:
        chunks: of the file.
        label: what messages call it.
        prefix: ijson's name of the object: ``videos``; empty where it is the whole file.

    Raises:
        SetupError: the file is no JSON, or is cut; ijson is not installed.
    """
    ijson = _ijson()
    found = ijson.sendable_list()
    parser = ijson.kvitems_coro(found, prefix, use_float=True)
    try:
        for chunk in chunks:
            parser.send(chunk)
            yield from found
            found.clear()
        parser.close()
        yield from found
    except (ijson.JSONError, ValueError) as error:
        raise _broken(label, error) from error


def _ijson() -> Any:
    try:
        import ijson
    except ImportError as error:
        raise SetupError("ijson reads large JSON files; install it with: pip install 'samtok-data[train]'") from error
    return ijson


def _broken(label: str, error: Exception) -> SetupError:
    reason = str(error).partition("\n")[0]
    return SetupError(f"{label}: no complete JSON: {reason}; the file is cut or of another format: fetch it again")
