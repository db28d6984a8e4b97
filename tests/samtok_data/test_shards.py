"""Shards: bytes that depend on the samples alone, and reading that notices every cut."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samtok_data.samples import Sample
from samtok_data.shards import pack, read_shard, unit_name, unpack
from samtok_data.storage import Folder

BLOCK = 512
KEY = "expected a key of ASCII letters, digits, '_', '+' and '-'"

SAMPLES = [
    Sample("ref-1", {"id": "ref-1", "label": "the \"left\" one\n", "masks": []}, {"jpg": b"\xff\xd8picture"}),
    Sample("ref-0", {"id": "ref-0", "label": "猫 \U0001f431", "masks": [{"codes": [11, 91], "iou": None}]},
           {"jpg": bytes(range(256)) * 5, "1.png": b"\x89PNG"}),
    Sample("a+B_9", {"id": "a+B_9"}, {}),
]  # fmt: skip

# A picture that ends in zeros, as some cameras write them: cut behind it, a tar seems to have its end.
ZEROS = [Sample("a", {"id": "a"}, {"jpg": b"\xff\xd8" + bytes(4 * BLOCK - 2)}), Sample("b", {"id": "b"}, {"jpg": b"2"})]

samples_of_any_kind = st.lists(
    st.builds(
        Sample,
        st.from_regex(r"[A-Za-z0-9_+-]{1,20}", fullmatch=True),
        st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers() | st.text(st.characters(codec="utf-8"))),
        st.dictionaries(st.sampled_from(["jpg", "png", "1.png", "2.jpg"]), st.binary(max_size=1100)),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda sample: sample.key,
)


def members_of(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def tar_of(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar that ``pack`` would not write."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_a_shard_of_known_bytes() -> None:
    """Whoever changes this changes every shard that was ever made: raise FORMAT_VERSION with it."""
    data = pack(SAMPLES)
    assert len(data) == 10240
    assert hashlib.sha256(data).hexdigest() == "3718a7291181b2d61942a8282eb052557ecfd96dd362ed9a280848e9159aa5bc"
    assert b'{"id":"ref-1","label":"the \\"left\\" one\\n","masks":[]}' in data


@given(samples_of_any_kind)
def test_a_shard_is_what_tarfile_writes(samples: list[Sample]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (member for sample in samples for member in sample.members):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert pack(samples) == buffer.getvalue()


@pytest.mark.parametrize("size", [0, 1, 9 * BLOCK - 2, 9 * BLOCK, 17 * BLOCK])
def test_a_shard_ends_with_a_whole_record(size: int) -> None:
    """tar writes records of 20 blocks; here two headers, the JSON, the picture, and the end's two blocks."""
    blocks = 5 + -(-size // BLOCK)
    assert len(pack([Sample("a", {}, {"jpg": bytes(size)})])) == BLOCK * 20 * -(-blocks // 20)


def test_a_shards_name_says_dataset_split_and_unit() -> None:
    assert unit_name("gres", "train", 17) == "gres-train-000017.tar"
    assert unit_name("sa1b", "masks", 3, ".parquet") == "sa1b-masks-000003.parquet"
    assert unit_name("refcoco+", "testA", 1234567) == "refcoco+-testA-1234567.tar"


def test_the_same_samples_are_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack(SAMPLES)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    again = [Sample(one.key, dict(one.record), dict(reversed(list(one.images.items())))) for one in SAMPLES]
    assert pack(again) == data


def test_members_stand_in_order_with_constant_times_and_owners() -> None:
    members = members_of(pack(SAMPLES))
    assert [member.name for member in members] == [
        *("ref-1.jpg", "ref-1.json"),
        *("ref-0.1.png", "ref-0.jpg", "ref-0.json"),
        "a+B_9.json",
    ]
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert (member.mode, member.type) == (0o644, tarfile.REGTYPE)


def test_packing_does_not_change_the_samples() -> None:
    before = [(one.key, json.dumps(one.record), dict(one.images)) for one in SAMPLES]
    pack(SAMPLES)
    assert [(one.key, json.dumps(one.record), dict(one.images)) for one in SAMPLES] == before


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        pytest.param([], "expected at least one sample: an empty shard stops HF datasets", id="none"),
        pytest.param([SAMPLES[0], SAMPLES[1], SAMPLES[0]], "expected unique keys in a shard", id="twice"),
        pytest.param([Sample("", {}, {})], f"{KEY}, got ''", id="empty"),
        pytest.param([SAMPLES[0], Sample("a.b", {}, {})], f"{KEY}, got 'a.b'", id="dot"),
        pytest.param([Sample("a" * 200, {}, {})], "name is too long", id="longer-than-tar-can-say"),
    ],
)
def test_what_readers_could_not_read_is_not_packed(samples: list[Sample], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pack(samples)


@given(samples_of_any_kind)
def test_pack_and_unpack_are_inverse(samples: list[Sample]) -> None:
    assert list(unpack(pack(samples))) == samples


def test_a_shard_is_read_from_a_folder(folder: Folder) -> None:
    folder.write("gres-train-000000.tar", pack(SAMPLES))
    assert list(read_shard(folder, "gres-train-000000.tar")) == SAMPLES
    with pytest.raises(FileNotFoundError):
        read_shard(folder, "x.tar")


@pytest.mark.parametrize("samples", [SAMPLES, ZEROS], ids=["ordinary", "zeros-at-the-end-of-a-picture"])
def test_a_shard_that_is_cut_anywhere_is_refused_or_whole(samples: list[Sample]) -> None:
    """A cut in the filling behind the end is no loss; webdataset and HF datasets notice none between members."""
    data = pack(samples)
    last = members_of(data)[-1]
    end = last.offset_data + -(-last.size // BLOCK) * BLOCK + 2 * BLOCK
    assert BLOCK < end < len(data)
    refused = whole = 0
    for size in range(0, len(data), BLOCK):
        if size < end:
            with pytest.raises(ValueError, match=r"the tar file is (cut|damaged)"):
                list(unpack(data[:size]))
            refused += 1
        else:
            assert list(unpack(data[:size])) == samples
            whole += 1
    assert (refused, whole) == (end // BLOCK, (len(data) - end) // BLOCK)


@given(st.integers(0, 10239))
def test_a_shard_that_is_cut_inside_a_block_is_refused(size: int) -> None:
    data = pack(SAMPLES)[:size]
    if size % BLOCK:
        with pytest.raises(ValueError, match="the tar file is cut: it does not end with two empty blocks"):
            list(unpack(data))


def test_a_damaged_header_is_noticed_not_taken_for_the_end() -> None:
    data = pack(SAMPLES)
    members = members_of(data)
    assert len(members) == 6
    for member in members:
        broken = bytearray(data)
        broken[member.offset] ^= 1
        with pytest.raises(ValueError, match=r"the tar file is (cut or )?damaged"):
            list(unpack(bytes(broken)))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: b"", id="nothing"),
        pytest.param(lambda data: data[:-1], id="a-byte-less"),
        pytest.param(lambda data: data + b"\0", id="a-byte-more"),
        pytest.param(lambda data: data + b"x" * BLOCK, id="a-block-more"),
        pytest.param(lambda data: b"x" * BLOCK + data, id="a-block-before"),
        pytest.param(lambda data: b"\x1f\x8b" + data[2:], id="gzip"),
        pytest.param(lambda data: random.Random(0).randbytes(20 * BLOCK), id="noise"),
        pytest.param(lambda data: random.Random(0).randbytes(20 * BLOCK) + bytes(2 * BLOCK), id="noise-with-an-end"),
        pytest.param(lambda data: b"[]" * 5120 + bytes(2 * BLOCK), id="text-with-an-end"),
        pytest.param(lambda data: data[: 2 * BLOCK] + bytes(BLOCK) + data[2 * BLOCK :], id="an-empty-block-between"),
        pytest.param(lambda data: data[: 2 * BLOCK] + data[3 * BLOCK :], id="a-block-lost"),
    ],
)
def test_bytes_that_are_no_shard_are_refused(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError, match="the tar file is"):
        list(unpack(change(pack(SAMPLES))))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tar_of(("a.jpg", b"1")), "sample a: it has no json member"),
        (tar_of(("a.json", b"{}"), ("b.jpg", b"1")), "sample b: it has no json member"),
        (tar_of(("a.json", b"{}"), ("b.json", b"{}"), ("a.jpg", b"1")), "sample a: it has no json member"),
        (tar_of(("a", b"{}")), "member 'a': expected a file named <key>.<suffix>"),
        (tar_of((".json", b"{}")), "member '.json': expected a file named <key>.<suffix>"),
        (tar_of(("a/b.json", b"{}")), "member 'a/b.json': expected a file named <key>.<suffix>"),
        (tar_of(("a.b/c.json", b"{}")), "member 'a.b/c.json': expected a file named <key>.<suffix>"),
        (tar_of(("../a.json", b"{}")), "member '../a.json': expected a file named <key>.<suffix>"),
        (tar_of(("a.json", b""), kind=tarfile.DIRTYPE), "member 'a.json': expected a file named <key>.<suffix>"),
    ],
)
def test_a_foreign_tar_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        list(unpack(data))


@pytest.mark.parametrize("text", [b"", b"{", b'{"a": 1} x', b"\xff"])
def test_a_member_that_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"the tar file is damaged|can't decode"):
        list(unpack(tar_of(("a.json", text))))
