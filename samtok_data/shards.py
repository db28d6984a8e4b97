"""Shards: tar files in WebDataset layout, whose bytes depend on their samples alone.

Written with the standard library (importing webdataset loads torch), read by webdataset, HF datasets and
any tar reader. Members of a sample stand side by side, sorted by name; times, owners and modes are constant.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from samtok_data.samples import JSON, Sample, is_key
from samtok_data.storage import Folder

# A tar file ends with two empty blocks. One that is cut between members lacks them, and no reader notices.
_BLOCK = 512
_END = b"\0" * (2 * _BLOCK)


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A written file of a unit: a shard, or a table.

    Attributes:
        name: in the folder that it was written to.
        bytes: size.
        sha256: of its bytes, hex.
    """

    name: str
    bytes: int
    sha256: str


def unit_name(dataset: str, split: str, index: int, ending: str = ".tar") -> str:
    """File name of a unit's shard, e.g. ``gres-train-000017.tar``, or of another file that is made of it."""
    return f"{dataset}-{split}-{index:06d}{ending}"


def pack(samples: Sequence[Sample]) -> bytes:
    """The bytes of a shard.

    Raises:
        ValueError: no sample (HF datasets fails on an empty first shard), two with one key, or one whose key
            cannot be one.
    """
    if not samples:
        raise ValueError("expected at least one sample: an empty shard stops HF datasets")
    keys = [sample.key for sample in samples]
    if len(set(keys)) != len(keys):
        raise ValueError("expected unique keys in a shard")
    for key in keys:
        if not is_key(key):
            raise ValueError(f"expected a key of ASCII letters, digits, '_', '+' and '-', got {key!r}")
    # Not with tarfile's writer, which copies pictures piece by piece into a buffer that has to grow.
    parts: list[bytes] = []
    for sample in samples:
        for name, data in sample.members:
            member = tarfile.TarInfo(name)  # mtime 0, owner 0, mode 0644
            member.size = len(data)
            parts += [member.tobuf(tarfile.USTAR_FORMAT), data, bytes(-len(data) % _BLOCK)]
    parts.append(_END)
    size = sum(len(part) for part in parts)
    return b"".join([*parts, bytes(-size % tarfile.RECORDSIZE)])


def unpack(data: bytes) -> Iterator[Sample]:
    """The samples of a shard, in order.

    Raises:
        ValueError: the bytes are no whole tar file, a member is none of ours, or a sample lacks its JSON.
    """
    if len(data) % _BLOCK or not data.endswith(_END):
        raise ValueError("the tar file is cut: it does not end with two empty blocks")
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for key, members in _grouped(_members(tar, data)):
                if JSON not in members:
                    raise ValueError(f"sample {key}: it has no {JSON} member")
                record = json.loads(members.pop(JSON))
                yield Sample(key, record, members)
    except (tarfile.TarError, json.JSONDecodeError) as error:
        raise ValueError(f"the tar file is damaged: {error}") from error


def read_shard(folder: Folder, name: str) -> Iterator[Sample]:
    """The samples of a shard in a folder.

    Raises:
        OSError: it could not be read.
        ValueError: see ``unpack``.
    """
    return unpack(folder.read(name))


def _members(tar: tarfile.TarFile, data: bytes) -> Iterator[tuple[str, str, bytes]]:
    for member in tar:
        key, dot, suffix = member.name.partition(".")
        file = tar.extractfile(member)
        if not dot or not is_key(key) or "/" in suffix or file is None:
            raise ValueError(f"member {member.name!r}: expected a file named <key>.<suffix>")
        yield key, suffix, file.read()
    # tarfile takes a damaged header, and an end that is missing behind a picture that ends in zeros, for the end.
    if data[tar.offset : tar.offset + len(_END)] != _END:
        raise ValueError(f"the tar file is cut or damaged at byte {tar.offset}")


def _grouped(members: Iterable[tuple[str, str, bytes]]) -> Iterator[tuple[str, dict[str, bytes]]]:
    current: str | None = None
    parts: dict[str, bytes] = {}
    for key, suffix, data in members:
        if current is not None and key != current:
            yield current, parts
            parts = {}
        current = key
        if suffix in parts:
            raise ValueError(f"sample {key}: the member .{suffix} stands twice in it")
        parts[suffix] = data
    if current is not None:
        yield current, parts
