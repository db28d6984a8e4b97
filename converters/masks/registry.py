"""The kinds of mask sources by name, and the one file that says which sources are mixed and how.

sources:
  - kind: index-png
    root: bsds500            # relative to the folder of this file; an absolute path or an address as well
    name: bsds500            # unique; the kind, where it is left out
    weight: 2                # above 0; 1, where it is left out
    images: images/train     # and further options of the kind
    masks: segments/train
"""

from __future__ import annotations

import inspect
import math
import os
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from converters.masks.ade20k import INFO as ADE20K
from converters.masks.ade20k import open_ade20k
from converters.masks.binary_png import open_binary_png
from converters.masks.cityscapes import INFO as CITYSCAPES
from converters.masks.cityscapes import open_cityscapes
from converters.masks.coco_instances import INFO as COCO_INSTANCES
from converters.masks.coco_instances import open_coco_instances
from converters.masks.coco_panoptic import INFO as COCO_PANOPTIC
from converters.masks.coco_panoptic import open_coco_panoptic
from converters.masks.coconut import INFO as COCONUT
from converters.masks.coconut import open_coconut
from converters.masks.entityseg import INFO as ENTITYSEG
from converters.masks.entityseg import open_entityseg
from converters.masks.index_png import open_index_png
from converters.masks.lisa_plus import INFO as LISA_PLUS
from converters.masks.lisa_plus import open_lisa_plus
from converters.masks.lvis import INFO as LVIS
from converters.masks.lvis import open_lvis
from converters.masks.options import checked_name, open_root
from converters.masks.pixelweb import INFO as PIXELWEB
from converters.masks.pixelweb import open_pixelweb
from converters.masks.sa1b import INFO as SA1B
from converters.masks.sa1b import open_sa1b
from converters.masks.source import MaskSource, MaskSourceInfo, PortableSource
from converters.masks.videos.mevis import INFO as MEVIS
from converters.masks.videos.mevis import open_mevis
from converters.masks.videos.ref_youtube_vos import INFO as REF_YOUTUBE_VOS
from converters.masks.videos.ref_youtube_vos import open_ref_youtube_vos
from converters.masks.videos.revos import INFO as REVOS
from converters.masks.videos.revos import open_revos
from converters.masks.videos.sav import INFO as SAV
from converters.masks.videos.sav import open_sav
from samtok_data.errors import SetupError
from samtok_data.storage import Folder

_OPENERS: dict[str, Callable[..., PortableSource]] = {
    "sa1b": open_sa1b,
    "coco-instances": open_coco_instances,
    "coco-panoptic": open_coco_panoptic,
    "index-png": open_index_png,
    "binary-png": open_binary_png,
    "entityseg": open_entityseg,
    "lisa++": open_lisa_plus,
    "lvis": open_lvis,
    "pixelweb": open_pixelweb,
    "ade20k": open_ade20k,
    "coconut": open_coconut,
    "cityscapes": open_cityscapes,
    "sav": open_sav,
    "mevis": open_mevis,
    "revos": open_revos,
    "ref-youtube-vos": open_ref_youtube_vos,
}
MASK_SOURCES: tuple[str, ...] = tuple(_OPENERS)
"""Every kind of mask source."""

MASK_SOURCE_INFOS: Mapping[str, MaskSourceInfo] = {
    info.kind: info
    for info in (
        SA1B, COCONUT, ENTITYSEG, PIXELWEB, ADE20K, CITYSCAPES, LISA_PLUS, SAV, MEVIS, REVOS, REF_YOUTUBE_VOS,
        COCO_INSTANCES, COCO_PANOPTIC, LVIS,
    )
}  # fmt: skip
"""What is published, by kind; the other kinds are formats that many sets have."""

