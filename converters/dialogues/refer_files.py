"""Reads the two annotation files of a referring dataset and refuses other files.

    refs(X).p, grefs(unc).json   list of refs: {ref_id, image_id, ann_id, split, sentences: [{sent_id, sent}], ...}
    instances.json               COCO instances: {images: [...], annotations: [...], ...}

Format: lichengunc/refer (README, data/README) and henghuiding/gRefCOCO.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from converters.dialogues import safe_pickle
from converters.dialogues.refer_datasets import ReferDataset
from samtok_data.errors import SetupError
from samtok_data.storage import Folder

MAX_ID = 2**63 - 1  # gRefCOCO's crowd annotations have ids of 12 digits: beyond 32 bits

REFS = "a list of refs, each with ref_id, image_id, ann_id, split and sentences"
INSTANCES = "COCO instances: an object with the lists 'images' and 'annotations', each annotation with a segmentation"

# Other files that lie near the wanted ones, told by a field: of the file or its first annotation; of its first entry.
_OBJECTS_BY_FIELD = {
    "segments_info": "COCO panoptic annotations",
    "caption": "COCO captions",
    "refexps": "Google's RefExp annotations, the form before REFER",
    "segmentation": "COCO instances (instances.json)",
}
_LISTS_BY_FIELD = {
    "sentences": "refs",
    "conversations": "training dialogues",
    "score": "COCO results",
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An annotation file, parsed.

    Attributes:
        name: under the root.
        sha256: of its bytes, hex.
        value: what it holds.
    """

    name: str
    sha256: str
    value: Any


def is_id(value: Any) -> TypeGuard[int]:
    """Whether a value is an id as COCO and REFER have them: a whole number from 0 on, of 63 bits at most."""
    return type(value) is int and 0 <= value <= MAX_ID


def find_files(dataset: ReferDataset, partition: str, root: Folder) -> tuple[str, str]:
    """Names of the refs file and of ``instances.json`` under the root.

    Raises:
        SetupError: one of them is not there.
    """
    refs_file, instances_file, _ = dataset.info_of(partition).files
    found = {
        wanted.path: next((place for place in dataset.places(wanted.path) if root.exists(place)), None)
        for wanted in (refs_file, instances_file)
    }
    refs, instances = found[refs_file.path], found[instances_file.path]
    if refs is None or instances is None:
        missing = " and ".join(path for path, place in found.items() if place is None)
        layout = "".join(f"\n  {file.path}: {file.content}" for file in dataset.info_of(partition).files)
        raise SetupError(f"{root}: {missing} not found. {dataset.name} wants this under --root:{layout}")
    return refs, instances


def find_images(dataset: ReferDataset, root: Folder, images_root: str | None) -> str:
    """Address of the folder with the images.

    Args:
        dataset: gives the places where its images may lie.
        root: of the dataset, searched where ``images_root`` is None.
        images_root: the folder itself, or the one that holds it under its usual name.

    Raises:
        SetupError: there is no such folder.
    """
    if images_root is None:
        for place in dataset.images:
            if root.exists(place):
                return (root / place).address
        places = ", ".join(dataset.images)
        raise SetupError(
            f"{root}: no folder of images ({dataset.image_files}); looked for {places}; give it with --images-root"
        )
    folder = Folder(images_root)
    child = dataset.images[0].split("/")[-1]
    if folder.exists(child):
        return (folder / child).address
    if folder.exists():
        return folder.address
    raise SetupError(f"--images-root {images_root}: no such folder; it should hold {dataset.image_files}")


def read_refs(dataset: ReferDataset, root: Folder, name: str) -> SourceFile:
    """The refs, as a list of at least one.

    Raises:
        SetupError: the file cannot be read, is broken, or is another dataset's.
    """
    source = _read(root, name)
    # Some mirrors wrap the list as {"refs": [...], "_splits": ...}.
    wrapped = isinstance(source.value, Mapping) and isinstance(source.value.get("refs"), list)
    refs = source.value["refs"] if wrapped else source.value
    if not isinstance(refs, list) or not any(isinstance(ref, Mapping) and "sentences" in ref for ref in refs):
        raise SetupError(f"{root}: {name}: expected {REFS}; it looks like {_kind(refs)}")
    _check_kind_of_refs(dataset, refs, f"{root}: {name}")
    return SourceFile(source.name, source.sha256, refs)


