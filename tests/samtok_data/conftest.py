"""Output folders on the three kinds of file system: a local disk, memory, and an S3 server on the loopback."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from samtok_data.storage import Folder
from tests.conftest import BUCKET

_NUMBERS = itertools.count()


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest) -> Iterator[Folder]:
    """An output folder that does not exist yet, on each kind of file system."""
    number = next(_NUMBERS)
    if request.param == "local":
        tmp_path: Path = request.getfixturevalue("tmp_path")
        yield Folder(tmp_path / "out")
    elif request.param == "memory":
        yield Folder(f"memory://test-{number}/out")
        memory = fsspec.filesystem("memory")
        if memory.exists(f"/test-{number}"):
            memory.rm(f"/test-{number}", recursive=True)
    else:
        request.getfixturevalue("s3_endpoint")
        yield Folder(f"s3://{BUCKET}/test-{number}/out")