_OWN_FIELDS = ("kind", "root", "name", "weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """One entry of a mixing file, checked but not opened.

    Attributes:
        kind: one of ``MASK_SOURCES``.
        root: address of its folder; absolute.
        name: unique in the mix.
        options: of its kind.
        weight: finite and above 0; what it means is the sampler's matter.
    """

    kind: str
    root: str
    name: str
    options: Mapping[str, Any]
    weight: float


def open_mask_source(kind: str, *, root: str, index: str, name: str | None = None, **options: Any) -> PortableSource:
    """Finds a source's files and indexes them, once, where its kind has an index.

    Args:
        kind: one of ``MASK_SOURCES``.
        root: address of the source's folder.
        index: local folder of the indexes.
        name: of the source in reports; None: what the kind calls it, which is the kind itself where it can be a name.
        **options: as the kind's ``open_...`` documents them.

    Raises:
        SetupError: no such kind or option, or one without which the kind cannot be opened is left out; a file or
            folder is not there, or of another format; no image has masks.
    """
    _check_options(kind, options)
    called = checked_name(_usual_name(kind) if name is None else name)
    return _OPENERS[kind](open_root(root), index, name=called, **options)


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a kind.

    Attributes:
        default: what it is where it is left out.
        is_needed: whether it cannot be.
    """

    default: Any
    is_needed: bool


def options_of(kind: str) -> dict[str, Option]:
    """The options of a kind by name, in the order in which its ``open_...`` documents them.

    Args:
        kind: one of ``MASK_SOURCES``.
    """
    found = {}
    for name, parameter in inspect.signature(_OPENERS[kind]).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and name != "name":
            is_needed = parameter.default is parameter.empty
            found[name] = Option(None if is_needed else parameter.default, is_needed)
    return found


def read_mix(address: str | os.PathLike[str]) -> tuple[Mixed, ...]:
    """The entries of a mixing file. No source is touched.

    Args:
        address: of the YAML file: a path or ``protocol://path``.

    Raises:
        SetupError: it cannot be read, is no YAML, or an entry is wrong; the message names the entry.
    """
    label = os.fspath(address)
    folder, name = posixpath.split(label if "://" in label else os.path.abspath(label))
    try:
        value = yaml.safe_load(Folder(folder).read(name))
    except OSError as error:
        raise SetupError(f"{label}: cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SetupError(f"{label}: no YAML that can be read: {error}") from error
    if not isinstance(value, Mapping) or set(value) != {"sources"}:
        raise SetupError(f"{label}: expected one field, sources, with a list of sources")
    entries = value["sources"]
    if not isinstance(entries, list) or not entries:
        raise SetupError(f"{label}: sources: expected a list of at least one source")
    mix: list[Mixed] = []
    for place, entry in enumerate(entries, start=1):
        try:
            mixed = _mixed(entry, folder)
        except SetupError as error:
            raise SetupError(f"{label}: source {place}: {error}") from error
        if any(mixed.name == earlier.name for earlier in mix):
            raise SetupError(f"{label}: source {place}: a second source is called {mixed.name}; give it another name")
        mix.append(mixed)
    return tuple(mix)


def open_mix(address: str | os.PathLike[str], index: str) -> list[tuple[MaskSource, float]]:
    """The sources of a mixing file, opened, with their weights, in the file's order.

    Raises:
        SetupError: as ``read_mix`` and ``open_mask_source``; the message names the source.
    """
    opened: list[tuple[MaskSource, float]] = []
    for mixed in read_mix(address):
        try:
            source = open_mask_source(mixed.kind, root=mixed.root, index=index, name=mixed.name, **mixed.options)
        except SetupError as error:
            raise SetupError(f"source {mixed.name}: {error}") from error
        opened.append((source, mixed.weight))
    return opened


def _mixed(entry: Any, folder: str) -> Mixed:
    if not isinstance(entry, Mapping):
        raise SetupError(f"expected an object with kind and root, got {entry!r}")
    kind, root, weight = entry.get("kind"), entry.get("root"), entry.get("weight", 1)
    options = {field: value for field, value in entry.items() if field not in _OWN_FIELDS}
    _check_options(kind, options)
    if not isinstance(root, str) or not root:
        raise SetupError(f"root: expected the source's folder, got {root!r}")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise SetupError(f"weight: expected a number above 0, got {weight!r}")
    name = checked_name(entry.get("name", _usual_name(str(kind))))
    address = root if "://" in root else posixpath.join(folder, root)
    return Mixed(kind=str(kind), root=address, name=name, options=options, weight=float(weight))


def _usual_name(kind: str) -> str:
    return inspect.signature(_OPENERS[kind]).parameters["name"].default


def _check_options(kind: Any, options: Mapping[Any, Any]) -> None:
    if not isinstance(kind, str) or kind not in _OPENERS:
        raise SetupError(f"kind: expected one of {', '.join(_OPENERS)}, got {kind!r}")
    known = options_of(kind)
    unknown = [str(option) for option in options if option not in known]
    if unknown:
        raise SetupError(f"{kind}: no option {', '.join(unknown)}; known are {', '.join(known)}")
    missing = [name for name, one in known.items() if one.is_needed and name not in options]
    if missing:
        raise SetupError(f"{kind}: the option {' and '.join(missing)} is needed")
