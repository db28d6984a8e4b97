"""SA-1B: pictures with a JSON file each, in tar files or in folders.

    sa_000000.tar, ...                  unit: one tar, read from front to back; sa_1.jpg and sa_1.json in any order
    sa_1.jpg, sa_1.json, ...            unit: one image; also one level of sub-folders (sa_000000/sa_1.jpg)

    sa_1.json    {"image": {"height", "width", ...}, "annotations": [{"id", "segmentation": RLE, ...}, ...]}

In folders a unit is an image, not a sub-folder: then images can be drawn in any order and shared out evenly, and the
one listing that this takes is needed for a flat folder in any case. Boxes and areas are not used: a box of SA-1B is
one pixel smaller than its mask. Format: README of facebookresearch/segment-anything.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from converters.files.listings import (
    PICTURE_SUFFIXES,
    Listed,
    digest_of,
    index_listing,
    list_folder,
    named_entry,
    stem_of,
)
from converters.files.tar_stream import Member, members
from converters.files.unit_index import Entry, UnitRecord
from converters.masks.indexed_source import Found, IndexedSource
from converters.masks.options import checked_count, checked_limit
from converters.masks.sa1b_pairs import MAX_IMAGE_BYTES, MAX_JSON_BYTES, Half, Waiting, WantedMasks, read_pair
from converters.masks.source import LISTING, MaskSourceInfo, PortableSource, WantedFile
from samtok_data.errors import RecordError, SetupError
from samtok_data.pictures import decode_picture, read_file, read_picture
from samtok_data.rejects import Reject
from samtok_data.storage import Folder

KIND = "sa1b"
_JSON = (".json",)
_TAR = ".tar"


INFO = MaskSourceInfo(
    kind=KIND,
    title="SA-1B",
    files=(
        WantedFile(
            place="sa_*.tar",
            content="tars of sa_N.jpg and sa_N.json, as published; or both of each image, unpacked",
            elsewhere=("sa_*.json", "*/sa_*.json"),
        ),
    ),
    licence="SA-1B Dataset Research License: research only, accepted at download.",
    home="https://ai.meta.com/datasets/segment-anything/",
    images=11_000_000,
    masks=200_000_000,
)


def open_sa1b(
    root: Folder,
    index: str,
    *,
    name: str = KIND,
    min_area: int = 1,
    masks_per_image: int | None = 20,
    seed: int = 0,
) -> PortableSource:
    """A source of SA-1B's pairs. Where there are tars, only they are read.

    Args:
        root: folder of the tars, of the pairs, or of the sub-folders with pairs.
        index: local folder of the indexes; used for pairs only.
        name: of the source.
        min_area: smaller masks, in pixels, are left out.
        masks_per_image: at most so many of an image's hundred masks, drawn once and for all; None: all. The published
            tokenizer saw about 20 an image: 200 million masks of 11 million images.
        seed: of that choice.

    Raises:
        SetupError: an option is wrong, or there is neither a tar nor a pair.
    """
    wanted = WantedMasks(
        min_area=checked_count("min_area", min_area, 1),
        masks_per_image=checked_limit("masks_per_image", masks_per_image),
        seed=checked_count("seed", seed, 0),
    )
    tars = sorted((one for one in list_folder(root) if _is_tar(one)), key=lambda one: one.name)
    if tars:
        unnamed = [tar.name for tar in tars if not tar.name.isprintable()]
        if unnamed:  # rows and bookkeeping hold the names as text
            raise SetupError(f"{root}: {unnamed[0]!r}: a tar's name should be a text that can be printed; rename it")
        sized = tuple((one.name, root.size(one.name) if one.size is None else one.size) for one in tars)
        digest = digest_of(f"{tar}\0{size}" for tar, size in sized)
        settings = {"kind": KIND, **asdict(wanted), LISTING: digest}
        return Sa1bTars(name=name, settings=settings, root=root, tars=sized, wanted=wanted)
    digest, units = index_listing(KIND, index, partial(_entries, root))
    settings = {"kind": KIND, **asdict(wanted), "names": digest}
    return IndexedSource(name=name, settings=settings, index=units, reader=Sa1bPairReader(root=root, wanted=wanted))


def _is_tar(listed: Listed) -> bool:
    return not listed.is_folder and listed.name.endswith(_TAR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sa1bTars:
    """A MaskSource of tars.

    Attributes:
        name: as ``MaskSource`` says.
        settings: as ``MaskSource`` says.
        root: folder of the tars.
        tars: name and bytes of each, by name.
        wanted: which masks of an image.
    """

    name: str
    settings: Mapping[str, Any]
    root: Folder
    tars: tuple[tuple[str, int], ...]
    wanted: WantedMasks

    @property
    def num_units(self) -> int:
        """Number of tars."""
        return len(self.tars)

    @property
    def listing(self) -> tuple[str, ...]:
        """Each tar with its bytes: users fetch some more tars later."""
        return tuple(f"{tar} {size}" for tar, size in self.tars)

    def unit_name(self, unit: int) -> str:
        """The tar's name."""
        return self.tars[unit][0]

    def records(self, units: range) -> list[Any]:
        """Each tar's name and bytes."""
        return [list(self.tars[unit]) for unit in units]

    def read(self, unit: int) -> Found:
        """As ``read_record``."""
        yield from self.read_record(list(self.tars[unit]))

    def read_record(self, record: Any) -> Found:
        """The pairs of a tar, each as soon as both halves were met.

        Where the tar is damaged, one reject says where, and nothing is said of files that had not met their other half.
        """
        tar, size = record
        done: set[str] = set()
        with Waiting() as waiting:
            try:
                for member in members(self.root, tar, size, _limit_of):
                    yield from self._met(member, tar, waiting, done)
            except RecordError as error:
                yield Reject(tar, error.reason, f"{error.message}; {len(done):,} pairs stood before", {"tar": tar})
                return
            for stem, half in waiting.rest():
                lacking = RecordError("annotation-missing", f"{half.name}: {tar} holds no {stem}.json")
                if half.is_json:
                    lacking = RecordError("image-missing", f"{half.name}: {tar} holds no {stem}.jpg")
                yield Reject.of(lacking, stem, {"tar": tar, "member": half.name})

    def _met(self, member: Member, tar: str, waiting: Waiting, done: set[str]) -> Found:
        name = _shown(member.name)
        stem = posixpath.splitext(name)[0]
        half = Half(name=name, is_json=stem_of(name, _JSON) is not None, size=member.size, data=member.data)
        other = waiting.take(stem)
        if other is not None and other.is_json != half.is_json:
            done.add(stem)
            image, annotation = (other, half) if half.is_json else (half, other)
            yield from self._pair(stem, image, annotation, tar)
        elif other is None and stem not in done:
            waiting.put(stem, half)
        else:
            if other is not None:
                waiting.put(stem, other)  # the first of a name counts
            twice = RecordError("record-duplicate", f"{name}: a second file of this name")
            yield Reject.of(twice, stem, {"tar": tar, "member": name})

    def _pair(self, stem: str, image: Half, annotation: Half, tar: str) -> Found:
        where = {"tar": tar, "member": annotation.name}
        try:
            picture, text = image.read(), annotation.read()
        except RecordError as error:
            yield Reject.of(error, stem, where)
            return
        opener = partial(decode_picture, picture)
        yield from read_pair(stem, f"{tar}/{image.name}", text, where, wanted=self.wanted, opener=opener, archive=tar)


