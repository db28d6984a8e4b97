"""Mixes of mask sources, and where their indexes lie."""

from __future__ import annotations

import hashlib
import tempfile

from converters.masks.registry import open_mix
from converters.masks.source import MaskSource
from samtok_data.storage import Folder

INDEX = "index"


def open_sources(mix: str, out: Folder) -> list[tuple[MaskSource, float]]:
    """The sources of a mixing file with their weights; their indexes lie in the output's folder.

    Args:
        mix: address of the file.
        out: of the run that wants them.

    Raises:
        SetupError: the file or a source cannot be used.
    """
    return open_mix(mix, index_folder(out))


def index_folder(out: Folder) -> str:
    """Where a run's indexes of annotation files lie: beside it on a local disk, else in a cache of this machine."""
    if out.is_local:
        return f"{out.path}/{INDEX}"
    return f"{tempfile.gettempdir()}/samtok-index-{hashlib.sha256(str(out).encode()).hexdigest()[:16]}"
