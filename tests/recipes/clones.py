"""Tiny repositories and tables of sources, made by the tests."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recipes.small.prepare.table import Part, Source
from samtok_data.masks import Mask

REPOSITORY = "someone/pictures"
FOLDER = "someone+pictures"


def photograph(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """An RGB image of soft spots; another seed gives one that looks different."""
    spots = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(spots).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """An image file."""
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def png(labels: Any) -> bytes:
    """A grey PNG of 8 bits."""
    return encoded(Image.fromarray(np.asarray(labels, np.uint8)))


def commit(folder: Path, files: Mapping[str, bytes], name: str = FOLDER) -> str:
    """Makes or extends a clone under the folder, with its work tree, and returns the commit."""
    clone = folder / name
    for path, data in files.items():
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_bytes(data)
    git(clone, "init", "--quiet")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "files")
    return git(clone, "rev-parse", "HEAD")


def git(clone: Path, *arguments: str) -> str:
    """Runs git without the machine's settings."""
    who = {f"GIT_{role}_{key}": "nobody@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", "-C", str(clone), *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def source(kind: str, at: str, paths: Mapping[str, Any], **fields: Any) -> Source:
    """A source of one repository at a commit."""
    part = Part(repository=REPOSITORY, commit=at, licence="MIT", paths=paths, most=fields.pop("most", None))
    counts = {"images": 0, "masks": 0, "sha256": ""}
    return Source(**{"name": "trial", "folder": "extra/trial", "kind": kind, "parts": (part,), **counts, **fields})


def rectangle(top: int, left: int, bottom: int, right: int, shape: tuple[int, int] = (64, 96)) -> Mask:
    """A mask of one rectangle; the ends are exclusive."""
    mask = np.zeros(shape, np.bool_)
    mask[top:bottom, left:right] = True
    return mask