def _shown(name: str) -> str:
    """The last part of a member's name, in ASCII."""
    return posixpath.basename(name).encode("unicode_escape").decode("ascii")


def _limit_of(name: str) -> int | None:
    base = posixpath.basename(name)
    if base.startswith("."):  # what some systems write beside each file
        return None
    if stem_of(base, _JSON) is not None:
        return MAX_JSON_BYTES
    return MAX_IMAGE_BYTES if stem_of(base, PICTURE_SUFFIXES) is not None else None


def _entries(root: Folder) -> Iterator[Entry]:
    pictures = texts = 0
    for entry in _files(root):
        pictures += entry.table == "images"
        texts += entry.table == "annotations"
        yield entry
    if not pictures or texts == pictures:  # a picture counts as both
        raise SetupError(
            f"{root}: neither sa_*.tar nor pairs of a picture and a JSON file, here or one folder below; "
            "packed tars (.tar.gz) must be unpacked to .tar first"
        )


def _files(root: Folder) -> Iterator[Entry]:
    yield from _pairs(root, "")
    for listed in list_folder(root):
        if listed.is_folder:
            yield from _pairs(root / listed.name, f"{listed.name}/")


def _pairs(folder: Folder, prefix: str) -> Iterator[Entry]:
    for listed in list_folder(folder):
        name = prefix + listed.name
        if listed.is_folder:
            continue
        if (stem := stem_of(name, PICTURE_SUFFIXES)) is not None:
            yield named_entry("images", stem, name)
            yield named_entry("annotations", stem, name)  # so that a picture without a JSON file has a row as well
        elif (stem := stem_of(name, _JSON)) is not None:
            yield named_entry("annotations", stem, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sa1bPairReader:
    """Reads one pair from a folder.

    Attributes:
        root: of the source.
        wanted: which masks of an image.
    """

    root: Folder
    wanted: WantedMasks

    def name_of(self, record: UnitRecord) -> str:
        """The picture's name, or what its JSON file calls it where it is missing."""
        return record.images[0] if record.images else str(record.key)

    def read(self, record: UnitRecord) -> Found:
        """The image with its masks."""
        scene = str(record.key)
        where = {"images": record.images, "files": record.annotations}
        try:
            image, text = self._files(record)
        except RecordError as error:
            yield Reject.of(error, scene, where)
            return
        yield from read_pair(scene, image, text, where, wanted=self.wanted, opener=partial(read_picture, self.root))

    def _files(self, record: UnitRecord) -> tuple[str, bytes]:
        texts = [name for name in record.annotations if stem_of(name, _JSON) is not None]
        if not record.images:
            raise RecordError("image-missing", f"{texts[0]}: no picture of this name beside it")
        if not texts:
            raise RecordError("annotation-missing", f"{record.images[0]}: no JSON file of this name beside it")
        if len(record.images) > 1 or len(texts) > 1:
            names = ", ".join(sorted(record.images + texts))
            raise RecordError("record-duplicate", f"{record.key}: expected one pair, got {names}")
        if self._is_large(texts[0]):
            raise RecordError(
                "annotation-unreadable", f"{texts[0]}: more bytes than the {MAX_JSON_BYTES:,} that are read"
            )
        return record.images[0], read_file(self.root, texts[0], missing="annotation-missing", kind="JSON file")

    def _is_large(self, name: str) -> bool:
        try:
            return self.root.size(name) > MAX_JSON_BYTES
        except OSError:
            return False  # reading it says what is wrong