def read_instances(root: Folder, name: str) -> SourceFile:
    """The COCO instances, as an object with the lists ``images`` and ``annotations``.

    Raises:
        SetupError: the file cannot be read, is broken, or is of another kind.
    """
    source = _read(root, name)
    value = source.value
    if not isinstance(value, Mapping) or not all(isinstance(value.get(key), list) for key in ("images", "annotations")):
        raise SetupError(f"{root}: {name}: expected {INSTANCES}; it looks like {_kind(value)}")
    annotations = value["annotations"]
    if annotations and not any(isinstance(entry, Mapping) and "segmentation" in entry for entry in annotations):
        raise SetupError(f"{root}: {name}: expected {INSTANCES}; it looks like {_kind(value)}")
    return source


def by_id(entries: list[Any], wanted: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The entries of COCO's ``images`` or ``annotations`` that are wanted, by id, in file order.

    Entries without a usable id are passed over: nothing can name them.
    """
    for entry in entries:
        if isinstance(entry, dict) and is_id(entry.get("id")) and entry["id"] in wanted:
            yield entry["id"], entry


def _read(root: Folder, name: str) -> SourceFile:
    label = f"{root}: {name}"
    try:
        data = root.read(name)
    except OSError as error:
        raise SetupError(f"{label}: cannot be read: {error}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if not name.endswith(".json"):
        return SourceFile(name, sha256, safe_pickle.loads(data, label))
    try:
        text = data.decode(json.detect_encoding(data))
        del data  # the bytes, the text and the parsed value of a large file need not lie in memory together
        return SourceFile(name, sha256, json.loads(text))
    except json.JSONDecodeError as error:
        raise SetupError(
            f"{label}: no complete JSON: {error.msg} at line {error.lineno}, column {error.colno}; the file is cut or "
            "of another format: fetch it again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SetupError(f"{label}: no JSON that can be read: {error}") from error


def _check_kind_of_refs(dataset: ReferDataset, refs: list[Any], label: str) -> None:
    """Tells gRefCOCO's refs from RefCOCO's; old gRefCOCO files hold bare ids among the lists, broken refs happen."""
    in_lists = sum(
        isinstance(ref, Mapping) and ("no_target" in ref or isinstance(ref.get("ann_id"), list)) for ref in refs
    )
    if dataset.multi_target and not in_lists:
        raise SetupError(
            f"{label}: expected refs of {dataset.title}; it looks like RefCOCO's refs: no ref has a list of annotation "
            "ids or 'no_target'"
        )
    if not dataset.multi_target and 2 * in_lists > len(refs):
        raise SetupError(
            f"{label}: expected refs of {dataset.title}; it looks like gRefCOCO's refs: {in_lists:,} of {len(refs):,} "
            "have a list of annotation ids or 'no_target'"
        )


def _kind(value: Any) -> str:
    """What a parsed file seems to be, in words."""
    if isinstance(value, Mapping):
        return _kind_of_object(value)
    if not isinstance(value, list):
        return f"a value of type {type(value).__name__}"
    first = _first(value)
    for field, kind in _LISTS_BY_FIELD.items():
        if field in first:
            return kind
    if first:
        return f"a list of objects with the keys {_keys(first)}"
    return f"a list of {len(value)} entries that are no objects" if value else "an empty list"


def _kind_of_object(value: Mapping[Any, Any]) -> str:
    first = _first(value.get("annotations"))
    for field, kind in _OBJECTS_BY_FIELD.items():
        if field in value or field in first:
            return kind
    return f"an object with the keys {_keys(value)}"


def _keys(value: Mapping[Any, Any]) -> str:
    return ", ".join(str(key) for key in list(value)[:8]) or "none"


def _first(entries: Any) -> Mapping[Any, Any]:
    """The first object of a list; an empty one where there is none."""
    if not isinstance(entries, list):
        return {}
    return next((entry for entry in entries if isinstance(entry, Mapping)), {})
